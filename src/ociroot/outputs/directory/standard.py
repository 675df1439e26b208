"""Descriptors 0 to 2: libraries write to them, so nothing of ours may be one of them.

A program that was started with one of them closed gets it for the first file that it opens.
"""

from __future__ import annotations

import os

__all__ = ["fill_standard"]


def fill_standard() -> list[int]:
    """Open something without any effect as each of the descriptors 0 to 2 that is closed.

    Returns:
        Those that were closed.
    """
    filled = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The kernel gives the lowest one that is free.
            filled.append(_harmless())
    return filled


def _harmless() -> int:
    """Open what gives nothing to read and keeps nothing that is written."""
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # There is none in some chroots.
        reader, writer = os.pipe()
        os.close(writer)
        return reader
