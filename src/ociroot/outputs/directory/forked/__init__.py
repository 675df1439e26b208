"""A second process that writes small files."""
