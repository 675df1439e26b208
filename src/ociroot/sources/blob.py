"""A blob: a range of bytes in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import SourceError

__all__ = ["Blob"]


class Blob(NamedTuple):
    """Where a blob lies.

    Attributes:
        fd: an open file that belongs to the source; -1: it is opened by its path when it is read,
            for a layout may have more blobs than a process may have open files.
        offset: where it begins there, in bytes.
        size: bytes of it.
        path: the file's path, when it is not open.
    """

    fd: int
    offset: int
    size: int
    path: str = ""

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Give a descriptor of the file that the blob lies in.

        Raises:
            SourceError: the file cannot be opened.
        """
        if not self.path:
            yield self.fd
            return
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(
                f"cannot open: {os.strerror(error.errno or 0)}", member=self.path
            ) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def chunks(self, step: int = 256 << 10) -> Iterator[bytes]:
        """Read the blob from its beginning to its end, at most ``step`` bytes at a time.

        Raises:
            SourceError: the file cannot be read, or ends inside the blob (it shrank).
        """
        at = 0
        with self.opened() as fd:
            while at < self.size:
                try:
                    data = os.pread(fd, min(step, self.size - at), self.offset + at)
                except OSError as error:
                    raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error
                if not data:
                    raise SourceError(f"the file ends inside a blob, {self.size - at} bytes early")
                at += len(data)
                yield data
