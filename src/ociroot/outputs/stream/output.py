"""Where the bytes of an archive go: a staged file, or a binary file object of the caller."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import Protocol

from ...errors import DestinationError
from ...linux import CREATE_FILE
from ...space import SpaceBudget

__all__ = ["FileOutput", "StreamOutput", "Writable"]


class Writable(Protocol):
    """A binary file object, as far as an archive needs it."""

    def write(self, data: memoryview, /) -> int | None:
        """Write bytes; return how many."""


class FileOutput:
    """A new file in a staging directory.

    Attributes:
        size: bytes that have been written.
    """

    def __init__(self, dir_fd: int, name: bytes, *, reserved: bool) -> None:
        """Make the file.

        Args:
            dir_fd: the directory.
            name: the file's name in it.
            reserved: whether a reserve of the file system is left free.

        Raises:
            OSError: it cannot be made.
        """
        self._fd = os.open(name, CREATE_FILE, 0o666, dir_fd=dir_fd)
        self._budget = SpaceBudget(
            self._fd,
            remedy="--max-size, of what the image may take, does without this check",
            reserved=reserved,
        )
        self.size = 0

    def require(self, size: int) -> None:
        """Refuse an archive for which there is no space.

        Args:
            size: bytes that will be written.

        Raises:
            DestinationError: there is no space for them.
        """
        self._budget.require(size, f"no space for {size} bytes")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next bytes, all of them.

        Raises:
            DestinationError: they cannot be written.
        """
        view = memoryview(data)
        self._budget.claim(len(view))
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise DestinationError.from_os(error, "write it") from error
        self.size += len(data)

    def abandon(self) -> None:
        """Close the file, if it is open still, whatever comes of it."""
        with suppress(DestinationError):
            self.close()

    def close(self) -> None:
        """Close the file.

        Raises:
            DestinationError: what was written could not be stored.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:
                raise DestinationError.from_os(error, "write it") from error


class StreamOutput:
    """A file object of the caller, whose errors are the caller's.

    Attributes:
        size: bytes that have been written.
    """

    def __init__(self, file: Writable) -> None:
        """Write to a file object, which stays the caller's."""
        self._file = file
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next bytes, all of them."""
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            if written is None:
                if isinstance(self._file, io.RawIOBase):
                    raise BlockingIOError("the file object does not block")
                written = len(view)
            view = view[written:]
        self.size += len(data)
