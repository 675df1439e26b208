"""Glob patterns as pathlib has them: with ``**``, and with hidden names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..limits import Limits
from .glob import is_glob, name_matcher
from .lookup import Lookup, find
from .nodes import Directory, Node
from .tree import Tree

__all__ = ["recursive_glob"]

_ANY = b"**"
# Steps that a path counts that a pattern matches through a link.
_MATCH = 20


class _State(NamedTuple):
    """How far a pattern has come.

    Attributes:
        matched: how many of its parts have been matched.
        path: the path that they matched.
        parent: the directory in which that is.
        node: what it is.
        straight: whether no symbolic link and no ``..`` is on the path.
        inside: whether the part that comes next is a ``**`` that has gone into a directory.
    """

    matched: int
    path: bytes
    parent: Directory
    node: Node
    straight: bool
    inside: bool = False


def recursive_glob(tree: Tree, pattern: bytes, limits: Limits) -> Iterator[tuple[bytes, Node]]:
    """Yield what a pattern matches, a directory before what is in it, names in order.

    ``*``, ``?`` and ``[…]`` match within one name, also a leading dot. A part ``**`` matches any
    number of names, none as well, and goes through no symbolic link; the other parts follow links
    inside the root. A pattern with ``/`` at its end matches directories alone.

    Args:
        tree: the merged file system.
        pattern: the pattern, from the root.
        limits: on the steps through links.

    Yields:
        Each path, without a leading ``/``, and what is there; a symbolic link as such.

    Raises:
        LimitExceeded: links make more of the pattern than there may be.
    """
    parts: list[bytes] = []
    for part in pattern.split(b"/"):
        if part not in (b"", b".") and not (part == _ANY and parts[-1:] == [_ANY]):
            parts.append(part)
    return _Walk(tree, parts, limits, pattern[-1:] == b"/").matches()


class _Walk:
    def __init__(
        self, tree: Tree, parts: list[bytes], limits: Limits, directories_only: bool
    ) -> None:
        self._root = tree.root
        self._lookup = Lookup(tree.root, limits)
        self._parts = parts
        self._matchers = [
            name_matcher(part, hidden=True) if is_glob(part) and part != _ANY else None
            for part in parts
        ]
        self._directories_only = directories_only

    def matches(self) -> Iterator[tuple[bytes, Node]]:
        # With one ``**`` there is one way to match a path.
        several = self._parts.count(_ANY) > 1
        seen: set[tuple[int, bytes]] = set()
        todo = [_State(0, b"", self._root, self._root, True)]
        while todo:
            state = todo.pop()
            if several and not state.inside:
                if (state.matched, state.path) in seen:
                    continue
                seen.add((state.matched, state.path))
            if state.matched == len(self._parts):
                if not self._directories_only or self._directory(state) is not None:
                    yield state.path, state.node
            else:
                todo += reversed(list(self._next(state)))

    def _directory(self, state: _State) -> Directory | None:
        """Return the directory that a path leads to, through a link at its end, too."""
        node = state.node
        if node.kind == "symlink":
            name = state.path.rpartition(b"/")[2]
            place = find(self._lookup, name, start=state.parent)
            node = place[2] if place is not None else node
        return node if isinstance(node, Directory) else None

    def _next(self, state: _State) -> Iterator[_State]:
        part = self._parts[state.matched]
        if part == _ANY:
            yield state._replace(matched=state.matched + 1, inside=False)
        directory = self._directory(state)
        if directory is None:
            return
        straight = state.straight and directory is state.node and part != b".."
        if part == b"..":
            up = directory.parent or directory
            yield _State(state.matched + 1, _join(state.path, part), up, up, straight)
        elif part == _ANY:
            last = state.matched + 1 == len(self._parts)
            for name, node in self._entries(directory, straight):
                path = _join(state.path, name)
                if isinstance(node, Directory):
                    yield _State(state.matched, path, directory, node, straight, True)
                elif last:
                    yield _State(state.matched + 1, path, directory, node, straight)
        else:
            matcher = self._matchers[state.matched]
            if matcher is None:
                found = directory.entries.get(part)
                names = [(part, found)] if found is not None else []
            else:
                names = [
                    (name, node)
                    for name, node in self._entries(directory, straight)
                    if matcher(name)
                ]
            if not straight:
                self._lookup.spend(_MATCH * len(names))
            for name, node in names:
                yield _State(state.matched + 1, _join(state.path, name), directory, node, straight)

    def _entries(self, directory: Directory, straight: bool) -> list[tuple[bytes, Node]]:
        if not straight:
            # Paths that go straight are no more than there are names in the tree.
            self._lookup.spend(len(directory.entries))
        return sorted(directory.entries.items())


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
