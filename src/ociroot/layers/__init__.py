"""What a layer changes: from the bytes of a blob to the changes that they describe."""
