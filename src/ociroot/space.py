"""What a file system has free, and what of it is left for others."""

from __future__ import annotations

import os
import sys

__all__ = ["free_space", "reserve"]


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
