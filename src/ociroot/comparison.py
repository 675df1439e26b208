"""Comparing two merged trees: what was added, removed and changed, and in what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from .contents import pieces
from .looking import as_text
from .nodes import Directory, Node, NoOperations
from .tar.stream import Stream

__all__ = ["Difference", "Hashing", "compare", "snapshot"]


class Hashing(NoOperations):
    """Hashes the contents of files while they flow by, so that trees can be compared in one pass.

    Attributes:
        digests: the SHA-256 of each regular file's content.
    """

    def __init__(self) -> None:
        self.digests: dict[Node, bytes] = {}

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Stream) -> None:
        """See :class:`~ociroot.nodes.Operations`."""
        hasher = hashlib.sha256()
        for piece in pieces(node, data):
            hasher.update(piece)
        self.digests[node] = hasher.digest()


class Attributes(NamedTuple):
    """What is compared of a path."""

    type: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    xattrs: dict[bytes, bytes]
    size: int
    content: bytes | None
    target: bytes
    device: tuple[int, int]


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


def snapshot(root: Directory, digests: dict[Node, bytes]) -> dict[bytes, Attributes]:
    """Return what there is at each path of a tree, as it is now.

    Args:
        root: the tree's root.
        digests: the digests of the contents of its files.
    """
    found: dict[bytes, Attributes] = {b"": _attributes(root, digests)}
    paths: dict[Directory, bytes] = {root: b""}
    for parent, name, node in root.walk():
        path = paths[parent] + b"/" + name
        if isinstance(node, Directory):
            paths[node] = path
        found[path] = _attributes(node, digests)
    return found


def _attributes(node: Node, digests: dict[Node, bytes]) -> Attributes:
    return Attributes(
        node.kind,
        node.mode,
        (node.uid, node.gid),
        node.mtime_ns,
        node.xattrs or {},
        node.size,
        digests.get(node),
        node.target,
        node.rdev,
    )


def compare(
    before: dict[bytes, Attributes], after: dict[bytes, Attributes], *, mtime: bool = False
) -> Iterator[Difference]:
    """Compare two snapshots.

    Args:
        before: the one.
        after: the other.
        mtime: whether another modification time is a difference.

    Yields:
        The differences, sorted by path.
    """
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        what: list[str] = []
        if old is not None and new is not None:
            # Of another type nothing else can be compared.
            fields = Attributes._fields if old.type == new.type else ("type",)
            what = [
                field
                for field in fields
                if getattr(old, field) != getattr(new, field) and (mtime or field != "mtime")
            ]
            if not what:
                continue
        change = "added" if old is None else "removed" if new is None else "changed"
        sizes = [side.size if side is not None else 0 for side in (old, new)]
        yield Difference(as_text(path) or "/", change, tuple(what), *sizes)
