"""``python -m ociroot``."""

from .cli import main

main()
