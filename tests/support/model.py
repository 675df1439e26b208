"""A reference model of the specification: slow, simple and independent of ociroot.

It follows the image-spec's layer.md and the project's table of decisions. Each layer is applied in
two phases to nodes in memory:

1. Its whiteouts apply to the tree of the lower layers, all at once: "Whiteout files MUST only apply
   to resources in lower/parent layers."
2. Its other entries apply to the result, in the order of the archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tests.support.build import Member
from tests.support.snapshot import Record

WHITEOUT = b".wh."
AUFS = b".wh..wh."
OPAQUE = b".wh..wh..opq"
MOST_LINKS = 255
HIGHEST_OWNER = 2**32 - 2


class ModelRefusal(Exception):
    """The stack must be refused."""


class _NotThere(Exception):
    """A path does not exist, or is not a directory where one is required."""


class _TooManyLinks(Exception):
    """A path goes through too many symbolic links."""


@dataclass(eq=False)
class Node:
    """An inode; hard links share it."""

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    data: bytes = b""
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    children: dict[bytes, Node] = field(default_factory=dict)


def expected(layers: Iterable[Sequence[Member]]) -> dict[bytes, Record]:
    """Apply the layers, the lowest first; return the tree as a snapshot."""
    root = Node("dir")
    for members in layers:
        _apply(root, members)
    return _records(root)


def clean(name: bytes) -> list[bytes]:
    """Return the components of a name, without empty ones and `.`, and with `..` resolved."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            del parts[-1:]
        else:
            parts.append(part)
    return parts


def _apply(root: Node, members: Sequence[Member]) -> None:
    whiteouts: list[list[bytes]] = []
    others: list[tuple[list[bytes], Member]] = []
    for member in members:
        if member.name == b"":
            raise ModelRefusal("empty name")
        path = clean(member.name)
        if any(part.startswith(WHITEOUT) for part in path[:-1]):
            continue  # below a whiteout: its content is ignored
        if not path or not path[-1].startswith(WHITEOUT):
            if member.kind == "file" and member.name.endswith(b"/"):
                raise ModelRefusal(f"a file whose name ends in a slash: {member.name!r}")
            others.append((path, member))
        elif path[-1] in (b".wh.", b".wh..", b".wh..."):
            raise ModelRefusal(f"not a whiteout: {member.name!r}")
        elif path[-1] == OPAQUE or not path[-1].startswith(AUFS):
            whiteouts.append(path)

    # Phase 1. All are found before any is removed, so that their order does not matter.
    hidden: list[tuple[Node, bytes]] = []
    for path in whiteouts:
        hidden += _hidden(root, path)
    for parent, name in hidden:
        parent.children.pop(name, None)

    # Phase 2.
    for path, member in others:
        if path:
            _add(root, path, member)
        elif member.kind == "dir":
            _set_attributes(root, member)
        else:
            raise ModelRefusal("a root that is no directory")


def _hidden(root: Node, path: list[bytes]) -> list[tuple[Node, bytes]]:
    """Return the names that a whiteout hides in the tree of the lower layers."""
    parents, name = path[:-1], path[-1]
    try:
        if name != OPAQUE:
            return [(_find_directory(root, parents), name[len(WHITEOUT) :])]
        directory = root
        if parents:  # the last component is not followed
            there = _find_directory(root, parents[:-1]).children.get(parents[-1])
            if there is None or there.kind != "dir":
                return []
            directory = there
    except (_NotThere, _TooManyLinks):
        return []
    return [(directory, child) for child in directory.children]


def _add(root: Node, path: list[bytes], member: Member) -> None:
    try:
        parent = _find_directory(root, path[:-1], create=True)
    except _NotThere as error:
        raise ModelRefusal(f"a parent is no directory: {member.name!r}") from error
    except _TooManyLinks as error:
        raise ModelRefusal(f"too many links: {member.name!r}") from error
    name = path[-1]
    there = parent.children.get(name)

    if member.kind == "link":
        directory, target = _find_link_target(root, member)
        if there is target:
            return
        # What is replaced is removed first, possibly with the directory of the target.
        if there is not None and _is_within(directory, there):
            raise ModelRefusal(f"hard link to what it replaces: {member.name!r}")
        parent.children[name] = target
        return

    if there is not None and there.kind == "dir" and member.kind == "dir":
        _set_attributes(there, member)
        return
    node = Node(member.kind)
    _set_attributes(node, member)
    if member.kind == "file":
        node.data = member.data
    if member.kind == "symlink":
        node.target = member.target
    if member.kind in ("char", "block"):
        node.rdev = member.rdev
    parent.children[name] = node


