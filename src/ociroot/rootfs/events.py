"""The events of each layer: the names that it adds, replaces and removes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..limits import Limits
from ..tar.stream import Data
from .nodes import Directory, Node
from .operations import NoOperations
from .walking import CurrentPath

__all__ = ["LayerEvents", "Name", "happened"]

# Approximate bytes of memory of a name, and of the table of a directory.
_WEIGHT = 200
_TABLE = 300


def happened(before: Node | None, after: Node | None) -> str:
    """Return the event of a name in a word or two; empty if it has not changed.

    Args:
        before: the node that had the name, or None.
        after: the node that has it now, or None.
    """
    if before is after:
        return ""
    if before is None:
        return "added"
    if after is None:
        return "removed"
    return f"replaced by a {after.kind}" if before.kind != after.kind else "replaced"


class Name:
    """A name in the file system that a layer has changed, or below which it has changed something.

    Attributes:
        below: the changed names below it, or None. After :meth:`pack`, a key may be a path of
            several names, of which only the last has an event or several children.
        what: the event of the name itself, or empty.
    """

    __slots__ = ("below", "what")

    def __init__(self) -> None:
        self.below: dict[bytes, Name] | None = None
        self.what = ""

    def events(
        self, current: CurrentPath, wanted: Callable[[Sequence[bytes]], bool] | None = None
    ) -> Iterator[str]:
        """Yield the event of each name below, sorted by path.

        Args:
            current: is moved to each path.
            wanted: returns whether a path, given as its names, is selected; None: all are.
        """
        todo = _sorted(self, 0)
        while todo:
            depth, path, place = todo.pop()
            for name in path.split(b"/"):
                current.move(depth, name)
                depth += 1
            if place.what and (wanted is None or wanted(current.names)):
                yield place.what
            todo += _sorted(place, depth)

    def pack(self) -> int:
        """Join names without an event and with a single child to paths.

        Every layer may change something deep in the tree.

        Returns:
            The number of names that were removed.
        """
        count = 0
        todo = [self]
        while todo:
            place = todo.pop()
            for name, below in list((place.below or {}).items()):
                path, end = [name], below
                while not end.what and end.below is not None and len(end.below) == 1:
                    ((only, end),) = end.below.items()
                    path.append(only)
                if end is not below and place.below is not None:
                    del place.below[name]
                    place.below[b"/".join(path)] = end
                    count += len(path) - 1
                todo.append(end)
        return count


def _sorted(place: Name, depth: int) -> list[tuple[int, bytes, Name]]:
    below = sorted(
        (place.below or {}).items(), key=lambda item: item[0].partition(b"/")[0], reverse=True
    )
    return [(depth, path, each) for path, each in below]


class LayerEvents(NoOperations):
    """Gathers the events of a layer while it is applied; call :meth:`take` after each layer.

    A directory may be removed and created again by a layer, as another node. So events are kept by
    name and not by directory.
    """

    def __init__(self, limits: Limits) -> None:
        """Begin without events.

        Args:
            limits: bound the memory of the events of all layers.
        """
        self._limits = limits
        self._memory = 0
        self._top = Name()
        self._places: dict[Directory, Name] = {}
        # For each name the node before the layer and the node now.
        self._touched: dict[Name, tuple[Node | None, Node | None]] = {}

    def take(self) -> Name:
        """Return the root with all events since the last call."""
        for place, (before, after) in self._touched.items():
            place.what = happened(before, after)
        taken = self._top
        self._memory -= (_WEIGHT + _TABLE) * taken.pack()
        self._top = Name()
        self._places.clear()
        # Do not keep references to removed nodes.
        self._touched.clear()
        return taken

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if directory.parent is not None:
            self._note(directory.parent, directory.name, directory)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._note(parent, name, node)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._note(parent, name, node)

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._note(parent, name, node)

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._note(parent, name, None, node)
        if isinstance(node, Directory):
            for holder, below, child in node.walk():
                self._note(holder, below, None, child)

    def _note(
        self, parent: Directory, name: bytes, after: Node | None, before: Node | None = None
    ) -> None:
        place = self._entry(self._place(parent), name)
        if place in self._touched:
            before = self._touched[place][0]
        self._touched[place] = (before, after)

    def _entry(self, place: Name, name: bytes) -> Name:
        """Return the name below another one; create it if necessary."""
        if place.below is None:
            place.below = {}
            self._memory += _TABLE
        entry = place.below.get(name)
        if entry is None:
            entry = place.below[name] = Name()
            self._memory += _WEIGHT + len(name)
            self._limits.check("memory", self._memory)
        return entry

    def _place(self, directory: Directory) -> Name:
        """Return the name of a directory, which may have been removed from the tree."""
        place = self._places.get(directory)
        if place is not None:
            return place
        way: list[Directory] = []
        at: Directory | None = directory
        while at is not None and at not in self._places:
            way.append(at)
            at = at.parent
        place = self._places[at] if at is not None else self._top
        for each in reversed(way):
            place = self._entry(place, each.name) if each.parent is not None else self._top
            self._places[each] = place
        return place
