"""Opening a directory far below another one at once, where Linux can.

An image may have thousands of directories in each other, and go from one end to the other with each
entry. To open them one by one takes a thousand times as long as to make a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ... import linux

__all__ = ["open_far"]

# Bytes of a path, as Linux has it (PATH_MAX, with the final NUL).
_MAX_PATH = 4095


def open_far(fd: int, names: Sequence[bytes]) -> int | None:
    """Open the directory at the end of a chain of directories.

    No name of the chain may be a symbolic link: the kernel follows none, as with ``O_NOFOLLOW`` and
    one name at a time.

    Args:
        fd: the directory that the first one is in.
        names: the names, none of which is ``..``.

    Returns:
        Its descriptor; None: it cannot be opened so. Whoever opens them one by one sees why.
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
    """Join names to paths of which each is as long as it may be."""
    part: list[bytes] = []
    length = 0
    for name in names:
        if length + len(name) > _MAX_PATH:
            yield b"/".join(part)
            part, length = [], 0
        part.append(name)
        length += len(name) + 1
    yield b"/".join(part)
