"""What each layer does to the file system: the names that it adds, replaces and removes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .nodes import Directory, Node, NoOperations
from .tar.stream import Stream
from .walking import CurrentPath

__all__ = ["LayerEvents", "Name", "happened"]


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
        below: the names in it, of that kind; None: there are none.
        touched: whether the name itself was touched.
        before: what had the name before the layer, if it was touched.
        after: what has it after the layer.
    """

    __slots__ = ("after", "before", "below", "touched")

    def __init__(self) -> None:
        self.below: dict[bytes, Name] | None = None
        self.touched = False
        self.before: Node | None = None
        self.after: Node | None = None

    def entry(self, name: bytes) -> Name:
        """Return a name in this one."""
        if self.below is None:
            self.below = {}
        return self.below.setdefault(name, Name())

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
            depth, name, place = todo.pop()
            current.move(depth, name)
            what = happened(place.before, place.after)
            if what and (wanted is None or wanted(current.names)):
                yield what
            todo += _sorted(place, depth + 1)


def _sorted(place: Name, depth: int) -> list[tuple[int, bytes, Name]]:
    below = sorted((place.below or {}).items(), key=lambda item: item[0], reverse=True)
    return [(depth, name, each) for name, each in below]


class LayerEvents(NoOperations):
    """Gathers what the layers do while they are applied; ask :meth:`take` after each of them.

    A directory may go and come again while a layer is applied, as another one. So what is below is
    held by names, and not by the directories that it is in.
    """

    def __init__(self) -> None:
        self._top = Name()
        self._places: dict[Directory, Name] = {}

    def take(self) -> Name:
        """Return the root, with all that has happened since the last time."""
        taken = self._top
        self._top = Name()
        self._places.clear()
        return taken

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        if directory.parent is not None:
            self._note(directory.parent, directory.name, directory)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Stream) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        self._note(parent, name, node)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        self._note(parent, name, node)

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        self._note(parent, name, node)

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        self._note(parent, name, None, node)
        if isinstance(node, Directory):
            for holder, below, child in node.walk():
                self._note(holder, below, None, child)

    def _note(
        self, parent: Directory, name: bytes, after: Node | None, before: Node | None = None
    ) -> None:
        place = self._place(parent).entry(name)
        if not place.touched:
            place.touched = True
            place.before = before
        place.after = after

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
            place = place.entry(each.name) if each.parent is not None else self._top
            self._places[each] = place
        return place
