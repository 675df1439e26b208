"""The contents of files of a merged tree: read from the layers that brought them.

Each layer is read once, in the order of the archive: a compressed one to its end, where its digests
are; of a plain layer only the files themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from ..compression import CHUNK
from ..errors import DestinationError, OcirootError
from ..images.layers import LayerBlob
from ..layers.diagnosis import diagnose
from ..layers.pipeline import Pipeline
from ..layers.tuning import tuned
from ..limits import Limits
from ..sources.blob import LocalBlob
from ..space import SpaceBudget
from ..tar.stream import ChunkStream, Data, FileStream, Stream
from .nodes import Directory, Node, weight
from .operations import NoOperations

__all__ = ["ContentCache", "iter_chunks", "streams"]

# Bytes of kept contents that do not go to a temporary file.
_IN_MEMORY = 1 << 20
# Bytes that are kept of files of which only the name was asked for, with what is in memory.
_KEPT_UNASKED = 256 << 20
# Names that links may add to those asked for.
_NAMES = 1000

_ROOM = "--tmpdir names another place"

_HOLE = memoryview(bytes(64 << 10))


def streams(
    layers: Sequence[LayerBlob],
    in_place: Container[int],
    nodes: Iterable[Node],
    limits: Limits,
) -> Iterator[tuple[Node, Stream]]:
    """Go to the contents of files.

    Args:
        layers: the layers in the order in which they were applied.
        in_place: the numbers, from 1, of those that are not compressed and are not to be verified.
        nodes: regular files of the tree that they made; one that is given twice comes once.
        limits: what the layers may ask for.

    Yields:
        Each of the files, in the order of the layers and in them of the archive, with a stream at
        its data: its ``stored_size`` bytes can be read from there.

    Raises:
        VerificationError: a layer is not what it should be, now that it was read again.
        OcirootError: a layer cannot be read.
    """
    wanted: dict[int, set[Node]] = {}
    for node in nodes:
        wanted.setdefault(node.layer, set()).add(node)
    for number in sorted(wanted):
        layer = layers[number - 1]
        files = sorted(wanted[number], key=lambda node: node.offset)
        blob = layer.blob
        if number in in_place and isinstance(blob, LocalBlob):
            yield from _in_place(layer, blob, files)
        else:
            yield from _decompressed(layer, files, limits)


def _in_place(
    layer: LayerBlob, blob: LocalBlob, files: list[Node]
) -> Iterator[tuple[Node, Stream]]:
    """Go to files of a plain layer, of which nothing else is read."""
    try:
        with blob.opened() as fd:
            yield from _at(FileStream(fd, blob.size, blob.offset), files)
    except OcirootError as error:
        raise diagnose(layer, error) from error


def _decompressed(
    layer: LayerBlob, files: list[Node], limits: Limits
) -> Iterator[tuple[Node, Stream]]:
    """Go to files of a layer that is read whole, and verify it."""
    with tuned(), Pipeline([layer], limits) as pipeline:
        try:
            stream = ChunkStream(pipeline.chunks())
            yield from _at(stream, files)
            stream.drain()
            pipeline.finish().verify()
        except OcirootError as error:
            raise diagnose(layer, error, pipeline) from error


def _at(stream: Stream, files: list[Node]) -> Iterator[tuple[Node, Stream]]:
    for node in files:
        if node.kind != "file" or stream.position > node.offset:
            raise ValueError("no regular file, or more was read than the file before it stores")
        stream.skip(node.offset - stream.position)
        yield node, stream


def iter_chunks(node: Node, stream: Data) -> Iterator[memoryview]:
    """Yield a file's content from a stream at its data, the holes of a sparse one as zeros."""
    at = 0
    for offset, length in node.segments if node.segments is not None else [(0, node.size)]:
        yield from _zeros(offset - at)
        yield from stream.iter_chunks(length)
        at = offset + length
    yield from _zeros(node.size - at)


def _zeros(length: int) -> Iterator[memoryview]:
    while length:
        piece = _HOLE[:length]
        length -= len(piece)
        yield piece


class ContentCache(NoOperations):
    """Keeps the contents of files of some names while the layers flow by.

    Which file a path means is known only when all layers have been applied. But it nearly always
    has the name that was asked for, so that its layer need not be read a second time. What an image
    can have us keep without being asked for is bounded; of a sparse file the holes are not kept.
    """

    def __init__(self, names: Iterable[bytes], tmpdir: str | None = None) -> None:
        """Begin with nothing.

        Args:
            names: the last components of the paths that are wanted.
            tmpdir: where more than a little is kept; None: the system's place.
        """
        self._names = set(names)
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=tmpdir)  # noqa: SIM115
        self._budget: SpaceBudget | None = None
        self._end = 0
        self._unasked = 0
        self._places: dict[Node, int] = {}

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if name not in self._names:
            return
        # The node is kept, too, also when the tree has it no more.
        takes = node.stored_size + weight(name, node)
        if self._unasked + takes <= _KEPT_UNASKED and self._has_room(node):
            self._unasked += takes
            self.keep(node, data)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if node.kind == "symlink" and name in self._names and len(self._names) < _NAMES:
            self._names.add(node.target.rpartition(b"/")[2])

    def keep(self, node: Node, data: Data) -> None:
        """Keep a file's content, from a stream at its data.

        Raises:
            DestinationError: there is no space for it.
        """
        if self._goes_to_disk(node):
            size = node.stored_size
            self._disk().require(size, f"no space to keep a file of {size} bytes")
        self._file.seek(self._end)
        try:
            for piece in data.iter_chunks(node.stored_size):
                self._file.write(piece)
        except OSError as error:
            failed = DestinationError.from_os(error, "keep a file")
            failed.remedy = _ROOM
            raise failed from error
        self._places[node] = self._end
        self._end = self._file.tell()

    def _goes_to_disk(self, node: Node) -> bool:
        return self._end + node.stored_size > _IN_MEMORY

    def _disk(self) -> SpaceBudget:
        if self._budget is None:
            # To have a descriptor it becomes a file.
            self._budget = SpaceBudget(self._file.fileno(), remedy=_ROOM)
        return self._budget

    def _has_room(self, node: Node) -> bool:
        return not self._goes_to_disk(node) or self._disk().left(node.stored_size) >= 0

    def __contains__(self, node: Node) -> bool:
        return node in self._places

    def read(self, node: Node) -> Iterator[memoryview]:
        """Yield a kept content, the holes of a sparse file as zeros."""
        return iter_chunks(node, _Kept(self._file, self._places[node]))


class _Kept:
    """What has been kept, see :class:`~ociroot.tar.stream.Data`."""

    def __init__(self, file: Any, position: int) -> None:
        self._file = file
        self._position = position

    def try_read(self, size: int) -> memoryview | None:
        return None

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        while size:
            self._file.seek(self._position)
            data = self._file.read(min(size, CHUNK))
            self._position += len(data)
            size -= len(data)
            yield memoryview(data)
