"""A file's content as a sink reads it, from a layer whose bytes can be read at any place."""

from __future__ import annotations

from collections.abc import Iterator

from ..compression import CHUNK
from .file import LayerBytes

__all__ = ["LayerData"]

# Bytes that are read as one object.
_AT_ONCE = 256 << 10


class LayerData:
    """What is read of a layer from some place on; see :class:`~ociroot.tar.stream.Data`."""

    __slots__ = ("_at", "_layer")

    def __init__(self, layer: LayerBytes, offset: int) -> None:
        self._layer = layer
        self._at = offset

    def try_read(self, size: int) -> memoryview | None:
        """See :class:`~ociroot.tar.stream.Data`."""
        if size > _AT_ONCE:
            return None
        data = self._layer.read(self._at, size)
        self._at += size
        return memoryview(data)

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """See :class:`~ociroot.tar.stream.Data`."""
        while size:
            data = self._layer.read(self._at, min(size, CHUNK))
            self._at += len(data)
            size -= len(data)
            yield memoryview(data)
