"""Where the bytes of an image go: sizes below directories and of layers, and what is hidden."""

from __future__ import annotations

import functools
import heapq
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from ..limits import Limits
from ..tar.names import as_text
from .lookup import Place
from .nodes import Directory, Node, gone_with
from .operations import NoOperations
from .walking import CurrentPath

__all__ = ["DirectoryUsage", "FileUsage", "LayerUsage", "Usage", "Waste", "kept_by_layer"]


class DirectoryUsage(msgspec.Struct, frozen=True):
    """What a directory takes.

    Attributes:
        path: its path, from the root.
        size: bytes of the files in it and below it; a file with several names counts once.
        depth: how many directories it is in.
    """

    path: str
    size: int
    depth: int


class FileUsage(msgspec.Struct, frozen=True):
    """What a file takes.

    Attributes:
        path: its path, from the root; one of them, if it has several names.
        size: its bytes.
        layer: the number of the layer that brought it, from 1.
    """

    path: str
    size: int
    layer: int


class LayerUsage(msgspec.Struct, frozen=True):
    """What a layer takes.

    Attributes:
        layer: its number, from 1 and in the order in which the layers are applied.
        digest: the digest of its blob; in a docker-archive, which has none, its diff_id.
        size: bytes of its files that are in the file system.
        waste: bytes of its files that later layers hide, remove or replace.
        created_by: what made it, as the image's history says; empty: it does not say.
    """

    layer: int
    digest: str
    size: int
    waste: int
    created_by: str


class Usage:
    """Where the bytes of an image go.

    Attributes:
        size: bytes of the files of the merged file system.
        waste: bytes of files that layers bring and later ones hide, remove or replace.
        layers: what each layer takes.
    """

    def __init__(self, root: Directory, layers: tuple[LayerUsage, ...], limits: Limits) -> None:
        """Count; an image's ``usage`` gives one.

        Args:
            root: the root of the merged file system.
            layers: what each layer takes.
            limits: on the bytes of the paths that are yielded.
        """
        self._root = root
        self._limits = limits
        self._sizes = _sizes(root)
        self.size = self._sizes[root]
        self.waste = sum(each.waste for each in layers)
        self.layers = layers

    def __repr__(self) -> str:
        return f"<Usage size={self.size} waste={self.waste} layers={len(self.layers)}>"

    def directories(
        self, depth: int | None = None, *, show: Callable[[bytes], str] = as_text
    ) -> Iterator[DirectoryUsage]:
        """Yield what the directories take, each before those in it, the largest first.

        Args:
            depth: the levels of directories; 0: the root alone; None: all.
            show: turns a name of a path into text.

        Raises:
            LimitExceeded: the paths have more bytes than they may.
        """
        current = CurrentPath(show, self._limits)
        sizes = self._sizes
        todo = [self._root]
        while todo:
            directory = todo.pop()
            if directory.depth:
                current.move(directory.depth - 1, directory.name)
            yield DirectoryUsage(current.text(), sizes[directory], directory.depth)
            if depth is None or directory.depth < depth:
                below = [each for each in directory.entries.values() if isinstance(each, Directory)]
                todo += sorted(below, key=lambda each: (-sizes[each], each.name))[::-1]

    def largest(self, count: int, *, show: Callable[[bytes], str] = as_text) -> Iterator[FileUsage]:
        """Yield the largest files, those of one size by path.

        Args:
            count: how many.
            show: turns a name of a path into text.

        Raises:
            LimitExceeded: the paths have more bytes than they may.
        """
        current = CurrentPath(show, self._limits)
        files = (place for place in _once(self._root) if place.node.kind == "file")
        found = heapq.nlargest(count, files, key=lambda place: place.node.size)
        # A path is long, and rarely needed to tell two files apart.
        for place in sorted(found, key=functools.cmp_to_key(_order)):
            current.start(place.path)
            yield FileUsage(current.text(), place.node.size, place.node.layer)


def _order(one: Place, other: Place) -> int:
    if one.node.size != other.node.size:
        return other.node.size - one.node.size
    return -1 if one.path < other.path else 1


def _once(root: Directory) -> Iterator[Place]:
    """Yield all that is below a directory, as ``walk`` does, but of hard links only the first."""
    seen: set[Node] = set()
    for parent, name, node in root.walk():
        if node.links > 1 and node.kind != "dir":
            if node in seen:
                continue
            seen.add(node)
        yield Place(parent, name, node)


def _sizes(root: Directory) -> dict[Directory, int]:
    """Return the bytes of the files below each directory; a hard-linked file counts once."""
    totals = {root: 0}
    order = [root]
    for parent, _, node in _once(root):
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
        self.by_layer: Counter[int] = Counter()

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        for each in gone_with(node):
            if each.kind == "file":
                self.by_layer[each.layer] += each.size


def kept_by_layer(root: Directory) -> Counter[int]:
    """Return the bytes of the files of a tree by the number of the layer that brought them."""
    kept: Counter[int] = Counter()
    for place in _once(root):
        if place.node.kind == "file":
            kept[place.node.layer] += place.node.size
    return kept
