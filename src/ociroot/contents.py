"""The contents of files of a merged tree: read from the layers that brought them.

Each layer is read once, up to the last file that is wanted of it, in the order of the archive; of a
plain layer only the files themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .errors import OcirootError
from .image import LayerBlob
from .layer.stream import Pipeline, blame, compression_of, tuned
from .nodes import Node
from .tar.stream import ChunkStream, FileStream, Stream

__all__ = ["pieces", "streams"]

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
