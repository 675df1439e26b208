"""The formats in which a root file system is written."""
