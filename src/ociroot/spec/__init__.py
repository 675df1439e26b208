"""The image-spec's documents as frozen, typed structs, checked once when they come in."""
