"""Bounded path look-up in the tree: names, ``..`` and symbolic links, inside the root.

Paths are looked up for an entry's parent and the target of a hard link, for what a whiteout removes
from the lower layers, and for a path that a user requests (:func:`find`). These callers differ in
what they do at a name that is not a directory; each documents that beside the sentence of the
specification that decides it. This module walks the path up to there.

A few bytes of links can stand for a path of any length. There are three bounds: links on one path
(:data:`MAX_LINKS`), names on one path that contains links (the limit ``depth``), and names on all
paths of an image (the limit ``steps``).
"""

from __future__ import annotations

import sys
from collections.abc import Set
from typing import NamedTuple

from ..errors import LimitExceeded
from ..limits import Limits
from .nodes import Directory, Node

__all__ = ["MAX_LINKS", "Lookup", "Place", "Way", "find"]

#: Symbolic links that may be followed on one path.
MAX_LINKS = 255


class Place(NamedTuple):
    """What is at a path.

    Attributes:
        parent: the directory that it is in; of the root, the root itself.
        name: its name there; of the root, empty.
        node: what it is.
    """

    parent: Directory
    name: bytes
    node: Node

    @property
    def path(self) -> bytes:
        """Its path, with no symbolic link in it and no leading ``/``."""
        return self.parent.path_of(self.name)


_NOTHING: frozenset[tuple[Directory, bytes]] = frozenset()


class Lookup:
    """Looks up paths in one tree, and counts the steps of all look-ups.

    Attributes:
        root: the tree's root.
        limits: bound each path, and all paths together.
    """

    def __init__(self, root: Directory, limits: Limits, *, counted: bool = True) -> None:
        """Begin with a count of zero.

        Args:
            root: the tree's root.
            limits: bound each path, and all paths together.
            counted: whether the limit ``steps`` is enforced.
        """
        self.root = root
        self.limits = limits
        self._most = limits.steps if counted else sys.maxsize
        self._steps = 0

    def spend(self, steps: int) -> None:
        """Count steps.

        Raises:
            LimitExceeded: too many steps on all paths together.
        """
        self._steps += steps
        if self._steps > self._most:
            raise self.limits.exceeded("steps", self._steps)

    def way(
        self,
        path: bytes,
        start: Directory | None = None,
        stops: Set[tuple[Directory, bytes]] = _NOTHING,
    ) -> Way:
        """Begin to walk a path.

        Args:
            path: the path.
            start: the directory that the path is relative to; None: the root.
            stops: (directory, name) pairs at which to stop even if they are directories.
        """
        directory = start or self.root
        return Way(self, directory, path.split(b"/")[::-1], directory.depth, stops)

    def straight(self, path: bytes) -> Directory | Way:
        """Walk a path with a fast path for directories.

        Args:
            path: the normalised path from the root.

        Returns:
            The directory at the path; or, if a name on it is not a directory, the walk from there.

        Raises:
            LimitExceeded: too many steps on all paths together.
        """
        directory = self.root
        names = path.split(b"/")
        for name in names:
            node = directory.entries.get(name)
            if not isinstance(node, Directory):
                steps = directory.depth
                return Way(self, directory, names[steps:][::-1], steps)
            directory = node
        self._steps += directory.depth
        if self._steps > self._most:
            raise self.limits.exceeded("steps", self._steps)
        return directory


class Way:
    """The walk along one path: the current directory, and the names that remain.

    :meth:`advance` goes through directories up to the first name that is not one. There the caller
    decides: :meth:`follow` the link, continue from another directory, or stop.

    Attributes:
        directory: the current directory; the caller may replace it.
        name: the name in it that is not a directory.
        node: the node of that name; None if it does not exist.
        links: the number of symbolic links that were followed.
    """

    __slots__ = ("_lookup", "_steps", "_stops", "_todo", "directory", "links", "name", "node")

    def __init__(
        self,
        lookup: Lookup,
        directory: Directory,
        todo: list[bytes],
        steps: int,
        stops: Set[tuple[Directory, bytes]] = _NOTHING,
    ) -> None:
        """Begin; see :meth:`Lookup.way`.

        Args:
            lookup: counts the steps.
            directory: the directory to begin in.
            todo: the remaining names, the last one first.
            steps: the number of names that lead to the directory.
            stops: (directory, name) pairs at which to stop.
        """
        self._lookup = lookup
        self._todo = todo
        self._stops = stops
        self._steps = steps
        self.directory = directory
        self.name = b""
        self.node: Node | None = None
        self.links = 0

    @property
    def is_last(self) -> bool:
        """Whether no names remain."""
        return not any(name not in (b"", b".") for name in self._todo)

    @property
    def needs_directory(self) -> bool:
        """Whether what it has come to must be a directory: a name, ``.`` or ``/`` follows."""
        return bool(self._todo)

    def advance(self) -> bool:
        """Advance to the next name that is not a directory.

        Returns:
            Whether there is one; otherwise ``directory`` is the result of the path.

        Raises:
            LimitExceeded: too many steps on all paths together.
        """
        directory, todo, stops = self.directory, self._todo, self._stops
        before = len(todo)
        stopped = False
        while todo:
            name = todo.pop()
            node = directory.entries.get(name)
            if isinstance(node, Directory) and not (stops and (directory, name) in stops):
                directory = node
            elif node is None and name in (b"", b".", b".."):
                # No node has one of these names.
                if name == b"..":
                    directory = directory.parent or directory
            else:
                self.name, self.node = name, node
                stopped = True
                break
        self.directory = directory
        steps = before - len(todo)
        self._steps += steps
        self._lookup.spend(steps)
        return stopped

    def follow(self) -> bool:
        """Follow the symbolic link at which the walk has stopped.

        Returns:
            False if :data:`MAX_LINKS` links have been followed already.

        Raises:
            LimitExceeded: the links make the path too long.
        """
        if self.node is None or self.links == MAX_LINKS:
            return False
        self.links += 1
        target = self.node.target
        self._todo += target.split(b"/")[::-1]
        # The remaining names are counted too, so that they cannot exceed the limit in memory.
        self._lookup.limits.check("depth", self._steps + len(self._todo))
        if target[:1] == b"/":
            self.directory = self._lookup.root
        return True


def find(
    lookup: Lookup, path: bytes, *, start: Directory | None = None, follow: bool = True
) -> Place | None:
    """Return what is at a path, as a process whose root is the tree would see it.

    Args:
        lookup: counts the steps.
        path: the path; ``..`` is clamped at the root.
        start: the directory that the path is relative to; None: the root.
        follow: whether a symbolic link in the final component is followed.

    Returns:
        The parent, the name and the node (for the root: the root, an empty name, the root); None if
        there is none, or if the links form a loop.
    """
    way = lookup.way(path, start)
    while way.advance():
        node = way.node
        if node is None:
            return None
        if node.kind == "symlink" and (follow or not way.is_last):
            # A process would get ELOOP or ENAMETOOLONG.
            try:
                if not way.follow():
                    return None
            except LimitExceeded:
                return None
        else:
            return Place(way.directory, way.name, node) if way.is_last else None
    directory = way.directory
    return Place(directory.parent or directory, directory.name, directory)
