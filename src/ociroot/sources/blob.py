"""Blobs: bytes of a source, with a size, that are read sequentially.

All other packages read blobs through the protocols here. A second read of a blob may be a second
download, so only code without an alternative does it, and documents it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import msgspec

from ..errors import ClosedSource, OcirootError, SourceError

__all__ = [
    "STEP",
    "Blob",
    "FileBlob",
    "FileRange",
    "Lifetime",
    "LocalBlob",
    "OpenFile",
    "checked_chunks",
    "head",
]

#: The default size of a chunk in bytes.
STEP = 256 << 10

_UNCLOSED = "an image or its file system was not closed; both are context managers"


class Blob(Protocol):
    """Bytes of a source.

    Two blobs of a source with the same stored bytes are equal and have the same hash; each class
    defines how it identifies them (by file or by digest).
    """

    @property
    def size(self) -> int:
        """The size in bytes, known before the blob is read."""

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        """Read the blob from its beginning to its end: ``size`` bytes in all.

        Args:
            step: the maximum size of a chunk in bytes; no chunk is empty.

        Raises:
            ClosedSource: the source has been closed.
            SourceError: the bytes cannot be read, or there are fewer than ``size``.
        """


@runtime_checkable
class LocalBlob(Blob, Protocol):
    """A blob in a local file, parts of which can be read in place."""

    @property
    def offset(self) -> int:
        """The offset of the blob in the file, in bytes."""

    def opened(self) -> AbstractContextManager[int]:
        """Provide a descriptor of the file, which is valid inside the ``with`` block.

        Raises:
            ClosedSource: the source has been closed.
            SourceError: the file cannot be opened.
        """

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly some bytes of it.

        Args:
            offset: where they begin in the blob.
            size: how many they are; they do not end behind it.

        Raises:
            ClosedSource: the source has been closed.
            SourceError: they cannot be read, or are not there.
        """


def checked_chunks(blob: Blob, step: int = STEP) -> Iterator[bytes]:
    """Yield the chunks of a blob of any class, also of one that raises errors of the system.

    Args:
        blob: what is read.
        step: the maximum size of a chunk in bytes.

    Raises:
        SourceError: the bytes cannot be read.
    """
    try:
        yield from blob.chunks(step)
    except OSError as error:
        if isinstance(error, OcirootError):
            raise
        raise SourceError(f"cannot read: {error.strerror or error}") from error


def head(blob: Blob, size: int) -> bytes:
    """Return the first ``size`` bytes of a blob, or all if there are fewer."""
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
    """Tracks whether a source is still open."""

    def __init__(self) -> None:
        self._is_over = False

    def check(self) -> None:
        """Check that the source is open.

        Raises:
            ClosedSource: the source has been closed.
        """
        if self._is_over:
            raise ClosedSource("the source is closed")

    def end(self) -> None:
        """Close the source."""
        self._is_over = True


class _Handle:
    """A descriptor that is closed when nothing refers to this object any more."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    # The default is bound here, because modules are cleared while an interpreter ends.
    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        _close(self.fd)


class OpenFile(Lifetime):
    """A file that is open as long as its source, or as long as anything refers to it.

    Another thread may close it at any time. Who reads keeps the handle meanwhile, and the last
    reference to that closes the descriptor: the number belongs to this file until then. References
    need no lock, and are right after an exception from a signal handler, too.
    """

    def __init__(self, fd: int) -> None:
        """Take over an open descriptor."""
        super().__init__()
        self._handle: _Handle | None = _Handle(fd)

    def __del__(self) -> None:
        self.abandon()

    # The default is bound here, because modules are cleared while an interpreter ends.
    def abandon(self, _warn: Callable[..., None] = warnings.warn) -> None:
        """Close the file, with a warning if it is still open, as Python's own files do."""
        if not self._is_over:
            self.end()
            _warn(_UNCLOSED, ResourceWarning, source=self)

    def handle(self) -> _Handle:
        """Return the handle, to be kept as long as its descriptor is used, and no longer.

        Raises:
            ClosedSource: the source has been closed.
        """
        handle = self._handle
        if handle is None:
            raise ClosedSource("the source is closed")
        return handle

    def fileno(self) -> int:
        """Return the descriptor, for who knows that the file is not closed meanwhile.

        Raises:
            ClosedSource: the source has been closed.
        """
        return self.handle().fd

    def end(self) -> None:
        """Close the file, as soon as nobody reads it."""
        super().end()
        self._handle = None


class FileRange(msgspec.Struct, frozen=True):
    """A range of an open file: a member of an archive.

    Attributes:
        file: the file.
        offset: the offset of the range in bytes.
        size: its size in bytes.
    """

    file: OpenFile
    offset: int
    size: int

    @contextmanager
    def opened(self) -> Iterator[int]:
        """See :class:`LocalBlob`."""
        handle = self.file.handle()
        try:
            yield handle.fd
        finally:
            del handle  # which the traceback of an error would keep

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        """See :class:`Blob`."""
        at = 0
        while at < self.size:
            data = self._next(at, step)
            at += len(data)
            yield data

    def _next(self, at: int, step: int) -> bytes:
        handle = self.file.handle()
        try:
            return _read(handle.fd, self.offset + at, self.size - at, step)
        finally:
            del handle

    def read_at(self, offset: int, size: int) -> bytes:
        """See :class:`LocalBlob`."""
        handle = self.file.handle()
        try:
            return _read_exactly(handle.fd, self.offset + offset, size)
        finally:
            del handle


class FileBlob(msgspec.Struct, frozen=True):
    """A whole file that is opened only while it is read.

    A layout may have more blobs than a process may have open files.

    Attributes:
        path: its path, without symbolic links.
        size: its size in bytes.
        lifetime: the lifetime of its source.
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
        """See :class:`Blob`. Of a file that has grown, only ``size`` bytes are read."""
        at = 0
        with self.opened() as fd:
            while at < self.size:
                data = _read(fd, at, self.size - at, step)
                at += len(data)
                yield data
                self.lifetime.check()

    def read_at(self, offset: int, size: int) -> bytes:
        """See :class:`LocalBlob`."""
        with self.opened() as fd:
            return _read_exactly(fd, offset, size)


def _read(fd: int, offset: int, missing: int, step: int) -> bytes:
    """Read the next bytes of a blob, of which ``missing`` remain."""
    try:
        data = os.pread(fd, min(step, missing), offset)
    except OSError as error:
        raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error
    if not data:
        raise SourceError(f"the file ends inside a blob, {missing} bytes early")
    return data


def _read_exactly(fd: int, offset: int, size: int) -> bytes:
    data = _read(fd, offset, size, size) if size else b""
    while len(data) < size:
        data += _read(fd, offset + len(data), size - len(data), size)
    return data
