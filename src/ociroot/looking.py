"""Looking at a merged tree: which paths a pattern means, what to say of a node, where space goes.

Pure functions over the tree, for the commands that look into an image without extracting it.
"""

from __future__ import annotations

import base64
import fnmatch
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from .lookup import Lookup, Place, find
from .nodes import Directory, Node, NoOperations, gone_with
from .spec.config import Config, History
from .tar.names import clean
from .tree import Tree

__all__ = [
    "PathPattern",
    "Waste",
    "as_text",
    "created_by",
    "described",
    "glob",
    "history_of_layers",
    "is_glob",
    "mode_string",
    "name_matcher",
    "once",
    "sizes",
    "time_string",
]

# Steps that a path counts that a pattern means through a link: to show it is work of that order.
_MATCH = 20

_FORMATS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


def as_text(name: bytes) -> str:
    """Return a name as text that can be turned back into it (``surrogateescape``), for JSON."""
    return name.decode("utf-8", "surrogateescape")


def mode_string(kind: str, mode: int) -> str:
    """Return a type and a mode as `ls -l` shows them; of a hard link's entry, ``h`` as the type."""
    if kind == "link":
        return "h" + stat.filemode(stat.S_IFREG | mode)[1:]
    return stat.filemode(_FORMATS[kind] | mode)


def time_string(nanoseconds: int) -> str:
    """Return a time in UTC to the second; one that no calendar has, as seconds since 1970."""
    seconds = nanoseconds // 1_000_000_000
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"


def described(path: str, node: Node) -> dict[str, Any]:
    """Return what programs want to know of a node.

    Args:
        path: its path, with a leading ``/``.
        node: what it is.
    """
    about: dict[str, Any] = {
        "path": path,
        "type": node.kind,
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "mtime_ns": node.mtime_ns,
        "layer": node.layer + 1,
    }
    if node.kind == "file":
        about["size"] = node.size
    if node.kind == "symlink":
        about["target"] = as_text(node.target)
    if node.kind in ("char", "block"):
        about["device"] = list(node.rdev)
    if node.kind != "dir" and node.links > 1:
        about["links"] = node.links
    if node.xattrs:
        about["xattrs"] = {
            as_text(name): base64.b64encode(value).decode() for name, value in node.xattrs.items()
        }
    return about


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
    found: list[tuple[bytes, Place, bool]] = [(b"", (tree.root, b"", tree.root), True)]
    for part in pattern.split(b"/"):
        if part in (b"", b"."):
            continue
        is_pattern = is_glob(part)
        above, found = found, []
        for path, place, straight in above:
            entered = _followed(lookup, place)
            if entered is None or not isinstance(directory := entered[2], Directory):
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
        return [(part, (up.parent or up, up.name, up))]
    if not is_pattern:
        node = directory.entries.get(part)
        return [(part, (directory, part, node))] if node is not None else []
    matches = name_matcher(part)
    return [
        (name, (directory, name, node)) for name, node in directory.entries.items() if matches(name)
    ]


def once(root: Directory) -> Iterator[tuple[Directory, bytes, Node]]:
    """Yield all that is below a directory, as ``walk`` does, but of hard links only the first."""
    seen: set[Node] = set()
    for parent, name, node in root.walk():
        if node.links > 1 and node.kind != "dir":
            if node in seen:
                continue
            seen.add(node)
        yield parent, name, node


class PathPattern:
    """A path, or a pattern of one, that paths are held against without a tree.

    ``*``, ``?`` and ``[…]`` match within one name, and a leading dot only when it is written.
    """

    def __init__(self, pattern: bytes, *, under: Sequence[bytes] = (), below: bool = False) -> None:
        """Take a pattern.

        Args:
            pattern: the path or the pattern.
            under: the names of the directory that it begins in, which are no patterns.
            below: whether it means all that is below it, too.
        """
        self._names: list[Callable[[bytes], bool]] = [name.__eq__ for name in under]
        self._names += [name_matcher(part) for part in clean(pattern).split(b"/") if part]
        self._below = below

    def matches(self, path: bytes) -> bool:
        """Say whether it means a path, which is clean."""
        names = path.split(b"/") if path else []
        return self.matches_names(names)

    def matches_names(self, names: Sequence[bytes]) -> bool:
        """Say whether it means a path, given as its names."""
        if len(names) != len(self._names) and not (self._below and len(names) > len(self._names)):
            return False
        return all(matches(name) for matches, name in zip(self._names, names, strict=False))


def is_glob(path: bytes) -> bool:
    """Say whether a name or a path has a character that makes it a pattern."""
    return any(char in path for char in b"*?[")


def name_matcher(part: bytes) -> Callable[[bytes], bool]:
    """Return what says whether a name is meant by a name or by a pattern of one."""
    if not is_glob(part):
        return part.__eq__
    matches = re.compile(fnmatch.translate(as_text(part))).match
    dot = part[:1] == b"."
    return lambda name: (dot or name[:1] != b".") and matches(as_text(name)) is not None


def sizes(root: Directory) -> dict[Directory, int]:
    """Return the bytes of the files below each directory; a hard-linked file counts once.

    Args:
        root: the directory to begin at.
    """
    totals = {root: 0}
    order = [root]
    for parent, _, node in once(root):
        if isinstance(node, Directory):
            totals[node] = 0
            order.append(node)
        elif node.kind == "file":
            totals[parent] += node.size
    for directory in reversed(order):
        if directory is not root and directory.parent is not None:
            totals[directory.parent] += totals[directory]
    return totals


class Waste(NoOperations):
    """Counts the bytes that a layer brought and that are hidden or removed later on.

    Attributes:
        by_layer: bytes by the layer that brought them, from 0.
    """

    def __init__(self) -> None:
        self.by_layer: dict[int, int] = {}

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        for each in gone_with(node):
            if each.kind == "file":
                self.by_layer[each.layer] = self.by_layer.get(each.layer, 0) + each.size


def history_of_layers(config: Config) -> Iterator[tuple[History, int | None]]:
    """Line up the history with the layers that it made.

    config.md, "history": `empty_layer` "is set to true if this history item doesn't correspond to
    an actual layer in the rootfs section".

    Yields:
        Each item, with the number of its layer from 1, or None when it made none.
    """
    number = 0
    for item in config.history:
        if item.empty_layer or number >= len(config.rootfs.diff_ids):
            yield item, None
        else:
            number += 1
            yield item, number


def created_by(config: Config) -> dict[int, str]:
    """Return what made each layer, as the history has it, by the layer's number from 1."""
    return {
        number: item.created_by or item.comment
        for item, number in history_of_layers(config)
        if number is not None
    }
