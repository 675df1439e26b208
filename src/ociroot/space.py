"""What files take of a file system, what it has free, and what of that is left for others."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable

from .errors import DestinationError

__all__ = ["BLOCK", "SpaceBudget", "block_size", "explain_full", "occupied"]

#: Bytes of a block: what file systems give out at least.
BLOCK = 4096
# What is believed of them: a huge page of tmpfs.
_LARGEST = 2 << 20
# The reserve that is left at most, and the bytes to claim at most before the next look.
_RESERVE = 256 << 20
_MOST = 64 << 20


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


class SpaceBudget:
    """What may be written to a file system, of which a reserve is left to its other users.

    The reserve is a hundredth of the file system, and at most 256 MiB. A call of statvfs(3) for
    each file would cost as much as a small file does. So what is claimed is added up, and the free
    space is looked at again when half of what was free has been claimed since, or 64 MiB, or half
    the reserve where that is more: at least half of it is left whatever happens.
    """

    def __init__(
        self,
        fd: int,
        *,
        remedy: str,
        reserved: bool = True,
        written: Callable[[], int] | None = None,
        so_far: Callable[[], str] = str,
    ) -> None:
        """Look at a file system.

        Args:
            fd: the descriptor of a file or directory on it, which stays its owner's.
            remedy: what the user can do when there is no space.
            reserved: whether there is a reserve; without one :meth:`claim` refuses nothing, since
                the user has said how much it may be.
            written: says how many of the claimed bytes are on the file system already; None: all
                but those of the claim in hand.
            so_far: says in a message how far the work is, with a blank before it.
        """
        self._fd = fd
        self._remedy = remedy
        self._written = written
        self._so_far = so_far
        self._reserve = 0
        self._claimed = 0
        self._look_at = sys.maxsize
        if reserved:
            status = os.fstatvfs(fd)
            self._reserve = min(status.f_blocks * status.f_frsize // 100, _RESERVE)
            self._look_at = 0

    def left(self, size: int) -> int:
        """Return what is free beyond the reserve and some more bytes; negative: they do not fit."""
        status = os.fstatvfs(self._fd)
        # A file system without a size (ramfs) says 0 of everything.
        free = status.f_bavail * status.f_frsize if status.f_blocks else sys.maxsize
        return free - self._reserve - size

    def require(self, size: int, problem: str) -> None:
        """Refuse with this problem what does not fit.

        Raises:
            DestinationError: there is no space for as many bytes.
        """
        if self.left(size) < 0:
            raise self._refusal(problem)

    def claim(self, size: int) -> None:
        """Count bytes that will be written; now and then look whether there is space for them.

        Raises:
            DestinationError: the file system would be full, or nearly so.
        """
        self._claimed += size
        if self._claimed > self._look_at:
            self._look(size)

    def stop_looking(self) -> None:
        """Look at the free space no more: another process does it for both."""
        self._look_at = sys.maxsize

    @property
    def claimed(self) -> int:
        """The bytes of all claims."""
        return self._claimed

    def _look(self, size: int) -> None:
        under_way = size if self._written is None else self._claimed - self._written()
        left = self.left(under_way)
        if left < 0:
            raise self._refusal(f"no space for {size} bytes more{self._so_far()}")
        # Nobody but us would write; whatever is not foreseen must not take more than the reserve.
        self._look_at = self._claimed + max(min(left // 2, _MOST), self._reserve // 2)

    def _refusal(self, problem: str) -> DestinationError:
        if self._reserve:
            problem += f": a reserve of {self._reserve} bytes is left"
        return DestinationError(problem, errno=errno.ENOSPC, remedy=self._remedy)


def explain_full(fd: int, code: int | None) -> str:
    """Return what is used up of a file system that takes no more.

    Args:
        fd: the descriptor of a file or directory on it.
        code: what the kernel answered, ENOSPC or EDQUOT.
    """
    if code == errno.EDQUOT:
        return "your quota is used up"
    status = os.fstatvfs(fd)
    # btrfs has no number of inodes, and says 0 of all.
    if status.f_files and not status.f_favail:
        return "its file system has no inodes left"
    return "its file system is full"
