"""Reserve descriptors 0 to 2: libraries write to them, so no file of ours may get one of them.

In a program that was started with one of them closed, the first opened file would get it.
"""

from __future__ import annotations

import os

__all__ = ["fill_standard"]


def fill_standard() -> list[int]:
    """Open /dev/null, or a pipe, for each closed descriptor from 0 to 2.

    Returns:
        The descriptors that were closed.
    """
    filled = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The kernel assigns the lowest free number.
            filled.append(_harmless())
    return filled


def _harmless() -> int:
    """Return a descriptor that reads as empty and keeps nothing that is written."""
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # Some chroots do not have it.
        reader, writer = os.pipe()
        os.close(writer)
        return reader
