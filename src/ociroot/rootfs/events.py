"""What each layer does to the file system: the names that it adds, replaces and removes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..limits import DEFAULTS, Limits
from ..tar.stream import Data
from .nodes import Directory, Node
from .operations import NoOperations
from .walking import CurrentPath

__all__ = ["LayerEvents", "Name", "happened"]

# Bytes of memory that a name takes, roughly, and what the first one in a directory takes beside.
_WEIGHT = 200
_TABLE = 300


def happened(before: Node | None, after: Node | None) -> str:
    """Return what has happened to a name, in a word or two; nothing when nothing has.

    Args:
        before: what had the name.
        after: what has it now.
    """
    if before is after:
        return ""
    if before is None:
        return "added"
    if after is None:
        return "removed"
    return f"replaced by a {after.kind}" if before.kind != after.kind else "replaced"


class Name:
    """A name in the file system that a layer has touched, or below which it has.

    Attributes:
        below: the names in it, of that kind; None: there are none. Once it has been packed, paths
            to what is further below, where there is nothing to tell of on the way.
        what: what has happened to the name itself; empty: nothing.
    """

    __slots__ = ("below", "what")

    def __init__(self) -> None:
        self.below: dict[bytes, Name] | None = None
        self.what = ""

    def events(
        self, current: CurrentPath, wanted: Callable[[Sequence[bytes]], bool] | None = None
    ) -> Iterator[str]:
        """Yield what has happened to each name below, sorted by path.

        Args:
            current: is moved to each of them.
            wanted: says of the names of a path whether it is wanted; None: all are.
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
        """Take out of what is below all names on the way of which there is nothing to tell.

        Each layer may do something far down in directories in each other.

        Returns:
            How many there were.
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
    """Gathers what the layers do while they are applied; ask :meth:`take` after each of them.

    A directory may go and come again while a layer is applied, as another one. So what is below is
    held by names, and not by the directories that it is in.
    """

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        """Begin.

        Args:
            limits: on the memory that is taken by what is gathered of all layers.
        """
        self._limits = limits
        self._memory = 0
        self._top = Name()
        self._places: dict[Directory, Name] = {}
        # What had each of the names before the layer, and what has it now.
        self._touched: dict[Name, tuple[Node | None, Node | None]] = {}

    def take(self) -> Name:
        """Return the root, with all that has happened since the last time."""
        for place, (before, after) in self._touched.items():
            place.what = happened(before, after)
        taken = self._top
        self._memory -= (_WEIGHT + _TABLE) * taken.pack()
        self._top = Name()
        self._places.clear()
        # No node that is gone is held any longer.
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
        """Return a name in another."""
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
        """Return the name of a directory, which may be out of the tree already."""
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
