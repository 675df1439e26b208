"""Programs for those who work on ociroot."""
