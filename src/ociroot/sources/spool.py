"""The file into which a compressed archive, or one that comes through a pipe, is decompressed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from ..errors import DestinationError
from ..limits import Limits
from ..space import free_space, reserve

__all__ = ["spool"]

# Bytes to write before the free space is looked at again: half of it, and at most these.
_MOST = 64 << 20
_REMEDY = "--tmpdir names another directory"


def spool(
    chunks: Iterator[bytes], least: int, tmpdir: str | os.PathLike[str] | None, limits: Limits
) -> int:
    """Write chunks to a file that has no name, and is gone when it is closed.

    Args:
        chunks: what is written.
        least: bytes that there will surely be.
        tmpdir: where the file lies; None: the system's place.
        limits: on its size.

    Returns:
        The file's descriptor.

    Raises:
        DestinationError: the file system would be full, or nearly so.
        LimitExceeded: it is more than the limit that somebody has set.
    """
    import tempfile  # 4 ms that most images do not need

    directory = os.fspath(tmpdir) if tmpdir is not None else tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            space = _Space(file.fileno(), directory, limits)
            space.look(least)
            for chunk in chunks:
                space.claim(len(chunk))
                file.write(chunk)
            file.flush()
            return os.dup(file.fileno())
    except OSError as error:
        failed = DestinationError.from_os(error, f"decompress it into {directory}")
        if failed.is_full:
            failed.remedy = _REMEDY
        raise failed from error


class _Space:
    """The space that the file takes: a reserve of the file system is left to the others.

    As for the destination, not where the user has said how much it may be.
    """

    def __init__(self, fd: int, directory: str, limits: Limits) -> None:
        self._fd = fd
        self._directory = directory
        self._limits = limits
        self._reserve = reserve(fd) if limits.spool is None else 0
        self._claimed = 0
        self._look_at = 0

    def claim(self, size: int) -> None:
        """Make sure that there is space for some more bytes."""
        self._claimed += size
        if self._limits.spool is not None:
            self._limits.check("spool", self._claimed)
        elif self._claimed > self._look_at:
            self._look_at = self._claimed + min(self.look(size) // 2, _MOST)

    def look(self, size: int) -> int:
        """Return what is free beyond the reserve and some more bytes."""
        left = free_space(self._fd) - size - self._reserve
        if left < 0:
            held = f", where a reserve of {self._reserve} is left" if self._reserve else ""
            other = "; --max-spool, of what it may take, does without this reserve" if held else ""
            raise DestinationError(
                f"no space to decompress it in {self._directory}: of {self._claimed or size} bytes "
                f"{-left} are too many{held}",
                errno=errno.ENOSPC,
                remedy=_REMEDY + other,
            )
        return left
