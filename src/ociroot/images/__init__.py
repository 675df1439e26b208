"""What is in a source, and which image of it is meant."""
