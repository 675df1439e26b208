"""Glob patterns: the paths of a tree that one matches, and whether one matches a path."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..errors import printable
from ..tar.names import as_bytes, as_text, clean
from .lookup import Lookup, Place, find
from .nodes import Directory, Node

__all__ = ["Above", "Match", "PathPattern", "followed_place", "glob", "is_glob"]

_ANY = b"**"
# Steps that a path counts that a pattern matches through a link: to show it is work of that order.
_MATCH = 20


def glob(
    lookup: Lookup, pattern: bytes, *, hidden: bool = False, recursive: bool = False
) -> Iterator[Match]:
    """Yield what a path or a glob pattern matches, a directory before its entries, names sorted.

    ``*``, ``?`` and ``[…]`` match within one name. Symbolic links in the parents are followed
    inside the root; one in the final component is not. A pattern with ``/`` at its end matches
    only directories, and links to them.

    Args:
        lookup: the tree; it counts the steps through links.
        pattern: a path from the root, or a pattern.
        hidden: whether they match a leading dot that is not written.
        recursive: whether a name ``**`` matches any number of names, including none. It does not
            follow symbolic links.

    Raises:
        LimitExceeded: through links, the pattern matches too many paths.
    """
    return _Walk(lookup, pattern, hidden, recursive).matches()


class Above:
    """A directory on a path that a pattern matches.

    It has its name and refers to the one above: a small image can have many files at paths of a
    megabyte each, so that a path is joined only when it is given out.
    """

    __slots__ = ("_above", "_name")

    def __init__(self, above: Above | None = None, name: bytes = b"") -> None:
        """Begin at the root, or go on to a directory.

        Args:
            above: the directory that it is in; None: this is the root.
            name: its name there.
        """
        self._above = above
        self._name = name

    def path_of(self, name: bytes) -> bytes:
        """Return the path of a name in it, without a leading ``/``."""
        names = [name]
        at = self
        while at._above is not None:
            names.append(at._name)
            at = at._above
        return b"/".join(reversed(names))


class Match(NamedTuple):
    """A path that a pattern matches, or its first parts.

    Attributes:
        matched: the number of these parts.
        above: where the last name of the path is, by the path itself.
        name: that name; empty for the root.
        parent: the directory that it is in.
        node: what is there.
        straight: whether the path contains no symbolic link and no ``..``.
        inside: whether the next part is a ``**`` that has matched a directory.
    """

    matched: int
    above: Above
    name: bytes
    parent: Directory
    node: Node
    straight: bool
    inside: bool = False

    @property
    def place(self) -> Place:
        """What is there, with its parent and its name."""
        node = self.node
        if isinstance(node, Directory):  # of which the path may end in ``..``
            return Place(node.parent or node, node.name, node)
        return Place(self.parent, self.name, node)

    @property
    def path(self) -> bytes:
        """The path, without a leading ``/``."""
        return self.above.path_of(self.name)


class _Walk:
    """Goes through a tree and matches a pattern."""

    def __init__(self, lookup: Lookup, pattern: bytes, hidden: bool, recursive: bool) -> None:
        self._lookup = lookup
        self._parts: list[bytes] = []
        self._hidden = hidden
        self._any = _ANY if recursive else b""  # no part is empty
        self._directories_only = pattern[-1:] == b"/"
        for part in pattern.split(b"/"):
            again = part == self._any and self._parts[-1:] == [part]
            if part not in (b"", b".") and not again:
                self._parts.append(part)
        self._root = Above()
        # The same directory of the same path is the same object, however a pattern came to it.
        self._known: dict[tuple[Above, bytes], Above] = {}
        self._matchers = [
            _name_matcher(part, hidden=hidden) if is_glob(part) else None for part in self._parts
        ]

    def matches(self) -> Iterator[Match]:
        # With one ``**`` there is one way to match a path.
        several = self._parts.count(self._any) > 1
        seen: set[tuple[int, bool, Above, bytes]] = set()
        root = self._lookup.root
        todo = [Match(0, self._root, b"", root, root, True)]
        while todo:
            state = todo.pop()
            if several:
                key = state.matched, state.inside, state.above, state.name
                if key in seen:
                    continue
                seen.add(key)
            if state.matched == len(self._parts):
                if not self._directories_only or self._directory(state) is not None:
                    yield state
            else:
                todo += reversed(list(self._next(state)))

    def _directory(self, state: Match) -> Directory | None:
        """Return the directory at a path, or that a symbolic link there points to."""
        node = state.node
        if node.kind == "symlink":
            followed = followed_place(self._lookup, state.place)
            node = followed.node if followed is not None else node
        return node if isinstance(node, Directory) else None

    def _next(self, state: Match) -> Iterator[Match]:
        part = self._parts[state.matched]
        if part == self._any:
            yield state._replace(matched=state.matched + 1, inside=False)
        directory = self._directory(state)
        if directory is None:
            return
        straight = state.straight and directory is state.node and part != b".."
        if part == self._any:
            yield from self._below(state, directory, straight)
            return
        found = self._matched(directory, state.matched, straight)
        if not straight:
            self._lookup.spend(_MATCH * len(found))
        above = self._above(state)
        for name, node in found:
            yield Match(state.matched + 1, above, name, directory, node, straight)

    def _above(self, state: Match) -> Above:
        """Return what the names in the directory of a match are in."""
        if not state.name:
            return self._root
        key = state.above, state.name
        above = self._known.get(key)
        if above is None:
            above = self._known[key] = Above(*key)
        return above

    def _below(self, state: Match, directory: Directory, straight: bool) -> Iterator[Match]:
        """Yield the entries of a directory for a ``**``."""
        last = state.matched + 1 == len(self._parts)
        above = self._above(state)
        for name, node in self._entries(directory, straight):
            if not self._hidden and name[:1] == b".":
                continue
            if isinstance(node, Directory):
                yield Match(state.matched, above, name, directory, node, straight, True)
            elif last:
                yield Match(state.matched + 1, above, name, directory, node, straight)

    def _matched(
        self, directory: Directory, number: int, straight: bool
    ) -> list[tuple[bytes, Node]]:
        """Return what a part matches in a directory, except a ``**``."""
        part, matcher = self._parts[number], self._matchers[number]
        if part == b"..":
            return [(part, directory.parent or directory)]
        if matcher is None:
            node = directory.entries.get(part)
            return [(part, node)] if node is not None else []
        entries = self._entries(directory, straight)
        return [(name, node) for name, node in entries if matcher(name)]

    def _entries(self, directory: Directory, straight: bool) -> list[tuple[bytes, Node]]:
        if not straight:
            # Paths that go straight are no more than there are names in the tree.
            self._lookup.spend(len(directory.entries))
        return sorted(directory.entries.items())


def followed_place(lookup: Lookup, place: Place) -> Place | None:
    """Return where a symbolic link points to, None if to nothing; of anything else, itself."""
    parent, name, node = place
    return find(lookup, name, start=parent) if node.kind == "symlink" else place


class PathPattern:
    """A path, or a pattern of one, that paths are held against without a tree.

    ``*``, ``?`` and ``[…]`` match within one name, and a leading dot only when it is written.
    """

    def __init__(
        self, pattern: str | bytes, *, under: Sequence[bytes] = (), below: bool = False
    ) -> None:
        """Take a pattern.

        Args:
            pattern: the path or the pattern.
            under: the names of the directory that it begins in, which are no patterns.
            below: whether it means all that is below it, too.
        """
        self._names: list[Callable[[bytes], bool]] = [name.__eq__ for name in under]
        self._names += [
            _name_matcher(part) for part in clean(as_bytes(pattern)).split(b"/") if part
        ]
        self._below = below
        self._pattern = pattern

    def __repr__(self) -> str:
        return f"<PathPattern {printable(self._pattern)}>"

    def matches(self, path: bytes) -> bool:
        """Return whether it matches a path.

        Args:
            path: the path from the root, as an archive has it.
        """
        path = clean(path)
        return self.matches_names(path.split(b"/") if path else [])

    def matches_names(self, names: Sequence[bytes]) -> bool:
        """Say whether it means a path, given as its names."""
        if len(names) != len(self._names) and not (self._below and len(names) > len(self._names)):
            return False
        return all(matches(name) for matches, name in zip(self._names, names, strict=False))


def is_glob(path: str | bytes) -> bool:
    """Say whether a name or a path has a character that makes it a pattern."""
    return any(char in b"*?[" for char in as_bytes(path))


def _name_matcher(part: bytes, *, hidden: bool = False) -> Callable[[bytes], bool]:
    """Return what says whether a name is meant by a name or by a pattern of one.

    Args:
        part: the name or the pattern.
        hidden: whether a pattern matches a leading dot that is not written.
    """
    if not is_glob(part):
        return part.__eq__
    matches = re.compile(fnmatch.translate(as_text(part))).match
    dot = hidden or part[:1] == b"."
    return lambda name: (dot or name[:1] != b".") and matches(as_text(name)) is not None
