"""The image-spec's documents as frozen, typed structs, validated once when they are decoded."""
