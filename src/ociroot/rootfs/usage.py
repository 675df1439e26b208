"""Where the bytes of an image go: sizes below directories, and what later layers hide."""

from __future__ import annotations

from collections.abc import Iterator

from .nodes import Directory, Node, gone_with
from .operations import NoOperations

__all__ = ["Waste", "once", "sizes"]


def once(root: Directory) -> Iterator[tuple[Directory, bytes, Node]]:
    """Yield all that is below a directory, as ``walk`` does, but of hard links only the first."""
    seen: set[Node] = set()
    for parent, name, node in root.walk():
        if node.links > 1 and node.kind != "dir":
            if node in seen:
                continue
            seen.add(node)
        yield parent, name, node


def sizes(root: Directory) -> dict[Directory, int]:
    """Return the bytes of the files below each directory; a hard-linked file counts once.

    Args:
        root: the directory to begin at.
    """
    totals = {root: 0}
    order = [root]
    for parent, _, node in once(root):
        if isinstance(node, Directory):
            totals[node] = 0
            order.append(node)
        elif node.kind == "file":
            totals[parent] += node.size
    for directory in reversed(order):
        if directory is not root and directory.parent is not None:
            totals[directory.parent] += totals[directory]
    return totals


class Waste(NoOperations):
    """Counts the bytes that a layer brought and that are hidden or removed later on.

    Attributes:
        by_layer: bytes by the number of the layer that brought them, from 1.
    """

    def __init__(self) -> None:
        self.by_layer: dict[int, int] = {}

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        for each in gone_with(node):
            if each.kind == "file":
                self.by_layer[each.layer] = self.by_layer.get(each.layer, 0) + each.size
