"""Sources of blobs: each form is detected by its content and read in place."""
