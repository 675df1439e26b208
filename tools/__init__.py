"""Development tools of ociroot."""
