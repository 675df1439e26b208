"""The records of the tree: inodes, and directories with the names in them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..errors import printable
from ..space import occupied
from ..tar.entry import FILE_TYPES, Entry, Kind
from ..tar.sparse import Segments

__all__ = ["HOST_XATTRS", "WEIGHT", "Directory", "Node", "gone_with", "weight", "xattrs_weight"]

#: Extended attributes that are left out: they are not of the image but of the host it was made on,
#: SELinux's labels and the records of overlayfs, which are `user.` where it is mounted `userxattr`.
HOST_XATTRS = (b"security.selinux", b"trusted.overlay.", b"user.overlay.")


Xattrs = dict[bytes, bytes]

# Bytes of a path that its representation shows.
_SHOWN = 200


#: Bytes of memory that a name in the tree takes, roughly, with its node and without what varies.
WEIGHT = 350


class Node:
    """An inode: a file of any kind; names that are hard links share one.

    Attributes:
        kind: the type of file, never ``link``.
        mode: the permission, set-id and sticky bits.
        uid: the owner.
        gid: the group.
        mtime_ns: the modification time, in nanoseconds since 1970.
        xattrs: extended attributes, or None.
        layer: the number of the layer that brought it, from 1; of a directory, of the last one that
            brought it or something below it. 0: no layer did, as of the root of an empty tree.
        links: how many names it has.
        size: bytes, of a regular file.
        offset: where a regular file's data begins, in bytes of its layer's uncompressed content.
        segments: where in a sparse file the stored bytes belong; otherwise None.
        target: what a symbolic link points to.
        rdev: major and minor number of a device.
    """

    __slots__ = (
        "gid",
        "kind",
        "layer",
        "links",
        "mode",
        "mtime_ns",
        "offset",
        "rdev",
        "segments",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: Kind, layer: int) -> None:
        self.kind = kind
        self.layer = layer
        self.links = 1
        self.size = 0
        self.offset = 0
        self.segments: Segments | None = None
        self.target = b""
        self.rdev = (0, 0)
        self.mode = 0o755
        self.uid = self.gid = self.mtime_ns = 0
        self.xattrs: Xattrs | None = None

    def __repr__(self) -> str:
        what = f"size={self.size} " if self.kind == "file" else ""
        return f"<Node {self.kind} {what}mode={self.mode:04o} {self.uid}:{self.gid}>"

    @property
    def st_mode(self) -> int:
        """The mode with the file type, as stat(2) has it and ``stat.filemode`` takes it."""
        return FILE_TYPES[self.kind] | self.mode

    @property
    def stored_size(self) -> int:
        """How many bytes of a regular file its layer stores: all but the holes."""
        return self.size if self.segments is None else sum(length for _, length in self.segments)

    @property
    def space(self) -> int:
        """How many bytes of disk a regular file is counted as.

        Its size: what is lost of its last block is not the image's to say. But runs of single bytes
        in a sparse file take a block each, so there all blocks count that hold a byte.
        """
        return self.size if self.segments is None else occupied(self.segments)

    @classmethod
    def of(cls, entry: Entry, layer: int) -> Node:
        """Return the node that an entry of a layer makes, without what is special to its kind."""
        node = cls.__new__(cls)
        node.kind = entry.kind
        node.layer = layer
        node.links = 1
        node.size = node.offset = 0
        node.segments = None
        node.target = b""
        node.rdev = entry.rdev
        node.mode = entry.mode
        node.uid = entry.uid
        node.gid = entry.gid
        node.mtime_ns = entry.mtime_ns
        node.xattrs = entry.xattrs
        return node

    def set_metadata(self, entry: Entry) -> None:
        """Take the attributes of an entry."""
        self.mode = entry.mode
        self.uid = entry.uid
        self.gid = entry.gid
        self.mtime_ns = entry.mtime_ns
        self.xattrs = entry.xattrs


class Directory(Node):
    """A directory.

    Attributes:
        entries: what is in it, by name.
        parent: the directory that it is in; None for the root.
        name: its name there.
        own: the number of the last layer that had an entry for the directory itself; 0: none had.
        depth: how many directories it is in.
    """

    __slots__ = ("depth", "entries", "name", "own", "parent")

    def __init__(self, parent: Directory | None, name: bytes, layer: int) -> None:
        super().__init__("dir", layer)
        self.parent = parent
        self.name = name
        self.entries: dict[bytes, Node] = {}
        self.own = 0
        self.depth: int = parent.depth + 1 if parent is not None else 0

    def __repr__(self) -> str:
        return f"<Directory /{printable(self.path()[:_SHOWN])} entries={len(self.entries)}>"

    def copy_metadata(self, other: Directory) -> None:
        """Take the attributes of another directory."""
        self.mode, self.uid, self.gid = other.mode, other.uid, other.gid
        self.mtime_ns, self.xattrs = other.mtime_ns, other.xattrs

    def reset_metadata(self) -> None:
        """Take the attributes of a directory that no entry speaks of: 0755, 0:0, the time 0."""
        self.mode = 0o755
        self.uid = self.gid = self.mtime_ns = 0
        self.xattrs = None
        self.own = 0

    def path(self) -> bytes:
        """Return its path inside the root, without a leading ``/``."""
        names: list[bytes] = []
        node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return b"/".join(reversed(names))

    def walk(self) -> Iterator[tuple[Directory, bytes, Node]]:
        """Yield all that is below it: the parent, the name, the node; parents before children."""
        todo = [self]
        while todo:
            parent = todo.pop()
            for name, node in parent.entries.items():
                yield parent, name, node
                if isinstance(node, Directory):
                    todo.append(node)

    def directories_up(self) -> Iterator[Directory]:
        """Yield it and all directories below it, each after those that are in it."""
        todo = [(self, False)]
        while todo:
            directory, visited = todo.pop()
            if visited:
                yield directory
                continue
            todo.append((directory, True))
            todo += [
                (child, False)
                for child in directory.entries.values()
                if isinstance(child, Directory)
            ]

    def path_of(self, name: bytes) -> bytes:
        """Return the path of a name in it."""
        path = self.path()
        return path + b"/" + name if path else name


def weight(name: bytes, node: Node) -> int:
    """Return how many bytes of memory a name in the tree takes, with its node, roughly."""
    weight = WEIGHT + len(name) + len(node.target)
    if node.xattrs:
        weight += xattrs_weight(node)
    return weight + 128 * len(node.segments) if node.segments else weight


def xattrs_weight(node: Node) -> int:
    """Return how many of them its extended attributes take."""
    if not node.xattrs:
        return 0
    return sum(200 + len(name) + len(value) for name, value in node.xattrs.items())


def gone_with(node: Node) -> Iterator[Node]:
    """Yield what has no name any more when a name of a node is removed, with all that is below it.

    To be asked before the tree counts the names down: from :meth:`Operations.remove`.
    """
    names: dict[Node, int] = {}
    below = (child for _, _, child in node.walk()) if isinstance(node, Directory) else ()
    for each in chain((node,), below):
        if each.links > 1:
            names[each] = names.get(each, 0) + 1
            if names[each] < each.links:
                continue
        yield each
