"""Open a directory far below another one with a single call, if the kernel supports it.

An image may nest thousands of directories, and alternate between the top and the bottom with each
entry. Opening them one by one would take a thousand times as long as creating a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ... import linux

__all__ = ["open_far"]

# The maximum length of a path in bytes (PATH_MAX of Linux, without the NUL).
_MAX_PATH = 4095


def open_far(fd: int, names: Sequence[bytes]) -> int | None:
    """Open the directory at the end of a chain of directories.

    The kernel follows no symbolic link in the chain, as with ``O_NOFOLLOW`` for each name.

    Args:
        fd: the descriptor of the first one's parent.
        names: the names, without ``..``.

    Returns:
        Its descriptor; None if that failed. Opening them one by one shows the error.
    """
    at = fd
    for path in _paths(names):
        try:
            below = linux.open_beneath(at, path, linux.OPEN_DIRECTORY)
        except OSError:
            below = -1
        if at != fd:
            os.close(at)
        if below < 0:
            return None
        at = below
    return at


def _paths(names: Sequence[bytes]) -> Iterator[bytes]:
    """Join names to paths of at most the maximum length."""
    part: list[bytes] = []
    length = 0
    for name in names:
        if length + len(name) > _MAX_PATH:
            yield b"/".join(part)
            part, length = [], 0
        part.append(name)
        length += len(name) + 1
    yield b"/".join(part)
