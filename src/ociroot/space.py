"""What files take of a file system, what it has free, and what of that is left for others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

__all__ = ["BLOCK", "block_size", "free_space", "occupied", "reserve"]

#: Bytes of a block: what file systems give out at least.
BLOCK = 4096
# What is believed of them: a huge page of tmpfs.
_LARGEST = 2 << 20


def occupied(runs: Iterable[tuple[int, int]], block: int = BLOCK) -> int:
    """Return the bytes of all blocks in which a sparse file has data.

    Args:
        runs: offset and length of each run of data, ascending, none of them empty.
        block: bytes of a block.
    """
    blocks = end = 0
    for offset, length in runs:
        first = max(offset // block, end)
        end = (offset + length - 1) // block + 1
        blocks += end - first
    return blocks * block


def block_size(fd: int) -> int:
    """Return the bytes that a file of one byte takes where a directory lies.

    It is more than a block where a file system gives out clusters (bigalloc) or huge pages, which
    statvfs(3) does not tell.

    Args:
        fd: the directory's descriptor.
    """
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd)
    except OSError:
        return BLOCK  # not every file system has files without a name
    try:
        os.write(file, b"x")
        taken = os.fstat(file).st_blocks * 512
    except OSError:
        return BLOCK
    finally:
        os.close(file)
    return min(max(taken, BLOCK), _LARGEST)


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
