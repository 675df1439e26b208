"""A finished tree as one tar archive, of which every program for archives makes the same tree.

Entries come depth first, with the names of a directory sorted as bytes, and the root first as
``./``: GNU tar sets a directory's time when the first entry outside of it comes, so in any other
order the time would be that of the extraction. Nothing of the archive depends on the machine, the
user or the time, nor on how the layers are compressed or what else they held.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import OcirootError
from ...rootfs.contents import iter_chunks
from ...rootfs.nodes import Directory, Node
from ...tar.acl import ACCESS, DEFAULT
from ...tar.stream import BLOCK, Data
from ...tar.writer import HeaderWriter, end_of_archive
from ..policy import duplicate
from .entries import EntryPaths, GatheredOutput
from .options import SinkOptions, Write

__all__ = ["TarSink"]

# Pieces from this size on are written as they are.
_LARGE = 256 << 10
_ROOT = b"./"


class TarSink:
    """Writes a tree as a tar archive; see :class:`~ociroot.outputs.sink.Sink`.

    Attributes:
        in_tree_order: see :class:`~ociroot.outputs.sink.Sink`.
    """

    def __init__(self, write: Write, options: SinkOptions) -> None:
        """Begin an archive.

        Args:
            write: called with the next bytes.
            options: what the output is like. Sparse files are written as such to a file, and
                expanded in a pipe, whose readers mostly do not know them (mkfs.erofs).
        """
        self._output = GatheredOutput(write, _LARGE)
        self._put = self._output.put
        self._paths = EntryPaths(_ROOT, options)
        self._options = options
        self._headers = HeaderWriter(sparse=options.to_file)
        self.in_tree_order = options.in_tree_order

    @property
    def size(self) -> int:
        """Bytes that have been written."""
        return self._output.size

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        parent = directory.parent
        path = _ROOT if parent is None else self._paths.of(parent, directory.name) + b"/"
        self._put(self._headers.header(path, self._described(directory)))

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        path = self._paths.of(parent, name)
        try:
            self._put(self._headers.header(path, self._described(node)))
            size = self._headers.stored_size(node)
            for piece in self._pieces(node, data, size):
                self._put(piece)
            self._put(bytes(-size % BLOCK))
        except OcirootError as error:
            raise error.locate(member=path[len(_ROOT) :]) from error.__cause__

    def _pieces(self, node: Node, data: Data, size: int) -> Iterable[memoryview]:
        if node.segments is not None and not self._options.to_file:
            self._paths.count_holes(node)
            return iter_chunks(node, data)
        piece = data.try_read(size)
        return data.iter_chunks(size) if piece is None else (piece,)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._put(self._headers.header(self._paths.of(parent, name), self._described(node)))

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        target = _ROOT + at[0].path_of(at[1])
        self._paths.count(target)
        self._put(self._headers.header(self._paths.of(parent, name), self._described(node), target))

    def finish(self, root: Directory) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._put(end_of_archive(self._output.position))
        self._output.flush()

    def _described(self, node: Node) -> Node:
        """Return a node with the attributes that are written."""
        policy, newest = self._options.policy, self._options.newest
        if policy.changes_nodes:
            node = policy.final(node)
        xattrs = node.xattrs
        too_new = newest is not None and node.mtime_ns > newest
        if xattrs is None and not too_new:
            return node
        kept = {name: value for name, value in (xattrs or {}).items() if self._keeps(name, node)}
        made = duplicate(node)
        made.xattrs = kept or None
        if newest is not None:
            made.mtime_ns = min(node.mtime_ns, newest)
        return made

    def _keeps(self, name: bytes, node: Node) -> bool:
        """Say whether an extended attribute is written: one that Linux has on such a file."""
        if not self._options.policy.keeps_xattr(name):
            return False
        if name.startswith(b"user.") and node.kind not in ("file", "dir"):
            self._options.notices.add("xattrs-user", name)
            return False
        if name == ACCESS and node.kind == "symlink":
            self._options.notices.add("xattrs-unsupported", name)
            return False
        if name == DEFAULT and node.kind != "dir":
            self._options.notices.add("xattrs-unsupported", name)
            return False
        return True
