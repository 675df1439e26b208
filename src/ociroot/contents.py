"""The contents of files of a merged tree: read from the layers that brought them.

Each layer is read once, up to the last file that is wanted of it, in the order of the archive; of a
plain layer only the files themselves.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from .codec import CHUNK
from .errors import OcirootError
from .image import LayerBlob
from .layer.stream import Pipeline, blame, compression_of, tuned
from .nodes import Directory, Node, NoOperations
from .tar.stream import ChunkStream, FileStream, Stream

__all__ = ["Keeping", "pieces", "streams"]

# Bytes of kept contents that do not go to a temporary file.
_IN_MEMORY = 8 << 20

_HOLE = memoryview(bytes(64 << 10))


def streams(layers: Sequence[LayerBlob], nodes: Iterable[Node]) -> Iterator[tuple[Node, Stream]]:
    """Go to the contents of files.

    Args:
        layers: the layers in the order in which they were applied.
        nodes: regular files of the tree that they made.

    Yields:
        Each of the files, in the order of the layers and in them of the archive, with a stream at
        its data: its ``stored`` bytes can be read from there.

    Raises:
        OcirootError: a layer cannot be read.
    """
    wanted: dict[int, list[Node]] = {}
    for node in nodes:
        wanted.setdefault(node.layer, []).append(node)
    for number in sorted(wanted):
        layer = layers[number]
        files = sorted(wanted[number], key=lambda node: node.offset)
        try:
            if compression_of(layer) == "none":
                yield from _at(FileStream(layer.blob.fd, layer.blob.size, layer.blob.offset), files)
            else:
                with tuned(), Pipeline([layer]) as pipeline:
                    yield from _at(ChunkStream(pipeline.chunks()), files)
        except OcirootError as error:
            raise blame(layer, error) from error


def _at(stream: Stream, files: list[Node]) -> Iterator[tuple[Node, Stream]]:
    for node in files:
        stream.skip(node.offset - stream.position)
        yield node, stream


def pieces(node: Node, stream: Stream) -> Iterator[memoryview]:
    """Yield a file's content from a stream at its data, the holes of a sparse one as zeros."""
    at = 0
    for offset, length in node.segments if node.segments is not None else [(0, node.size)]:
        yield from _zeros(offset - at)
        yield from stream.pieces(length)
        at = offset + length
    yield from _zeros(node.size - at)


def _zeros(length: int) -> Iterator[memoryview]:
    while length:
        piece = _HOLE[:length]
        length -= len(piece)
        yield piece


class Keeping(NoOperations):
    """Keeps the contents of files of some names while the layers flow by.

    Which file a path means is known only when all layers have been applied. But it nearly always
    has the name that was asked for, so that its layer need not be read a second time.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        """Begin with nothing.

        Args:
            names: the last components of the paths that are wanted.
        """
        self._names = set(names)
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._places: dict[Node, tuple[int, int]] = {}

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Stream) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        if name in self._names:
            self.keep(node, data)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        if node.kind == "symlink" and name in self._names:
            self._names.add(node.target.rpartition(b"/")[2])

    def keep(self, node: Node, data: Stream) -> None:
        """Keep a file's content, from a stream at its data."""
        begin = self._file.seek(0, os.SEEK_END)
        for piece in pieces(node, data):
            self._file.write(piece)
        self._places[node] = (begin, self._file.tell())

    def __contains__(self, node: Node) -> bool:
        return node in self._places

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield a kept content."""
        at, end = self._places[node]
        while at < end:
            self._file.seek(at)
            data = self._file.read(min(end - at, CHUNK))
            at += len(data)
            yield data
