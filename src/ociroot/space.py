"""Disk space: the blocks of files, the free space, and the reserve."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable

from .errors import DestinationError

__all__ = ["BLOCK", "SpaceBudget", "block_size", "explain_full", "occupied"]

#: The minimum allocation unit of file systems, in bytes.
BLOCK = 4096
# The maximum plausible unit: a huge page of tmpfs.
_LARGEST = 2 << 20
# The maximum reserve, and the maximum of claims between two checks, in bytes.
_RESERVE = 256 << 20
_MOST = 64 << 20


def occupied(runs: Iterable[tuple[int, int]], block: int = BLOCK) -> int:
    """Return the bytes of all blocks in which a sparse file has data.

    Args:
        runs: offset and length of each run of data in bytes, ascending and not empty.
        block: bytes per block.
    """
    blocks = end = 0
    for offset, length in runs:
        first = max(offset // block, end)
        end = (offset + length - 1) // block + 1
        blocks += end - first
    return blocks * block


def block_size(fd: int) -> int:
    """Return the bytes that a file of one byte takes on the file system of a directory.

    It is more than a block if the file system allocates clusters (bigalloc) or huge pages, which
    statvfs(3) does not report.

    Args:
        fd: the directory's descriptor.
    """
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd)
    except OSError:
        return BLOCK  # not every file system supports O_TMPFILE
    try:
        os.write(file, b"x")
        taken = os.fstat(file).st_blocks * 512
    except OSError:
        return BLOCK
    finally:
        os.close(file)
    return min(max(taken, BLOCK), _LARGEST)


class SpaceBudget:
    """The space that may be used on a file system, without a reserve for its other users.

    The reserve is a hundredth of the file system, at most 256 MiB. Calling statvfs(3) for each file
    would cost as much as writing a small file. So claims are added up, and the free space is
    checked again after claims of half the free space or 64 MiB, whichever is less, but at least
    half the reserve. So at least half of the reserve always stays free.
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
        """Create the budget of a file system.

        Args:
            fd: the descriptor of a file or directory on it; the caller keeps and closes it.
            remedy: what the user can do if there is no space.
            reserved: whether there is a reserve; without one :meth:`claim` refuses nothing, because
                the user has set a limit.
            written: returns how many of the claimed bytes have been written; None: all but those of
                the current claim.
            so_far: returns the state of the work for a message, with a leading space.
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
        """Return the free bytes beyond the reserve after ``size`` more; negative: no space."""
        status = os.fstatvfs(self._fd)
        # A file system without a size (ramfs) reports 0 for all values.
        free = status.f_bavail * status.f_frsize if status.f_blocks else sys.maxsize
        return free - self._reserve - size

    def require(self, size: int, problem: str) -> None:
        """Check that there is space for ``size`` bytes.

        Raises:
            DestinationError: there is not, with this problem.
        """
        if self.left(size) < 0:
            raise self._refusal(problem)

    def claim(self, size: int) -> None:
        """Count bytes that will be written, and check the free space from time to time.

        Raises:
            DestinationError: the file system would be full, or nearly so.
        """
        self._claimed += size
        if self._claimed > self._look_at:
            self._look(size)

    def stop_looking(self) -> None:
        """Stop checking the free space: another process does it for both."""
        self._look_at = sys.maxsize

    @property
    def claimed(self) -> int:
        """The bytes of all claims."""
        return self._claimed

    def _look(self, size: int) -> None:
        under_way = size if self._written is None else self._claimed - self._written()
        left = self.left(under_way)
        if left < 0:
            raise self._refusal(f"no space for {size} more bytes{self._so_far()}")
        # If no other process writes, this is exact; unforeseen use must not exceed the reserve.
        self._look_at = self._claimed + max(min(left // 2, _MOST), self._reserve // 2)

    def _refusal(self, problem: str) -> DestinationError:
        if self._reserve:
            problem += f": a reserve of {self._reserve} bytes is kept"
        return DestinationError(problem, errno=errno.ENOSPC, remedy=self._remedy)


def explain_full(fd: int, code: int | None) -> str:
    """Return which resource of a file system is exhausted.

    Args:
        fd: the descriptor of a file or directory on it.
        code: the error number, ENOSPC or EDQUOT.
    """
    if code == errno.EDQUOT:
        return "the disk quota is exceeded"
    status = os.fstatvfs(fd)
    # btrfs has no fixed number of inodes, and reports 0.
    if status.f_files and not status.f_favail:
        return "its file system has no inodes left"
    return "its file system is full"
