"""Where the merged file system goes."""
