"""Which paths of a tree, or of a layer, a glob pattern matches."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from ..tar.names import as_bytes, as_text, clean
from .lookup import Lookup, Place, find
from .nodes import Directory
from .tree import Tree

__all__ = ["PathPattern", "glob", "is_glob", "name_matcher"]

# Steps that a path counts that a pattern means through a link: to show it is work of that order.
_MATCH = 20


def glob(tree: Tree, pattern: bytes, *, follow: bool = False) -> list[tuple[bytes, Place]]:
    """Return what a path or a glob pattern means.

    ``*``, ``?`` and ``[…]`` match within one name, and a leading dot only when it is written. Links
    on the way are followed inside the root.

    Args:
        tree: the merged file system.
        pattern: a path from the root, or a pattern of one.
        follow: whether a symbolic link at the end is followed, too.

    Returns:
        The paths, sorted, and what is there.

    Raises:
        LimitExceeded: links make more of the pattern than there may be.
    """
    lookup = tree.lookup
    # Paths that go straight are no more than there are names in the tree, and need no bound.
    found: list[tuple[bytes, Place, bool]] = [(b"", Place(tree.root, b"", tree.root), True)]
    for part in pattern.split(b"/"):
        if part in (b"", b"."):
            continue
        is_pattern = is_glob(part)
        above, found = found, []
        for path, place, straight in above:
            entered = _followed(lookup, place)
            if entered is None or not isinstance(directory := entered.node, Directory):
                continue
            straight = straight and entered is place and part != b".."
            if is_pattern and not straight:
                lookup.spend(len(directory.entries))
            matched = _matched(directory, part, is_pattern)
            if not straight:
                lookup.spend(_MATCH * len(matched))
            before = path + b"/" if path else b""
            found += [(before + name, each, straight) for name, each in matched]
    places = ((path, _followed(lookup, at) if follow else at) for path, at, _ in found)
    return sorted(((path, at) for path, at in places if at is not None), key=lambda it: it[0])


def _followed(lookup: Lookup, place: Place) -> Place | None:
    """Return where a symbolic link leads to; of anything else, itself."""
    directory, name, node = place
    return find(lookup, name, start=directory) if node.kind == "symlink" else place


def _matched(directory: Directory, part: bytes, is_pattern: bool) -> list[tuple[bytes, Place]]:
    """Return what a name or a pattern means in a directory, and the names it has there."""
    if part == b"..":
        up = directory.parent or directory
        return [(part, Place(up.parent or up, up.name, up))]
    if not is_pattern:
        node = directory.entries.get(part)
        return [(part, Place(directory, part, node))] if node is not None else []
    matches = name_matcher(part)
    return [
        (name, Place(directory, name, node))
        for name, node in directory.entries.items()
        if matches(name)
    ]


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
        self._names += [name_matcher(part) for part in clean(as_bytes(pattern)).split(b"/") if part]
        self._below = below

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


def name_matcher(part: bytes, *, hidden: bool = False) -> Callable[[bytes], bool]:
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
