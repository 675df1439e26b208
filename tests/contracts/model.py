"""The plain tree that the suites compare with, and how it is changed step by step.

It holds the records that outputs are given (`Directory` and `Node`), because that is their
interface, and the content of each file. What an output should hold in the end is worked out from
these alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ociroot.rootfs.nodes import Directory, Node
from ociroot.rootfs.operations import NoOperations, Operations
from ociroot.tar.entry import Kind
from ociroot.tar.stream import ChunkStream, Stream
from tests.support.snapshot import Record, Snapshot

# Of the host, and not of the image: no output has them.
HOST = (b"security.selinux", b"trusted.overlay.opaque", b"user.overlay.opaque")
Runs = list[tuple[int, int]]


class Model:
    """A tree that is made step by step; each step is carried out by an output, too."""

    def __init__(self, output: Operations | None = None) -> None:
        self.output: Operations = output if output is not None else NoOperations()
        self.root = Directory(None, b"", 0)
        #: The stored bytes of each file: all but the holes.
        self.contents: dict[Node, bytes] = {}

    def directory(self, path: bytes, **attributes: Any) -> Directory:
        parent, name = self._place(path)
        directory = Directory(parent, name, 0)
        describe(directory, attributes)
        self.output.make_directory(directory)
        parent.entries[name] = directory
        return directory

    def file(
        self,
        path: bytes,
        data: bytes = b"",
        *,
        runs: Runs | None = None,
        size: int = 0,
        **more: Any,
    ) -> Node:
        """A regular file; with `runs` a sparse one of `size` bytes, and `data` what is stored."""
        parent, name = self._place(path)
        node = Node("file", 0)
        describe(node, more)
        node.segments = runs
        node.size = size if runs is not None else len(data)
        self.contents[node] = data
        stream = in_pieces(data)
        self.output.make_file(parent, name, node, stream)
        assert stream.position <= node.stored_size, "it has read more than the file's content"
        parent.entries[name] = node
        return node

    def other(
        self,
        path: bytes,
        kind: Kind,
        target: bytes = b"",
        rdev: tuple[int, int] = (0, 0),
        **attributes: Any,
    ) -> Node:
        parent, name = self._place(path)
        node = Node(kind, 0)
        describe(node, attributes)
        node.target, node.rdev = target, rdev
        self.output.make_other(parent, name, node)
        parent.entries[name] = node
        return node

    def link(self, path: bytes, target: bytes) -> None:
        parent, name = self._place(path)
        holder, there = self._place(target)
        node = holder.entries[there]
        self.output.make_link(parent, name, node, (holder, there))
        parent.entries[name] = node
        node.links += 1

    def remove(self, path: bytes) -> None:
        parent, name = self._place(path)
        node = parent.entries[name]
        self.output.remove(parent, name, node)
        del parent.entries[name]
        below = node.walk() if isinstance(node, Directory) else ()
        for each in [node, *(child for _, _, child in below)]:
            each.links -= 1

    def _place(self, path: bytes) -> tuple[Directory, bytes]:
        head, _, name = path.rpartition(b"/")
        parent = self.root
        for each in filter(None, head.split(b"/")):
            found = parent.entries[each]
            assert isinstance(found, Directory)
            parent = found
        return parent, name

    def snapshot(self) -> Snapshot:
        """What an output of it should hold."""
        return expected(self.root, self.contents)

    def data(self, node: Node) -> ChunkStream:
        """A file's content, at any time."""
        return in_pieces(self.contents[node])

    def layers(self, nodes: Iterable[Node]) -> Iterator[tuple[Node, Stream]]:
        """Files' contents in the order in which layers could hold them: not that of the tree.

        As for a layer, there is one stream, that of the file in hand.
        """
        asked = set(nodes)
        for node in reversed(self.contents):
            if node in asked:
                yield node, self.data(node)


def describe(node: Node, attributes: dict[str, Any]) -> None:
    """Give a node these attributes, and otherwise such as no default is."""
    node.mode, node.uid, node.gid, node.mtime_ns = 0o640, 3, 4, 1_234_567_890_123_456_789
    if node.kind == "symlink":
        node.mode = 0o777
    for name, value in attributes.items():
        setattr(node, name, value)


def in_pieces(data: bytes, size: int = 1000) -> ChunkStream:
    """A stream of pieces of this size, so that some files lie in several."""
    return ChunkStream(data[at : at + size] for at in range(0, len(data), size))


