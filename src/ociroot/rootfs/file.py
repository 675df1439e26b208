"""The content of a regular file of the tree, at any place: a raw binary file as Python has them."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from ..errors import LimitExceeded, located
from ..sources.blob import LocalBlob
from .nodes import Node

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["LayerBytes", "NodeFile"]

_ZEROS = bytes(64 << 10)
# What readall() joins for a hole.
_HOLE = bytes(1 << 20)


class LayerBytes:
    """The uncompressed bytes of a layer, to be read at any place.

    They have been verified by whoever makes this.
    """

    def __init__(
        self, blob: LocalBlob, label: str, source: str, check_open: Callable[[], None]
    ) -> None:
        """Say where they are.

        Args:
            blob: the bytes: the layer's own blob, if it is not compressed.
            label: what messages call the layer.
            source: what they call the image's source.
            check_open: raises when they may not be read any more.
        """
        self._blob = blob
        self._label = label
        self._source = source
        self._check_open = check_open

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly some bytes.

        Args:
            offset: where they begin.
            size: how many they are.

        Raises:
            ClosedSource: the source or the file system has been closed.
            SourceError: they cannot be read.
        """
        self._check_open()
        with located(source=self._source, layer=self._label):
            return self._blob.read_at(offset, size)

    def too_large(self, size: int) -> LimitExceeded:
        """Return the error for a file that does not fit into memory.

        Args:
            size: its size, as the image has it.
        """
        return LimitExceeded(
            f"a file of {size} bytes does not fit into memory",
            source=self._source,
            layer=self._label,
            remedy="open() reads it in parts",
        )


class NodeFile(io.RawIOBase):
    """A regular file of the tree, open for reading; the holes of a sparse one are zeros."""

    #: As the built-in files have it.
    mode = "rb"

    def __init__(self, node: Node, layer: LayerBytes, name: str | bytes = "") -> None:
        """Open a file.

        Args:
            node: the file.
            layer: the bytes of its layer.
            name: the path by which it was opened.
        """
        self.name = name
        self._size = node.size
        self._offset = node.offset
        self._layer = layer
        self._at = 0
        self._runs = node.segments
        # Of a sparse file that is read: where in it each run of data begins, and how many bytes
        # come before it in the layer.
        self._starts: list[int] = []
        self._before: list[int] = []

    def readable(self) -> bool:
        """See :class:`io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """See :class:`io.IOBase`."""
        return True

    def tell(self) -> int:
        """See :class:`io.IOBase`."""
        self._check_not_closed()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See :class:`io.IOBase`."""
        self._check_not_closed()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence is {whence}, not 0, 1 or 2")
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a position before the file: {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See :class:`io.RawIOBase`."""
        self._check_not_closed()
        view = memoryview(buffer).cast("B")
        size = min(len(view), max(self._size - self._at, 0))
        if self._runs is None:
            view[:size] = self._layer.read(self._offset + self._at, size) if size else b""
        else:
            self._read_sparse(view[:size])
        self._at += size
        return size

    def readall(self) -> bytes:
        """See :class:`io.RawIOBase`.

        Raises:
            LimitExceeded: it does not fit into memory. The size of a sparse file is what the image
                claims: a few bytes can be a file of a tebibyte.
        """
        self._check_not_closed()
        size = max(self._size - self._at, 0)
        # The kernel may promise more memory than there is, and kill whoever uses it.
        if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise self._layer.too_large(size)
        try:
            data = self._read_whole(size)
        except MemoryError:
            raise self._layer.too_large(size) from None
        self._at += size
        return data

    def _read_whole(self, size: int) -> bytes:
        if self._runs is None:
            return self._layer.read(self._offset + self._at, size) if size else b""
        parts: list[bytes] = []
        position = self._at
        for at, place, length in self._data(self._at, self._at + size):
            parts += _zeros(at - position)
            parts.append(self._layer.read(place, length))
            position = at + length
        parts += _zeros(self._at + size - position)
        return b"".join(parts)

    def _read_sparse(self, view: memoryview) -> None:
        begin = position = self._at
        for at, place, length in self._data(begin, begin + len(view)):
            _clear(view[position - begin : at - begin])
            view[at - begin : at - begin + length] = self._layer.read(place, length)
            position = at + length
        _clear(view[position - begin :])

    def _data(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the data of a part of a sparse file.

        Args:
            at: where the part begins.
            end: where it ends.

        Yields:
            Where in the file data begins, where in the layer, and how many bytes they are.
        """
        runs = self._runs or []
        if len(self._starts) != len(runs):
            self._starts = [start for start, _ in runs]
            self._before = list(accumulate((length for _, length in runs), initial=0))
        index = max(bisect_right(self._starts, at) - 1, 0)
        while index < len(runs) and runs[index][0] < end:
            start, length = runs[index]
            first, last = max(start, at), min(start + length, end)
            if first < last:
                yield first, self._offset + self._before[index] + first - start, last - first
            index += 1

    def _check_not_closed(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def _zeros(length: int) -> list[bytes]:
    """Return a hole in parts, which take no memory of their own."""
    return [_HOLE] * (length // len(_HOLE)) + [_HOLE[: length % len(_HOLE)]]


def _clear(view: memoryview) -> None:
    for at in range(0, len(view), len(_ZEROS)):
        part = view[at : at + len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]
