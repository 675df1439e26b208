"""Comparing two merged trees: what was added, removed and changed, and in what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from .contents import pieces
from .looking import as_text
from .nodes import HOST_XATTRS, Directory, Node, NoOperations
from .tar.stream import Stream

__all__ = ["Difference", "Hashing", "Side", "compare", "copied"]

#: Bytes of holes that are hashed as the zeros that they are. An image may have holes without end;
#: beyond this, files are the same only when their holes are.
_HOLES = 1 << 30


class Hashing(NoOperations):
    """Hashes the contents of files while they flow by, so that trees can be compared in one pass.

    Attributes:
        digests: the SHA-256 of each regular file's content.
    """

    def __init__(self) -> None:
        self.digests: dict[Node, bytes] = {}
        self._holes = _HOLES

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Stream) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        hasher = hashlib.sha256()
        self._holes -= node.size - node.stored
        if self._holes >= 0:
            for piece in pieces(node, data):
                hasher.update(piece)
        else:
            hasher.update(repr((node.size, node.segments)).encode())
            for piece in data.pieces(node.stored):
                hasher.update(piece)
        self.digests[node] = hasher.digest()


class Side(msgspec.Struct, frozen=True):
    """One of two trees.

    Attributes:
        root: its root.
        digests: the digests of the contents of its files.
    """

    root: Directory
    digests: dict[Node, bytes]


class Difference(msgspec.Struct, frozen=True):
    """How two trees differ at a path.

    Attributes:
        path: the path, from the root.
        change: ``added``, ``removed`` or ``changed``.
        what: of a change, what has changed.
        size_before: bytes of the file before; 0 for what is no file.
        size_after: bytes of the file after.
    """

    path: str
    change: str
    what: tuple[str, ...]
    size_before: int
    size_after: int


def copied(root: Directory) -> Directory:
    """Return a copy of a tree, which stays as it is when further layers are applied to that one."""
    top = Directory(None, b"", root.layer)
    top.describe_as(root)
    copies = {root: top}
    for parent, name, node in root.walk():
        copy = node
        if isinstance(node, Directory):
            copy = copies[node] = Directory(copies[parent], name, node.layer)
            copy.describe_as(node)
        copies[parent].entries[name] = copy
    return top


def compare(before: Side, after: Side, *, mtime: bool = False) -> Iterator[Difference]:
    """Compare two trees.

    Args:
        before: the one.
        after: the other.
        mtime: whether another modification time is a difference.

    Yields:
        The differences, sorted by path, what is in a directory after it.
    """
    todo: list[tuple[bytes, Node | None, Node | None]] = [(b"/", before.root, after.root)]
    while todo:
        path, old, new = todo.pop()
        what: list[str] = []
        if old is not None and new is not None:
            what = _changes(before, old, after, new, mtime)
        if what or old is None or new is None:
            change = "added" if old is None else "removed" if new is None else "changed"
            sizes = [side.size if side is not None else 0 for side in (old, new)]
            yield Difference(as_text(path), change, tuple(what), *sizes)
        names: set[bytes] = set()
        for side in (old, new):
            if isinstance(side, Directory):
                names.update(side.entries)
        for name in sorted(names, reverse=True):
            full = path.rstrip(b"/") + b"/" + name
            todo.append((full, _entry(old, name), _entry(new, name)))


def _entry(node: Node | None, name: bytes) -> Node | None:
    return node.entries.get(name) if isinstance(node, Directory) else None


def _changes(before: Side, old: Node, after: Side, new: Node, mtime: bool) -> list[str]:
    """Return in what two nodes at one path differ."""
    if old.kind != new.kind:
        return ["type"]  # nothing else can be compared
    pairs: dict[str, tuple[Any, Any]] = {
        "content": (before.digests.get(old), after.digests.get(new)),
        # Linux has no modes of symbolic links.
        "mode": (old.mode, new.mode) if old.kind != "symlink" else (0, 0),
        "owner": ((old.uid, old.gid), (new.uid, new.gid)),
        "mtime": (old.mtime_ns, new.mtime_ns) if mtime else (0, 0),
        "size": (old.size, new.size),
        "target": (old.target, new.target),
        "device": (old.rdev, new.rdev),
        "xattrs": (_xattrs(old), _xattrs(new)),
    }
    return [what for what, (one, other) in pairs.items() if one != other]


def _xattrs(node: Node) -> dict[bytes, bytes]:
    """Return the extended attributes that extraction would set."""
    return {n: v for n, v in (node.xattrs or {}).items() if not n.startswith(HOST_XATTRS)}
