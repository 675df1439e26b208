"""Outputs that only create, and how they are fed from a finished tree.

An archive, or a copy of a part of the tree, cannot take back what it has made. So it gets the tree
when it is finished, every name once. There are two orders for that, and a sink says which one it
needs:

- the order of the tree: depth first, names sorted by component, each file's content with its name.
  A stream has to be written so. The layers hold the contents in another order, so they are spooled
  on the way: a temporary file has all of them once.
- the order of the layers: names that have no content first, then the files as the layers hold them,
  then further names of what is there. Each layer is read once and nothing is spooled: for what can
  make a file anywhere at any time, such as a directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ..rootfs.contents import ContentCache
from ..rootfs.nodes import Directory, Node
from ..tar.stream import Data

__all__ = ["Files", "Sink", "depth_first", "feed"]

#: What goes to the contents of files, in the order of the layers: ``Merged.files``.
Files = Callable[[Iterable[Node]], Iterator[tuple[Node, Data]]]


class Sink(Protocol):
    """An output that gets the finished tree, every name once, a directory before what is in it.

    The root comes first. It is the only directory without a parent, and it may be there already.
    A node with several names is made by the first of them, the others are links to that one.
    """

    @property
    def in_tree_order(self) -> bool:
        """Whether everything comes depth first, names sorted by component; else by layers."""

    def make_directory(self, directory: Directory) -> None:
        """Make a directory; what can only be set when all is in it waits for :meth:`finish`."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """Make a regular file; ``stored_size`` bytes are to be read, the holes are not in them."""

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """Make a symbolic link, a device or a FIFO."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """Give what was made at ``at`` one more name."""

    def finish(self, root: Directory) -> None:
        """End: everything has been made."""


def feed(part: Directory, sink: Sink, files: Files, tmpdir: str | None = None) -> Directory:
    """Feed a directory of a finished tree to a sink, with all that is below it.

    Args:
        part: the directory, which is the root to the sink.
        sink: the output.
        files: goes to the contents of files.
        tmpdir: where contents are spooled, if they are; None: the system's place.

    Returns:
        The root that the sink got: it has no parent, as the directory itself may have.

    Raises:
        DestinationError: it cannot be written, or not be spooled.
        OcirootError: a layer cannot be read.
    """
    root = part if part.parent is None else _detached(part)
    firsts: dict[Node, tuple[Directory, bytes]] = {}
    links: list[tuple[Directory, bytes, Node]] = []
    kept = _spooled(root, files, tmpdir) if sink.in_tree_order else None
    sink.make_directory(root)
    for parent, name, node in depth_first(root):
        if isinstance(node, Directory):
            sink.make_directory(node)
        elif node in firsts:
            if kept is not None:
                sink.make_link(parent, name, node, firsts[node])
            else:
                links.append((parent, name, node))
        else:
            firsts[node] = (parent, name)
            if node.kind != "file":
                sink.make_other(parent, name, node)
            elif kept is not None:
                sink.make_file(parent, name, node, kept.data(node))
    if kept is None:
        for node, stream in files(node for node in firsts if node.kind == "file"):
            sink.make_file(*firsts[node], node, stream)
    for parent, name, node in links:
        sink.make_link(parent, name, node, firsts[node])
    sink.finish(root)
    return root


def depth_first(root: Directory) -> Iterator[tuple[Directory, bytes, Node]]:
    """Yield all that is below a directory: the parent, the name, the node; names are sorted.

    A directory comes right before what is in it.
    """
    todo = [(root, iter(sorted(root.entries)))]
    while todo:
        parent, names = todo[-1]
        for name in names:
            node = parent.entries[name]
            yield parent, name, node
            if isinstance(node, Directory):
                todo.append((node, iter(sorted(node.entries))))
                break
        else:
            todo.pop()


def _detached(part: Directory) -> Directory:
    """Return a directory as the root of a tree of its own, with the same nodes below it."""
    root = Directory(None, b"", part.layer)
    root.copy_metadata(part)
    copies = {part: root}
    for parent, name, node in part.walk():
        if isinstance(node, Directory):
            made = copies[node] = Directory(copies[parent], name, node.layer)
            made.copy_metadata(node)
            copies[parent].entries[name] = made
        else:
            copies[parent].entries[name] = node
    return root


def _spooled(root: Directory, files: Files, tmpdir: str | None) -> ContentCache:
    """Read the contents of all files once, in the order of the layers."""
    kept = ContentCache((), tmpdir)
    nodes = {node: None for _, _, node in root.walk() if node.kind == "file"}
    for node, stream in files(nodes):
        kept.keep(node, stream)
    return kept