def expected(root: Directory, contents: dict[Node, bytes]) -> Snapshot:
    """What an output of a tree should hold."""
    names: dict[Node, list[bytes]] = {}
    for parent, name, node in root.walk():
        names.setdefault(node, []).append(parent.path_of(name))
    records = {b".": _record(root, b"", ())}
    for node, paths in names.items():
        links = () if isinstance(node, Directory) else tuple(sorted(paths))
        for path in paths:
            records[path] = _record(node, contents.get(node, b""), links)
    return records


def _record(node: Node, stored: bytes, links: tuple[bytes, ...]) -> Record:
    digest = hashlib.sha256()
    at = 0
    if node.kind == "file":
        position = 0
        for offset, length in node.segments if node.segments is not None else [(0, node.size)]:
            _zeros(digest, offset - at)
            digest.update(stored[position : position + length])
            position += length
            at = offset + length
        _zeros(digest, node.size - at)
    return Record(
        kind=node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        size=node.size,
        sha256=digest.hexdigest() if node.kind == "file" else None,
        target=node.target if node.kind == "symlink" else None,
        rdev=node.rdev if node.kind in ("char", "block") else None,
        links=links,
        xattrs={n: v for n, v in (node.xattrs or {}).items() if n not in HOST},
    )


def _zeros(digest: Any, length: int) -> None:
    block = bytes(1 << 20)
    while length:
        part = min(length, len(block))
        digest.update(block[:part])
        length -= part


# -- Random sequences ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step; which directory and which link target it is about are numbers, taken modulo."""

    what: str
    where: int
    name: bytes
    source: int = 0
    data: bytes = b""
    attributes: dict[str, Any] = field(default_factory=dict)


NAMES = [b"a", b"b", b"c", b"\xff\xfe", b"n" * 255]
_ATTRIBUTES = st.fixed_dictionaries(
    {
        "mode": st.sampled_from([0o644, 0o755, 0, 0o4755, 0o2711, 0o1777, 0o7777]),
        "uid": st.sampled_from([0, 1000, 2**32 - 2]),
        "gid": st.sampled_from([0, 7]),
        "mtime_ns": st.sampled_from([0, 1, 10**9, -1, 1_234_567_890_123_456_789]),
    }
)
_XATTRS = st.sampled_from([None, {b"user.k": b"v\0"}, {HOST[0]: b"x", b"user.\xff": b""}])
_DATA = st.sampled_from([b"", b"x", b"y" * 1500, b"z" * 70_000])
_WHAT = ["dir"] * 4 + ["file"] * 4 + ["symlink", "fifo", "char", "link", "link", "remove", "remove"]


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    found = []
    for _ in range(draw(st.integers(0, 25))):
        what = draw(st.sampled_from(_WHAT))
        attributes: dict[str, Any] = draw(_ATTRIBUTES) if what not in ("link", "remove") else {}
        if what in ("dir", "file"):
            attributes["xattrs"] = draw(_XATTRS)
        if what == "symlink":
            del attributes["mode"]
        data = draw(_DATA) if what == "file" else b""
        where, name = draw(st.integers(0, 50)), draw(st.sampled_from(NAMES))
        found.append(Step(what, where, name, draw(st.integers(0, 50)), data, attributes))
    return found


def take(model: Model, step: Step) -> None:
    """Take a step, as the tree would: what is in the way is removed first."""
    directories = [model.root, *(n for _, _, n in model.root.walk() if isinstance(n, Directory))]
    parent = directories[step.where % len(directories)]
    path = parent.path_of(step.name)
    old = parent.entries.get(step.name)
    if step.what == "dir" and isinstance(old, Directory):
        describe(old, step.attributes)  # its attributes are replaced, and on disk nothing is done
        return
    if old is not None:
        model.remove(path)
    if step.what == "dir":
        model.directory(path, **step.attributes)
    elif step.what == "file":
        model.file(path, step.data, **step.attributes)
    elif step.what == "symlink":
        model.other(path, "symlink", b"../\xff", **step.attributes)
    elif step.what == "fifo":
        model.other(path, "fifo", **step.attributes)
    elif step.what == "char":
        model.other(path, "char", rdev=(1, 3), **step.attributes)
    elif step.what == "link":
        there = [(p, n) for p, n, node in model.root.walk() if not isinstance(node, Directory)]
        if there:
            holder, name = there[step.source % len(there)]
            model.link(path, holder.path_of(name))
