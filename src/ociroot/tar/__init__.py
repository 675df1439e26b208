"""Tar archives as they are found: the outer archive of an image, and its layers.

Stands left of ``sources`` because both the outer archive and the layers are read with it.
"""
