"""Outputs that are written from the beginning to the end: archives, to a file or a pipe."""
