"""What files take of a file system, what it has free, and what of that is left for others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

__all__ = ["BLOCK", "free_space", "occupied", "reserve"]

#: Bytes of a block: what file systems give out at least.
BLOCK = 4096


def occupied(runs: Iterable[tuple[int, int]]) -> int:
    """Return the bytes of all blocks in which a sparse file has data.

    Args:
        runs: offset and length of each run of data, ascending, none of them empty.
    """
    blocks = end = 0
    for offset, length in runs:
        first = max(offset // BLOCK, end)
        end = (offset + length - 1) // BLOCK + 1
        blocks += end - first
    return blocks * BLOCK


def free_space(fd: int) -> int:
    """Return the bytes that an ordinary user may still write where a file or directory lies.

    Args:
        fd: its descriptor.
    """
    status = os.fstatvfs(fd)
    # A file system without a size (ramfs) says 0 of everything.
    return status.f_bavail * status.f_frsize if status.f_blocks else sys.maxsize


def reserve(fd: int) -> int:
    """Return the bytes that are left free there: a hundredth of all, and at most 256 MiB.

    Args:
        fd: the descriptor of a file or directory on it.
    """
    status = os.fstatvfs(fd)
    return min(status.f_blocks * status.f_frsize // 100, 256 << 20)
