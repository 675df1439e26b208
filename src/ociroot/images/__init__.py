"""The images of a source, and the selection of one."""