def _find_link_target(root: Node, member: Member) -> tuple[Node, Node]:
    """Return the directory of the target, with links in the path followed, and the target."""
    path = clean(member.target)
    if not path:
        raise ModelRefusal(f"hard link to the root: {member.name!r}")
    try:
        directory = _find_directory(root, path[:-1])
    except (_NotThere, _TooManyLinks) as error:
        raise ModelRefusal(f"hard link to nothing: {member.name!r}") from error
    target = directory.children.get(path[-1])
    if target is None:
        raise ModelRefusal(f"hard link to nothing: {member.name!r}")
    if target.kind == "dir":
        raise ModelRefusal(f"hard link to a directory: {member.name!r}")
    return directory, target


def _is_within(node: Node, top: Node) -> bool:
    return node is top or any(_is_within(node, child) for child in top.children.values())


def _find_directory(root: Node, path: list[bytes], create: bool = False) -> Node:
    """Return the directory at a path, following symbolic links as the kernel does in a chroot."""
    trail = [root]  # the directories we went through, for `..`
    waiting = list(path)
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part in (b"", b"."):
            continue
        if part == b"..":
            del trail[max(1, len(trail) - 1) :]
            continue
        here = trail[-1]
        there = here.children.get(part)
        if there is None:
            if not create:
                raise _NotThere
            there = here.children[part] = Node("dir")
        if there.kind == "symlink":
            links += 1
            if links > MOST_LINKS:
                raise _TooManyLinks
            if there.target.startswith(b"/"):
                trail = [root]
            waiting = there.target.split(b"/") + waiting
        elif there.kind == "dir":
            trail.append(there)
        else:
            raise _NotThere
    return trail[-1]


def _set_attributes(node: Node, member: Member) -> None:
    """Set all attributes; those that the entry does not have are removed."""
    if not (0 <= member.uid <= HIGHEST_OWNER and 0 <= member.gid <= HIGHEST_OWNER):
        raise ModelRefusal(f"impossible owner: {member.name!r}")
    # Linux has no modes for symbolic links.
    node.mode = 0o777 if node.kind == "symlink" else member.permissions & 0o7777
    node.uid, node.gid = member.uid, member.gid
    nanoseconds = Fraction(member.mtime) * 10**9
    node.mtime_ns = nanoseconds.numerator // nanoseconds.denominator
    # The kernel supports user.* only on files and directories.
    carries = node.kind in ("file", "dir")
    node.xattrs = {
        key: value
        for key, value in member.xattrs.items()
        if carries or not key.startswith(b"user.")
    }


def _records(root: Node) -> dict[bytes, Record]:
    paths: list[tuple[bytes, Node]] = []

    def collect(path: bytes, node: Node) -> None:
        paths.append((path or b".", node))
        for name, child in node.children.items():
            collect(path + b"/" + name if path else name, child)

    collect(b"", root)
    names: dict[Node, list[bytes]] = {}
    for path, node in paths:
        names.setdefault(node, []).append(path)
    return {
        path: Record(
            kind=node.kind,
            mode=node.mode,
            uid=node.uid,
            gid=node.gid,
            mtime_ns=node.mtime_ns,
            size=len(node.data),
            sha256=hashlib.sha256(node.data).hexdigest() if node.kind == "file" else None,
            target=node.target if node.kind == "symlink" else None,
            rdev=node.rdev if node.kind in ("char", "block") else None,
            links=() if node.kind == "dir" else tuple(sorted(names[node])),
            xattrs=node.xattrs,
        )
        for path, node in paths
    }
