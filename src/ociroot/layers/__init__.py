"""Layers: from the bytes of a blob to the changes that they describe."""
