"""Where the blobs are: each form of a source, told apart by its content and read in place."""
