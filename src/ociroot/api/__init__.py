"""What a caller holds."""
