"""Comparing two images: what was added, removed and changed, and in what."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator
from typing import Any

import msgspec

from ..limits import Limits
from ..spec.config import Config
from ..tar.names import as_text
from ..tar.stream import Data
from .contents import iter_chunks
from .nodes import HOST_XATTRS, Directory, Node, gone_with
from .operations import NoOperations
from .tree import Tree
from .walking import CurrentPath

__all__ = [
    "ConfigDifference",
    "Difference",
    "Snapshot",
    "Snapshots",
    "compare_configs",
]

#: Bytes of holes that are hashed as the zeros that they are. An image may have holes without end;
#: beyond this, files are the same only when their holes are.
_HOLES = 1 << 30


class Hashing(NoOperations):
    """Hashes the contents of files while they flow by, so that trees can be compared in one pass.

    Attributes:
        digests: the SHA-256 of each regular file's content.
    """

    def __init__(self, limits: Limits) -> None:
        """Begin with an empty tree.

        Args:
            limits: those of its snapshots.
        """
        self.digests: dict[Node, bytes] = {}
        self._limits = limits
        self._holes = _HOLES

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        hasher = hashlib.sha256()
        holes = node.size - node.stored_size
        self._holes -= holes
        # Files without holes are read in the same way on both sides, whatever came before them.
        if self._holes >= 0 or not holes:
            for piece in iter_chunks(node, data):
                hasher.update(piece)
        else:
            hasher.update(repr((node.size, node.segments)).encode())
            for piece in data.iter_chunks(node.stored_size):
                hasher.update(piece)
        self.digests[node] = hasher.digest()

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        for each in gone_with(node):
            self.digests.pop(each, None)

    def snapshot(self, root: Directory, *, last: bool = False) -> Snapshot:
        """Return a tree as it is now.

        Args:
            root: its root.
            last: whether no layer is applied to it any more; otherwise it is copied.
        """
        if last:
            return Snapshot(root, self.digests, self._limits)
        return Snapshot(_copied(root), self.digests.copy(), self._limits)


class Snapshots:
    """Takes snapshots of what some layers leave, in one pass over all of them.

    Attributes:
        taken: the snapshots by the number of the layer; 0: before the first one.
    """

    def __init__(self, numbers: Container[int], count: int, limits: Limits) -> None:
        """Begin.

        Args:
            numbers: the layers after which one is taken.
            count: how many layers there are.
            limits: those of the snapshots.
        """
        self._numbers = numbers
        self._count = count
        self._limits = limits
        self._hashing = Hashing(limits)
        self._applied = 0
        self.taken: dict[int, Snapshot] = {}

    def start(self) -> Hashing:
        """Begin, and again when the work starts over; return what is told what the tree does."""
        self._hashing = Hashing(self._limits)
        self._applied = 0
        self.taken = {0: Snapshot(Directory(None, b"", 0), {}, self._limits)}
        return self._hashing

    def look(self, tree: Tree) -> None:
        """See the tree as a layer has left it."""
        self._applied += 1
        if self._applied in self._numbers:
            last = self._applied == self._count
            self.taken[self._applied] = self._hashing.snapshot(tree.root, last=last)


class Snapshot(msgspec.Struct, frozen=True):
    """A file system with the digests of its files, to be compared with another.

    Attributes:
        root: its root.
        digests: the SHA-256 of the content of each regular file.
        limits: what its image may ask for; the paths of differences are held against it.
    """

    root: Directory
    digests: dict[Node, bytes]
    limits: Limits

    def __repr__(self) -> str:
        return f"<Snapshot files={len(self.digests)}>"

    def compare(
        self, after: Snapshot, *, mtime: bool = False, show: Callable[[bytes], str] = as_text
    ) -> Iterator[Difference]:
        """Compare it with another one.

        Args:
            after: the other.
            mtime: whether another modification time is a difference.
            show: turns a name of a path into text.

        Yields:
            The differences, sorted by path, what is in a directory after it.

        Raises:
            LimitExceeded: the paths have more bytes than they may.
        """
        current = CurrentPath(show, self.limits)
        todo: list[tuple[int, bytes, Node | None, Node | None]] = [(0, b"", self.root, after.root)]
        while todo:
            depth, name, old, new = todo.pop()
            if depth:
                current.move(depth - 1, name)
            what: list[str] = []
            if old is not None and new is not None:
                what = _changes(self, old, after, new, mtime)
            if what or old is None or new is None:
                change = "added" if old is None else "removed" if new is None else "changed"
                sizes = [side.size if side is not None else 0 for side in (old, new)]
                yield Difference(current.text(), change, tuple(what), *sizes)
            names: set[bytes] = set()
            for side in (old, new):
                if isinstance(side, Directory):
                    names.update(side.entries)
            todo += [
                (depth + 1, each, _entry(old, each), _entry(new, each))
                for each in sorted(names, reverse=True)
            ]


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


class ConfigDifference(msgspec.Struct, frozen=True):
    """How two configurations differ in one setting.

    Attributes:
        field: the setting, as config.md names it: ``Env``, ``Entrypoint``, ``architecture`` …
        name: which of them, where there are several: a variable's name, a label's key, a volume's
            path, a port; otherwise empty.
        change: ``added``, ``removed`` or ``changed``.
        before: its value; None: it is not set.
        after: its value after.
    """

    field: str
    name: str
    change: str
    before: Any
    after: Any


def _copied(root: Directory) -> Directory:
    top = Directory(None, b"", root.layer)
    top.copy_metadata(root)
    copies = {root: top}
    for parent, name, node in root.walk():
        copy = node
        if isinstance(node, Directory):
            copy = copies[node] = Directory(copies[parent], name, node.layer)
            copy.copy_metadata(node)
        copies[parent].entries[name] = copy
    return top


def _entry(node: Node | None, name: bytes) -> Node | None:
    return node.entries.get(name) if isinstance(node, Directory) else None


def _changes(before: Snapshot, old: Node, after: Snapshot, new: Node, mtime: bool) -> list[str]:
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


# Settings outside of the `config` object that decide what a container runs on. What is left out
# (created, author, history) says how the image was made, and what it makes is the file system.
_PLATFORM = ("os", "os.version", "os.features", "architecture", "variant")


def compare_configs(before: Config, after: Config) -> Iterator[ConfigDifference]:
    """Compare what containers of two images are started with.

    Args:
        before: the one.
        after: the other.

    Yields:
        The differences, in the order of the fields, and in a field by name.
    """
    old, new = _settings(before), _settings(after)
    order = [*_PLATFORM, *(each.encode_name for each in msgspec.structs.fields(before.config))]
    for field, name in sorted(old.keys() | new.keys(), key=lambda key: (order.index(key[0]), key)):
        one, other = old.get((field, name)), new.get((field, name))
        if one != other:
            change = "added" if one is None else "removed" if other is None else "changed"
            yield ConfigDifference(field, name, change, one, other)


def _settings(config: Config) -> dict[tuple[str, str], Any]:
    """Return what is set, by field and name; each variable, label, volume and port by its own."""
    document = msgspec.to_builtins(config)
    found = {(field, ""): document[field] for field in _PLATFORM if document.get(field)}
    for field, value in msgspec.to_builtins(config.config).items():
        if field == "Env":
            # The last one of a name is the one that a process gets.
            found |= {(field, each.partition("=")[0]): each.partition("=")[2] for each in value}
        elif isinstance(value, dict):
            found |= {(field, name): each for name, each in value.items()}
        else:
            found[field, ""] = value
    return found
