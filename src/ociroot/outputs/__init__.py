"""The shapes in which a root file system is written."""
