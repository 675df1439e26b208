"""Which layers brought, changed and removed a path: one path, those of a pattern, or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from ..limits import Limits
from ..tar.names import clean
from .events import LayerEvents, Name, happened
from .glob import PathPattern, is_glob
from .merge import LayerReport
from .nodes import Directory, Node
from .operations import NoOperations
from .tree import Tree
from .walking import CurrentPath

__all__ = ["LayerEvent", "layer_events", "search_for"]


class LayerEvent(msgspec.Struct, frozen=True):
    """What a layer does to a path.

    Attributes:
        layer: the number of the layer, from 1 and in the order in which the layers are applied.
        digest: the digest of its blob; in a docker-archive, which has none, its diff_id.
        event: ``added``, ``removed``, ``replaced``, ``replaced by a`` type of file, or, of a single
            path alone, ``attributes changed``.
        created_by: what made the layer, as the image's history says; None: it does not say.
        path: the path, from the root.
    """

    layer: int
    digest: str
    event: str
    created_by: str | None
    path: str


class Search(Protocol):
    """What is gathered while the layers are applied, and what it comes to."""

    def start(self) -> NoOperations:
        """Begin, and again when the work starts over; return what is told what the tree does."""

    def look(self, tree: Tree) -> None:
        """See the tree as a layer has left it."""

    def events(self, number: int, current: CurrentPath) -> Iterator[str]:
        """Yield what a layer has done to each path, which is moved to."""


def search_for(path: bytes | None, limits: Limits) -> Search:
    """Return the search for a path or a pattern.

    Args:
        path: the path from the root, or a pattern of paths; None: all paths.
        limits: on the memory that what is found may take.
    """
    return _Many(path, limits) if path is None or is_glob(path) else _One(path)


def layer_events(
    search: Search,
    layers: Iterable[LayerReport],
    created_by: Mapping[int, str],
    show: Callable[[bytes], str],
    limits: Limits,
) -> Iterator[LayerEvent]:
    """Yield what a search has found.

    Args:
        search: the search, when all layers have been applied.
        layers: what was applied.
        created_by: what made the layers, by their numbers.
        show: turns a name of a path into text.
        limits: on the bytes of the paths.

    Raises:
        LimitExceeded: the paths have more bytes than they may.
    """
    current = CurrentPath(show, limits)
    for each in layers:
        digest, made_by = each.digest or each.diff_id, created_by.get(each.layer)
        for event in search.events(each.layer, current):
            yield LayerEvent(each.layer, digest, event, made_by, current.text())


class _One:
    """Searches for one path."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._events: list[str] = []
        self._before: tuple[Node | None, tuple[Any, ...]] = (None, ())

    def start(self) -> NoOperations:
        self._events.clear()
        self._before = (None, ())
        return NoOperations()

    def look(self, tree: Tree) -> None:
        place = tree.find(self._path, follow=False)
        node = place.node if place is not None else None
        # A directory's node lives on when a layer gives it other attributes.
        now = (node, _attributes(node) if node is not None else ())
        what = happened(self._before[0], node)
        if not what and self._before != now:
            what = "attributes changed"
        self._events.append(what)
        self._before = now

    def events(self, number: int, current: CurrentPath) -> Iterator[str]:
        if self._events[number - 1]:
            current.start(clean(self._path))
            yield self._events[number - 1]


def _attributes(node: Node) -> tuple[Any, ...]:
    return (node.mode, node.uid, node.gid, node.mtime_ns, dict(node.xattrs or {}))


class _Many:
    """Searches for the paths that a pattern matches, or for all."""

    def __init__(self, pattern: bytes | None, limits: Limits) -> None:
        parts = (pattern or b"").split(b"/")
        first = next((n for n, part in enumerate(parts) if is_glob(part)), 0)
        self._all = pattern is None
        self._limits = limits
        self._begin, self._rest = b"/".join(parts[:first]), b"/".join(parts[first:])
        self._gathering = LayerEvents(limits)
        # Of each layer, what it does, and the directories in which the pattern begins.
        self._layers: list[tuple[Name, list[list[bytes]]]] = []
        self._under: list[list[bytes]] = []

    def start(self) -> NoOperations:
        self._layers.clear()
        self._under = []
        self._gathering = LayerEvents(self._limits)
        return self._gathering

    def look(self, tree: Tree) -> None:
        place = tree.find(self._begin)
        before, self._under = self._under, []
        if place is not None and isinstance(place.node, Directory):
            self._under = [[name for name in place.node.path().split(b"/") if name]]
        both = before + [each for each in self._under if each not in before]
        self._layers.append((self._gathering.take(), both))

    def events(self, number: int, current: CurrentPath) -> Iterator[str]:
        top, under = self._layers[number - 1]
        if self._all:
            yield from top.events(current)
            return
        patterns = [PathPattern(self._rest, under=each) for each in under]
        yield from top.events(
            current, lambda names: any(each.matches_names(names) for each in patterns)
        )
