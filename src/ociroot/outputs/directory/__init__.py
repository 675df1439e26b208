"""The directory writer: the operations of the tree, carried out on a real file system."""
