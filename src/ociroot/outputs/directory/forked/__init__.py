"""A second process that makes small files."""
