"""The byte streams that a tar archive is read from: chunks from a decompressor, or a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from ..errors import MalformedImage, SourceError

__all__ = ["BLOCK", "ChunkStream", "Data", "FileStream", "Stream", "read"]

#: Bytes in a tar block.
BLOCK = 512

_READ = 256 << 10


class Data(Protocol):
    """Bytes that are read sequentially."""

    def try_read(self, size: int) -> memoryview | None:
        """Read exactly ``size`` bytes if they are contiguous in memory; else return None."""

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """Read exactly ``size`` bytes, in chunks that are valid until the next read."""


class Stream(Data, Protocol):
    """A sequence of bytes with a position that only moves forward."""

    @property
    def position(self) -> int:
        """The offset of the next byte that is read."""

    def block(self) -> tuple[bytes, int] | None:
        """Read a block; return a buffer and the block's offset in it, or None at the end."""

    def skip(self, size: int) -> None:
        """Skip ``size`` bytes; raise an error if the stream is shorter."""

    def skip_padding(self, size: int) -> None:
        """Skip the padding of a block; an archive may end before it (umoci's do)."""

    def advance(self, end: int, padding: int) -> None:
        """Skip to the position ``end``, which must exist, and the padding after it."""


def _truncated(missing: int) -> MalformedImage:
    return MalformedImage(f"the archive is truncated: {missing} bytes are missing")


def read(stream: Stream, size: int) -> bytes:
    """Read exactly ``size`` bytes into one object; the caller has bounded the size."""
    return b"".join(stream.iter_chunks(size))


class ChunkStream:
    """A stream over chunks of bytes. Only blocks that span two chunks are copied."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._view = memoryview(b"")
        self._at = 0
        self._before = 0  # bytes in the chunks before this one

    @property
    def position(self) -> int:
        """See :class:`Stream`."""
        return self._before + self._at

    def _next(self) -> bool:
        self._before += len(self._chunk)
        self._at = 0
        self._chunk = next(self._chunks, b"")
        self._view = memoryview(self._chunk)
        return bool(self._chunk)

    def block(self) -> tuple[bytes, int] | None:
        """See :class:`Stream`."""
        at = self._at
        if at + BLOCK <= len(self._chunk):
            self._at = at + BLOCK
            return self._chunk, at
        parts: list[memoryview] = []
        missing = BLOCK
        while missing:
            if self._at == len(self._chunk) and not self._next():
                if missing == BLOCK:
                    return None
                raise _truncated(missing)
            part = self._view[self._at : self._at + missing]
            self._at += len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts), 0

    def try_read(self, size: int) -> memoryview | None:
        """See :class:`Stream`."""
        at = self._at
        if at + size > len(self._chunk):
            return None
        self._at = at + size
        return self._view[at : at + size]

    def advance(self, end: int, padding: int) -> None:
        """See :class:`Stream`."""
        at = end + padding - self._before
        if at <= len(self._chunk):
            self._at = at
        else:
            self.skip(end - self.position)
            self.skip_padding(padding)

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """See :class:`Stream`."""
        while size:
            if self._at == len(self._chunk) and not self._next():
                raise _truncated(size)
            piece = self._view[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """See :class:`Stream`."""
        for _ in self.iter_chunks(size):
            pass

    def skip_padding(self, size: int) -> None:
        """See :class:`Stream`."""
        while size and (self._at < len(self._chunk) or self._next()):
            passed = min(size, len(self._chunk) - self._at)
            self._at += passed
            size -= passed

    def rest(self) -> Iterator[memoryview]:
        """Read to the end, in chunks that are not changed any more."""
        while self._at < len(self._chunk) or self._next():
            piece = self._view[self._at :]
            self._at = len(self._chunk)
            yield piece

    def drain(self) -> None:
        """Read to the end: the digests include the bytes after the end marker."""
        while self._next():
            pass


class FileStream:
    """A stream over a file or a range of it. Skipped bytes are not read."""

    def __init__(self, fd: int, size: int, start: int = 0) -> None:
        self._fd = fd
        self._size = size
        self._start = start
        self.position = 0

    def _read(self, size: int) -> bytes:
        try:
            size = min(size, self._size - self.position)
            data = os.pread(self._fd, size, self._start + self.position)
        except OSError as error:
            raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error
        self.position += len(data)
        return data

    def block(self) -> tuple[bytes, int] | None:
        """See :class:`Stream`."""
        data = self._read(BLOCK)
        if 0 < len(data) < BLOCK:
            raise _truncated(BLOCK - len(data))
        return (data, 0) if data else None

    def try_read(self, size: int) -> memoryview | None:
        """See :class:`Stream`."""
        return None

    def advance(self, end: int, padding: int) -> None:
        """See :class:`Stream`."""
        self.skip(end - self.position)
        self.skip_padding(padding)

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """See :class:`Stream`."""
        while size:
            data = self._read(min(size, _READ))
            if not data:
                raise _truncated(size)
            size -= len(data)
            yield memoryview(data)

    def skip(self, size: int) -> None:
        """See :class:`Stream`."""
        if self.position + size > self._size:
            raise _truncated(self.position + size - self._size)
        self.position += size

    def skip_padding(self, size: int) -> None:
        """See :class:`Stream`."""
        self.position = min(self.position + size, self._size)
