"""Writing to a file: bytes, and blobs that the kernel copies where it can."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...compression import CHUNK
from ...errors import DestinationError
from ...sources.blob import Blob, LocalBlob
from ...space import SpaceBudget

__all__ = ["REMEDY", "FileWriter", "writing"]

#: What a user can do when there is no space.
REMEDY = "--max-size, of what the image may take, does without this check"
# Bytes that the kernel copies in one call, so that a signal is heeded.
_AT_ONCE = 64 << 20
# What copy_file_range(2) answers where it cannot: other file systems, old kernels, seccomp.
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


class FileWriter:
    """Writes to an open file, at a place that moves on.

    Attributes:
        fd: the file's descriptor.
        at: the offset of the next byte.
    """

    def __init__(self, fd: int, budget: SpaceBudget, at: int = 0) -> None:
        self.fd = fd
        self.at = at
        self._budget = budget

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes, all of them.

        Raises:
            DestinationError: they cannot be written.
        """
        view = memoryview(data)
        self._budget.claim(len(view))
        with writing():
            while view:
                written = os.pwrite(self.fd, view, self.at)
                self.at += written
                view = view[written:]

    def copy(self, blob: Blob) -> None:
        """Write the bytes of a blob.

        Raises:
            DestinationError: they cannot be written.
            SourceError: they cannot be read.
        """
        done = self._copy_by_kernel(blob) if isinstance(blob, LocalBlob) else 0
        skipped = 0
        if done == blob.size:
            return
        for chunk in blob.chunks(CHUNK):
            rest = chunk[max(0, done - skipped) :]
            skipped += len(chunk)
            if rest:
                self.write(rest)

    def _copy_by_kernel(self, blob: LocalBlob) -> int:
        """Copy as much of a blob as the kernel can; return how much."""
        done = 0
        with blob.opened() as source:
            while done < blob.size:
                size = min(_AT_ONCE, blob.size - done)
                self._budget.claim(size)
                try:
                    copied = os.copy_file_range(source, self.fd, size, blob.offset + done, self.at)
                except OSError as error:
                    if error.errno in _CANNOT or error.errno == errno.EIO:
                        return done
                    raise DestinationError.from_os(error, "write it") from error
                if not copied:
                    return done
                done += copied
                self.at += copied
        return done


@contextmanager
def writing() -> Iterator[None]:
    """Turn the errors of system calls that write into errors of the destination."""
    try:
        yield
    except OSError as error:
        raise DestinationError.from_os(error, "write it") from error
