"""The nodes of the tree: inodes, and directories with their entries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..errors import printable
from ..space import occupied
from ..tar.entry import FILE_TYPES, Entry, Kind
from ..tar.sparse import Segments

__all__ = ["HOST_XATTRS", "WEIGHT", "Directory", "Node", "gone_with", "weight", "xattrs_weight"]

#: Extended attributes that are not extracted, because they belong to the host on which the image
#: was built: SELinux labels, and those of overlayfs, in `user.` with the option `userxattr`.
HOST_XATTRS = (b"security.selinux", b"trusted.overlay.", b"user.overlay.")


Xattrs = dict[bytes, bytes]

# The maximum length of a path in a ``repr``, in bytes.
_SHOWN = 200


#: Approximate bytes of memory of a name in the tree and its node, without the variable parts.
WEIGHT = 350


class Node:
    """An inode: a file of any type; hard links share it.

    Attributes:
        kind: the file type, never ``link``.
        mode: the permission, set-id and sticky bits.
        uid: the owner.
        gid: the group.
        mtime_ns: the modification time, in nanoseconds since 1970.
        xattrs: extended attributes, or None.
        layer: the number of the layer that added it, from 1; for a directory, the last layer that
            added it or anything below it. 0: none, as for the root of an empty tree.
        links: the number of its names.
        size: bytes of a regular file.
        offset: the offset of a regular file's data, in bytes of its layer's uncompressed content.
        segments: for a sparse file, where the stored bytes belong; otherwise None.
        target: the target of a symbolic link.
        rdev: the major and minor number of a device.
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
        """The bytes of a regular file that its layer stores: without holes."""
        return self.size if self.segments is None else sum(length for _, length in self.segments)

    @property
    def space(self) -> int:
        """The bytes of disk that a regular file counts as.

        That is its size, without the rest of its last block, which depends on the file system. A
        sparse file counts all blocks with data: a run of a single byte takes a block.
        """
        return self.size if self.segments is None else occupied(self.segments)

    @classmethod
    def of(cls, entry: Entry, layer: int) -> Node:
        """Return the node for an entry of a layer, without the attributes of its type."""
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
        """Copy the attributes of an entry."""
        self.mode = entry.mode
        self.uid = entry.uid
        self.gid = entry.gid
        self.mtime_ns = entry.mtime_ns
        self.xattrs = entry.xattrs


class Directory(Node):
    """A directory.

    Attributes:
        entries: the nodes in it, by name.
        parent: its parent directory; None for the root.
        name: its name in the parent.
        own: the number of the last layer with an entry for the directory itself; 0: none.
        depth: the number of its parents.
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

    def copy_metadata(self, other: Node) -> None:
        """Copy the attributes of another directory."""
        self.mode, self.uid, self.gid = other.mode, other.uid, other.gid
        self.mtime_ns, self.xattrs = other.mtime_ns, other.xattrs

    def reset_metadata(self) -> None:
        """Set the attributes of a directory without an entry: 0755, 0:0, time 0."""
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
        """Yield everything below it as (parent, name, node), parents before children."""
        todo = [self]
        while todo:
            parent = todo.pop()
            for name, node in parent.entries.items():
                yield parent, name, node
                if isinstance(node, Directory):
                    todo.append(node)

    def directories_up(self) -> Iterator[Directory]:
        """Yield it and all directories below it, children before parents."""
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
    """Return the approximate bytes of memory of a name in the tree and its node."""
    weight = WEIGHT + len(name) + len(node.target)
    if node.xattrs:
        weight += xattrs_weight(node)
    return weight + 128 * len(node.segments) if node.segments else weight


def xattrs_weight(node: Node) -> int:
    """Return the approximate bytes of memory of a node's extended attributes."""
    if not node.xattrs:
        return 0
    return sum(200 + len(name) + len(value) for name, value in node.xattrs.items())


def gone_with(node: Node) -> Iterator[Node]:
    """Yield the nodes that lose their last name when a name of a node is removed.

    For a directory that includes everything below it. It must be called before the tree updates
    the link counts, as in :meth:`Operations.remove`.
    """
    names: dict[Node, int] = {}
    below = (child for _, _, child in node.walk()) if isinstance(node, Directory) else ()
    for each in chain((node,), below):
        if each.links > 1:
            names[each] = names.get(each, 0) + 1
            if names[each] < each.links:
                continue
        yield each
