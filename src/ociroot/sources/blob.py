"""Blobs: bytes of a source, with a size, that are read from the beginning to the end.

Everything to the right of ``sources`` reads blobs through the protocols here. Reading a blob a
second time may be a second download: only what has no other way asks for it, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import msgspec

from ..errors import ClosedSource, SourceError

__all__ = ["STEP", "Blob", "FileBlob", "FileRange", "Lifetime", "LocalBlob", "OpenFile", "head"]

#: Bytes of a blob that are read at once, where nobody says how many.
STEP = 256 << 10


class Blob(Protocol):
    """Bytes of a source.

    Two blobs of a source that are the same stored bytes are equal and have the same hash; how they
    are found to be the same (the file, the digest) is theirs.
    """

    @property
    def size(self) -> int:
        """How many bytes there are, known before they are read."""

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        """Read the blob from its beginning to its end: ``size`` bytes in all.

        Args:
            step: the most bytes that a chunk has. It has at least one.

        Raises:
            ClosedSource: the source has been closed.
            SourceError: the bytes cannot be read, or there are fewer than ``size``.
        """


@runtime_checkable
class LocalBlob(Blob, Protocol):
    """A blob that lies in a local file, so that parts of it can be read in place."""

    @property
    def offset(self) -> int:
        """Where it begins in the file, in bytes."""

    def opened(self) -> AbstractContextManager[int]:
        """Give a descriptor of the file, which is valid inside the ``with`` block.

        Raises:
            ClosedSource: the source has been closed.
            SourceError: the file cannot be opened.
        """


def head(blob: Blob, size: int) -> bytes:
    """Return the first bytes of a blob: ``size`` of them, or all when there are fewer."""
    parts: list[bytes] = []
    missing = min(size, blob.size)
    if missing:
        for chunk in blob.chunks(min(missing, STEP)):
            parts.append(chunk[:missing])
            missing -= len(parts[-1])
            if not missing:
                break
    return b"".join(parts)


class Lifetime:
    """How long the files of a source can be read: until the source is closed."""

    def __init__(self) -> None:
        self._is_over = False

    def check(self) -> None:
        """Refuse to read on.

        Raises:
            ClosedSource: the source has been closed.
        """
        if self._is_over:
            raise ClosedSource("the source is closed")

    def end(self) -> None:
        """Close the source."""
        self._is_over = True


class OpenFile(Lifetime):
    """A file that is open as long as its source is."""

    def __init__(self, fd: int) -> None:
        """Take over an open descriptor."""
        super().__init__()
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            ClosedSource: the source has been closed. The kernel may have given the number to
                another file.
        """
        self.check()
        return self._fd

    def end(self) -> None:
        """Close the file, once."""
        if not self._is_over:
            super().end()
            os.close(self._fd)


class FileRange(msgspec.Struct, frozen=True):
    """A range of a file that is open: a member of an archive.

    Attributes:
        file: the file.
        offset: where the range begins, in bytes.
        size: bytes of it.
    """

    file: OpenFile
    offset: int
    size: int

    @contextmanager
    def opened(self) -> Iterator[int]:
        """See :class:`LocalBlob`."""
        # Of its own, for the source may be closed meanwhile.
        fd = os.dup(self.file.fileno())
        try:
            yield fd
        finally:
            os.close(fd)

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        """See :class:`Blob`."""
        at = 0
        while at < self.size:
            data = _read(self.file.fileno(), self.offset + at, self.size - at, step)
            at += len(data)
            yield data


class FileBlob(msgspec.Struct, frozen=True):
    """A whole file that is opened when it is read.

    A layout may have more blobs than a process may have open files.

    Attributes:
        path: its path, without symbolic links.
        size: bytes of it.
        lifetime: that of its source.
    """

    path: str
    size: int
    lifetime: Lifetime

    @property
    def offset(self) -> int:
        """See :class:`LocalBlob`."""
        return 0

    @contextmanager
    def opened(self) -> Iterator[int]:
        """See :class:`LocalBlob`."""
        self.lifetime.check()
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

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        """See :class:`Blob`. A file that has grown is read as far as its size was known."""
        at = 0
        with self.opened() as fd:
            while at < self.size:
                data = _read(fd, at, self.size - at, step)
                at += len(data)
                yield data
                self.lifetime.check()


def _read(fd: int, offset: int, missing: int, step: int) -> bytes:
    """Read the next bytes of a blob of which some are missing."""
    try:
        data = os.pread(fd, min(step, missing), offset)
    except OSError as error:
        raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error
    if not data:
        raise SourceError(f"the file ends inside a blob, {missing} bytes early")
    return data
