"""The one walker for paths in the tree: names, ``..`` and symbolic links, inside the root, bounded.

Paths are looked up for three reasons: an entry's parent and the target of a hard link, what a
whiteout hides in the layers below, and what is at a path that somebody asks for (:func:`find`).
They differ in what happens at a name that is no directory; each of them says so itself, beside the
sentence of the specification that decides it. How a path is walked up to there, and how far, is the
same for all, and is here.

A few bytes of links can stand for a way of any length. There are three bounds: links on one path
(:data:`MAX_LINKS`), names on one path when there are links on it (the limit ``depth``), and names
on all paths of an image (the limit ``steps``).
"""

from __future__ import annotations

import sys
from collections.abc import Set

from ..errors import LimitExceeded
from ..limits import Limits
from .nodes import Directory, Node

__all__ = ["MAX_LINKS", "Lookup", "Place", "Way", "find"]

#: Symbolic links that may be followed on one path.
MAX_LINKS = 255

#: What is at a path: the directory that it is in, its name there, and the node.
Place = tuple[Directory, bytes, Node]

_NOTHING: frozenset[tuple[Directory, bytes]] = frozenset()


class Lookup:
    """Looks up paths in one tree, and counts the steps of all of them.

    Attributes:
        root: the tree's root.
        limits: bounds on each path, and on all of them.
    """

    def __init__(self, root: Directory, limits: Limits, *, counted: bool = True) -> None:
        """Begin with no step.

        Args:
            root: the tree's root.
            limits: bounds on each path, and on all of them.
            counted: whether there is a bound on all of them.
        """
        self.root = root
        self.limits = limits
        self._most = limits.steps if counted else sys.maxsize
        self._steps = 0

    def spend(self, steps: int) -> None:
        """Count steps.

        Raises:
            LimitExceeded: there were too many, on all paths together.
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
            start: the directory that it begins in; None: the root.
            stops: names in directories at which to stop, also where they are directories.
        """
        directory = start or self.root
        return Way(self, directory, path.split(b"/")[::-1], directory.depth, stops)

    def straight(self, path: bytes) -> Directory | Way:
        """Walk a path that most often goes through directories alone, which is quick.

        Args:
            path: the path from the root, clean.

        Returns:
            The directory at it, or the way from where there is more to it.

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
    """A path that is being walked: where it is, and the names that are still to come.

    :meth:`advance` goes through directories up to the first name that is none. There the caller
    decides: :meth:`follow` the link, go on from another directory, or give up.

    Attributes:
        directory: where it is; the caller may put it into another one.
        name: the name in it that is no directory.
        node: what has the name; None: nothing has.
        links: how many symbolic links were followed.
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
            directory: where it begins.
            todo: the names to come, the last one first.
            steps: names that lead to the directory.
            stops: names at which to stop.
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
        """Whether no more names come."""
        return not any(name not in (b"", b".") for name in self._todo)

    def advance(self) -> bool:
        """Go on to the next name that is no directory.

        Returns:
            Whether there is one; otherwise ``directory`` is what the path leads to.

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
                # No node ever has one of these names.
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
        """Go through the symbolic link at which the way has stopped.

        Returns:
            False: there were too many links before.

        Raises:
            LimitExceeded: the links make the path too long.
        """
        if self.node is None or self.links == MAX_LINKS:
            return False
        self.links += 1
        target = self.node.target
        self._todo += target.split(b"/")[::-1]
        # What waits is counted, too: it cannot grow beyond the limit before it is gone through.
        self._lookup.limits.check("depth", self._steps + len(self._todo))
        if target[:1] == b"/":
            self.directory = self._lookup.root
        return True


def find(
    lookup: Lookup, path: bytes, *, start: Directory | None = None, follow: bool = True
) -> Place | None:
    """Return what is at a path, as a process in the root would see it.

    Args:
        lookup: counts the steps.
        path: the path; ``..`` does not lead above the root.
        start: the directory that it begins in; None: the root.
        follow: whether a symbolic link at its end is followed, too.

    Returns:
        What is there (of the root: itself, with an empty name); None when there is nothing, or
        only a loop of links.
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
            return (way.directory, way.name, node) if way.is_last else None
    directory = way.directory
    return directory.parent or directory, directory.name, directory
