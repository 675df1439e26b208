"""Paths of a tree walk, built only when they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..limits import Limits
from ..tar.names import as_text
from .lookup import Lookup
from .nodes import Directory, Node

__all__ = ["CurrentPath", "DirectoryListing", "walk"]

# Steps that an entry counts that is listed again: that is as much work.
_AGAIN = 20


class CurrentPath:
    """The path of the current entry of a walk.

    A small image can have a thousand files at paths of a megabyte each. So a walk keeps names, and
    builds the text of a path only when it is printed. The limit ``listing`` bounds what is printed.
    """

    def __init__(self, show: Callable[[bytes], str], limits: Limits) -> None:
        """Begin at the root.

        Args:
            show: converts a name to text.
            limits: bound the bytes of all the paths that are printed.
        """
        self._show = show
        self._limits = limits
        self._printed = 0
        #: The names of the path.
        self.names: list[bytes] = []
        # The first of them as text, converted on demand.
        self._shown: list[str] = []

    def start(self, path: bytes) -> int:
        """Go to a path.

        Args:
            path: the normalised path from the root.

        Returns:
            Its depth, for :meth:`move`.
        """
        self.names = [name for name in path.split(b"/") if name]
        self._shown.clear()
        return len(self.names)

    def move(self, depth: int, name: bytes) -> None:
        """Go to another entry.

        Args:
            depth: the number of its parent directories; they are the first names of the current
                path, as in any top-down walk.
            name: its name.
        """
        del self.names[depth:]
        del self._shown[depth:]
        self.names.append(name)

    def text(self) -> str:
        """Return the path, with a leading ``/``.

        Raises:
            LimitExceeded: the paths printed so far exceed the limit ``listing``.
        """
        self._shown += map(self._show, self.names[len(self._shown) :])
        text = "/" + "/".join(self._shown)
        self._printed += len(text)
        self._limits.check("listing", self._printed)
        return text


class DirectoryListing:
    """A directory that a walk has come to; to be used before the walk goes on.

    Attributes:
        entries: what is in it, sorted by name.
    """

    def __init__(self, current: CurrentPath, depth: int, entries: list[tuple[bytes, Node]]) -> None:
        self._current = current
        self._depth = depth
        self.entries = entries

    def __repr__(self) -> str:
        # The path is asked for once, and counts.
        return f"<DirectoryListing entries={len(self.entries)}>"

    @property
    def path(self) -> str:
        """Its path, with a leading ``/``; to be asked before :meth:`paths`."""
        return self._current.text()

    def paths(self) -> Iterator[tuple[str, Node]]:
        """Yield the path of each entry, and the entry."""
        for name, node in self.entries:
            self._current.move(self._depth, name)
            yield self._current.text(), node


def walk(
    lookup: Lookup,
    directories: Iterable[tuple[bytes, Directory]],
    *,
    recursive: bool = False,
    hidden: bool = False,
    show: Callable[[bytes], str] = as_text,
) -> Iterator[DirectoryListing]:
    """Go through directories, one after the other: nothing is held whole.

    Args:
        lookup: counts a directory that is listed again as steps.
        directories: the directories, each with the path by which it is shown; several links may
            lead to one.
        recursive: whether those below them are gone through, too, each after the one it is in.
        hidden: whether names that begin with a dot are listed.
        show: turns a name of a path into text.

    Yields:
        Each of them, with what is in it.

    Raises:
        LimitExceeded: the paths that were asked for have more bytes than they may, or directories
            are listed again and again.
    """
    current = CurrentPath(show, lookup.limits)
    listed: set[Directory] = set()
    for path, start in directories:
        todo = [(current.start(path), b"", start)]
        while todo:
            depth, name, directory = todo.pop()
            if name:
                current.move(depth - 1, name)
            if directory in listed:
                lookup.spend(_AGAIN * len(directory.entries))
            listed.add(directory)
            entries = [
                each
                for each in sorted(directory.entries.items())
                if hidden or not each[0].startswith(b".")
            ]
            yield DirectoryListing(current, depth, entries)
            if recursive:
                todo += [
                    (depth + 1, name, node)
                    for name, node in reversed(entries)
                    if isinstance(node, Directory)
                ]
