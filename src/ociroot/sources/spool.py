"""The file into which a compressed archive, or one that comes through a pipe, is decompressed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DestinationError
from ..limits import Limits
from ..space import SpaceBudget
from .blob import OpenFile

__all__ = ["SpoolFile", "spool"]

_REMEDY = "--tmpdir names another directory"
_NO_RESERVE = "; --max-spool, of what it may take, does without this reserve"


def spool(
    chunks: Iterator[bytes], least: int, tmpdir: str | os.PathLike[str] | None, limits: Limits
) -> OpenFile:
    """Write chunks to a file that has no name, and is gone when it is closed.

    Args:
        chunks: what is written.
        least: bytes that there will surely be.
        tmpdir: where the file lies; None: the system's place.
        limits: on its size.

    Returns:
        The open file.

    Raises:
        DestinationError: the file system would be full, or nearly so.
        LimitExceeded: it is more than the limit that somebody has set.
    """
    file = SpoolFile(tmpdir, limits)
    try:
        file.require(least)
        for chunk in chunks:
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    return file.file


class SpoolFile:
    """A file without a name that is written within the limits, and is gone when it is closed.

    Attributes:
        file: the open file.
        size: how many bytes have been written.
    """

    def __init__(self, tmpdir: str | os.PathLike[str] | None, limits: Limits) -> None:
        """Make the file.

        Args:
            tmpdir: where it lies; None: the system's place.
            limits: on its size.

        Raises:
            DestinationError: it cannot be made there.
        """
        self._limits = limits
        self.size = 0
        directory = tmpdir if tmpdir is not None else os.environ.get("TMPDIR", "/tmp")  # noqa: S108
        self._directory = os.fspath(directory)
        try:
            fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            with self._errors():
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise  # another place would not help
                # It may be another one, or one without such files.
                import tempfile  # 7 ms

                if tmpdir is None:
                    self._directory = tempfile.gettempdir()
                with tempfile.TemporaryFile(dir=self._directory) as file:
                    fd = os.dup(file.fileno())
        self.file = OpenFile(fd)
        self._budget = self._new_budget()

    def _new_budget(self) -> SpaceBudget:
        # As for the destination, not where the user has said how much it may be.
        reserved = self._limits.spool is None
        directory = self._directory  # a function that kept this object would make a cycle
        return SpaceBudget(
            self.file.fileno(),
            remedy=_REMEDY + (_NO_RESERVE if reserved else ""),
            reserved=reserved,
            so_far=lambda: f" to decompress it in {directory}",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            failed = DestinationError.from_os(error, f"decompress it into {self._directory}")
            if failed.is_full:
                failed.remedy = _REMEDY
            raise failed from error

    def require(self, size: int) -> None:
        """Refuse to begin where there is no space for some bytes.

        Raises:
            DestinationError: there is none.
        """
        directory = self._directory
        self._budget.require(size, f"no space for {size} bytes to decompress it in {directory}")

    def write(self, data: bytes) -> None:
        """Write bytes at the end.

        Raises:
            DestinationError: the file system would be full, or nearly so.
            LimitExceeded: it is more than the limit that somebody has set.
        """
        self._budget.claim(len(data))
        self._limits.check("spool", self.size + len(data))
        left, handle = memoryview(data), self.file.handle()
        with self._errors():
            while left:
                written = os.pwrite(handle.fd, left, self.size)
                self.size += written
                left = left[written:]

    def truncate(self, size: int) -> None:
        """Forget what was written behind some bytes."""
        handle = self.file.handle()
        with self._errors():
            os.ftruncate(handle.fd, size)
        self.size = size
        self._budget = self._new_budget()

    def close(self) -> None:
        """Close it, which removes it."""
        self.file.end()
