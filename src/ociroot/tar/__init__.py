"""Reading of tar archives, lenient where all archivers agree and strict where readers disagree.

``sources`` reads the image archive with it, and ``layers`` the layers.
"""
