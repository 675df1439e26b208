"""Outputs that only create, fed from a finished tree.

An archive, or a copy of a part of the tree, cannot remove what it has written. So it gets the tree
when it is finished, every name once, in one of two orders:

- tree order: depth first, names sorted by component, each file with its content. Streams require
  it. The layers contain the files in another order, so contents must be available at any time:
  plain layers are read in place, and compressed ones from a temporary file.
- layer order: names without content first, then the files in the order of the layers, then further
  hard links. Each layer is read once and nothing is spooled. It is for outputs that can create
  files in any order, such as a directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ..rootfs.nodes import Directory, Node
from ..rootfs.operations import Creations
from ..tar.stream import Data

__all__ = ["Files", "Sink", "depth_first", "feed"]

#: Yields the contents of files in the order of the layers, as ``Merged.files`` does.
Files = Callable[[Iterable[Node]], Iterator[tuple[Node, Data]]]


class Sink(Creations, Protocol):
    """An output that gets the finished tree, every name once, a directory before its entries.

    The root comes first. It is the only directory without a parent, and it may exist already. A
    node with several names is created under the first one; the others are links to that.
    """

    @property
    def in_tree_order(self) -> bool:
        """Whether the sink requires tree order; otherwise it gets layer order."""


def feed(
    part: Directory,
    sink: Sink,
    files: Files,
    data: Callable[[Node], Data] | None = None,
) -> Directory:
    """Feed a directory of a finished tree to a sink, with everything below it.

    Args:
        part: the directory, which is the root for the sink.
        sink: the output.
        files: yields the contents of files in the order of the layers.
        data: returns the content of a file at any time; a sink in tree order requires it.

    Returns:
        The root that the sink got, which has no parent, unlike ``part``.

    Raises:
        DestinationError: the output cannot be written.
        OcirootError: a layer cannot be read.
        ValueError: the sink requires ``data``.
    """
    root = part if part.parent is None else _detached(part)
    if sink.in_tree_order:
        if data is None:
            raise ValueError("a sink in tree order requires contents at any time")
        _feed_in_tree_order(root, sink, data)
    else:
        _feed_in_layer_order(root, sink, files)
    sink.finish(root)
    return root


def _feed_in_tree_order(root: Directory, sink: Sink, data: Callable[[Node], Data]) -> None:
    firsts: dict[Node, tuple[Directory, bytes]] = {}
    sink.make_directory(root)
    for parent, name, node in depth_first(root):
        if isinstance(node, Directory):
            sink.make_directory(node)
            continue
        if node.links > 1:
            if node in firsts:
                sink.make_link(parent, name, node, firsts[node])
                continue
            firsts[node] = (parent, name)
        if node.kind == "file":
            sink.make_file(parent, name, node, data(node))
        else:
            sink.make_other(parent, name, node)


def _feed_in_layer_order(root: Directory, sink: Sink, files: Files) -> None:
    firsts: dict[Node, tuple[Directory, bytes]] = {}
    links: list[tuple[Directory, bytes, Node]] = []
    sink.make_directory(root)
    for parent, name, node in depth_first(root):
        if isinstance(node, Directory):
            sink.make_directory(node)
        elif node in firsts:
            links.append((parent, name, node))
        else:
            firsts[node] = (parent, name)
            if node.kind != "file":
                sink.make_other(parent, name, node)
    for node, stream in files(node for node in firsts if node.kind == "file"):
        sink.make_file(*firsts[node], node, stream)
    for parent, name, node in links:
        sink.make_link(parent, name, node, firsts[node])


def depth_first(root: Directory) -> Iterator[tuple[Directory, bytes, Node]]:
    """Yield everything below a directory as (parent, name, node), names sorted.

    A directory comes immediately before its entries.
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
    """Return a copy of a directory as the root of a separate tree, with the same nodes below it."""
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
