"""An output of the tests' own: it keeps everything in memory, and asserts what it may rely on."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import replace

from ociroot.errors import DestinationError
from ociroot.rootfs.contents import iter_chunks
from ociroot.rootfs.nodes import Directory, Node
from ociroot.tar.stream import Data
from tests.support.snapshot import Record, Snapshot

from .model import HOST


class MemoryOutput:
    """Operations and a sink; what it is asked for is held against the contract."""

    def __init__(self, *, in_tree_order: bool = True, capacity: int | None = None) -> None:
        self.in_tree_order = in_tree_order
        #: The paths in the order in which they were made; b"." is the root.
        self.order: list[bytes] = []
        self.finished = False
        self._capacity = capacity
        self._inodes: dict[bytes, Record] = {}
        # The path by which each inode was made, by each path that it has.
        self._first: dict[bytes, bytes] = {}

    def make_directory(self, directory: Directory) -> None:
        if directory.parent is None:
            assert not self.order, "the root comes first"
            self.order.append(b".")
            return
        self._make(directory.parent, directory.name, directory, "")

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        digest = hashlib.sha256()
        size = 0
        for chunk in iter_chunks(node, data):
            digest.update(chunk)
            size += len(chunk)
        assert size == node.size
        self._make(parent, name, node, digest.hexdigest())

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        assert node.kind in ("symlink", "fifo", "char", "block")
        self._make(parent, name, node, "")

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        there = at[0].path_of(at[1])
        assert there in self._inodes, "a link to what has not been made"
        path = self._new(parent, name)
        self._inodes[path] = self._inodes[there]
        self._first[path] = self._first[there]

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        path = parent.path_of(name)
        assert path in self._inodes, "nothing is there to be removed"
        for each in [each for each in self._inodes if (each + b"/").startswith(path + b"/")]:
            del self._inodes[each], self._first[each]

    def finish(self, root: Directory) -> None:
        assert not self.finished
        self.finished = True
        for directory in root.directories_up():
            path = directory.path() or b"."
            self._inodes[path] = _record(directory, "")

    def snapshot(self) -> Snapshot:
        names: dict[bytes, list[bytes]] = {}
        for path, first in self._first.items():
            names.setdefault(first, []).append(path)
        return {
            path: record
            if record.kind == "dir"
            else replace(record, links=tuple(sorted(names[self._first[path]])))
            for path, record in self._inodes.items()
        }

    def _make(self, parent: Directory, name: bytes, node: Node, digest: str) -> None:
        path = self._new(parent, name)
        if self._capacity is not None:
            self._capacity -= node.stored_size
            if self._capacity < 0:
                raise DestinationError("it is full", member=path, errno=errno.ENOSPC)
        self._inodes[path] = _record(node, digest)
        # Not the path alone, which another inode may have had before.
        self._first[path] = b"%d " % len(self.order) + path

    def _new(self, parent: Directory, name: bytes) -> bytes:
        assert not self.finished
        assert name not in (b"", b".", b"..")
        assert b"/" not in name
        path = parent.path_of(name)
        assert path not in self._inodes, "something has the name already"
        if parent.parent is not None:
            assert self._inodes[parent.path()].kind == "dir"
        self.order.append(path)
        return path


def _record(node: Node, digest: str) -> Record:
    return Record(
        kind=node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        size=node.size,
        sha256=digest or None,
        target=node.target if node.kind == "symlink" else None,
        rdev=node.rdev if node.kind in ("char", "block") else None,
        links=(),
        xattrs={n: v for n, v in (node.xattrs or {}).items() if n not in HOST},
    )
