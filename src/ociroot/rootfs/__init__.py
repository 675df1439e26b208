"""The merged root file system in memory, and what can be asked of it."""
