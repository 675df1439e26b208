"""A finished tree as a cpio archive in the format newc, which the kernel takes as an initramfs.

The kernel's documentation, driver-api/early-userspace/buffer-format, has the format: a header of
hexadecimal numbers, the name, the data, each padded to four bytes. Names that are hard links have
one inode number, and their data comes with the first of them: "It is not necessary (but permitted)
to include a second copy of the file contents; if the file contents is not included, the c_filesize
field should be set to zero". Symbolic links repeat their target: "c_filesize must not be zero for a
symlink". The kernel skips a name of more than PATH_MAX bytes without a word, so it is refused.
"""

from __future__ import annotations

from ...errors import Unsupported
from ...rootfs.contents import iter_chunks
from ...rootfs.nodes import Directory, Node
from ...tar.stream import Data
from .entries import EntryPaths, GatheredOutput
from .fitting import Fitting
from .options import SinkOptions, Write

__all__ = ["CpioSink"]

_MAGIC = b"070701"
_TRAILER = b"TRAILER!!!"
_KINDS = {
    "fifo": 0o010000,
    "char": 0o020000,
    "dir": 0o040000,
    "block": 0o060000,
    "file": 0o100000,
    "symlink": 0o120000,
}
# A number in a header, of 32 bits.
_MAX = (1 << 32) - 1
# PATH_MAX, with the NUL at the end.
_MAX_PATH = 4096
# GNU cpio and bsdcpio pad archives to a multiple of it.
_RECORD = 512
_BILLION = 10**9


class CpioSink:
    """Writes a tree as a cpio archive; see :class:`~ociroot.outputs.sink.Sink`.

    Attributes:
        in_tree_order: see :class:`~ociroot.outputs.sink.Sink`.
    """

    def __init__(self, write: Write, options: SinkOptions) -> None:
        """Begin an archive.

        Args:
            write: called with the next bytes.
            options: what the output is like. Sparse files are expanded: the format has no holes.
        """
        self._output = GatheredOutput(write)
        self._put = self._output.put
        self._paths = EntryPaths(b"", options)
        self._fitting = Fitting(options)
        self.in_tree_order = options.in_tree_order
        self._inodes: dict[Node, int] = {}
        self._last_inode = 0

    @property
    def size(self) -> int:
        """Bytes that have been written."""
        return self._output.size

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        parent = directory.parent
        path = b"." if parent is None else self._path(parent, directory.name)
        # What has a second name counts as such, and a directory has its `.`.
        self._header(path, self._fitting.fit(directory, path), self._inode(), 2)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        path = self._path(parent, name)
        if node.size > _MAX:
            raise Unsupported(
                f"a cpio archive cannot hold a file of {node.size} bytes", member=path
            )
        self._paths.count_holes(node)
        self._header(path, self._fitting.fit(node, path), self._inode(node), node.links, node.size)
        piece = data.try_read(node.size) if node.segments is None else None
        for each in iter_chunks(node, data) if piece is None else (piece,):
            self._put(each)
        self._put(bytes(-node.size % 4))

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        path = self._path(parent, name)
        self._other(path, self._fitting.fit(node, path), self._inode(node))

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        path = self._path(parent, name)
        self._other(path, self._fitting.fit(node, path, quiet=True), self._inodes[node])

    def finish(self, root: Directory) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._put(_header(_TRAILER, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        self._put(bytes(-self._output.position % _RECORD))
        self._output.flush()

    def _other(self, path: bytes, node: Node, inode: int) -> None:
        """Write an entry without data, but for the target of a symbolic link."""
        target = node.target if node.kind == "symlink" else b""
        if len(target) >= _MAX_PATH:
            raise Unsupported(
                "its target is too long for the kernel in a cpio archive", member=path
            )
        self._header(path, node, inode, node.links, len(target))
        self._put(target + bytes(-len(target) % 4))

    def _header(self, path: bytes, node: Node, inode: int, links: int, size: int = 0) -> None:
        mode = _KINDS[node.kind] | node.mode
        major, minor = node.rdev if node.kind in ("char", "block") else (0, 0)
        time = node.mtime_ns // _BILLION
        numbers = [inode, mode, node.uid, node.gid, links, time, size, 0, 0, major, minor]
        self._put(_header(path, numbers))

    def _inode(self, node: Node | None = None) -> int:
        """Return the number of a new inode, and keep it for the further names of a node."""
        self._last_inode += 1
        if node is not None and node.links > 1:
            self._inodes[node] = self._last_inode
        return self._last_inode

    def _path(self, directory: Directory, name: bytes) -> bytes:
        path = self._paths.of(directory, name)
        if path == _TRAILER:
            path = b"./" + path  # the name alone is the archive's end
        if len(path) >= _MAX_PATH:
            raise Unsupported(
                "its path is too long for the kernel in a cpio archive, which would skip it",
                member=path,
            )
        return path


def _header(path: bytes, numbers: list[int]) -> bytes:
    """Return a header with the name, padded: the numbers from c_ino to c_rmin."""
    text = _MAGIC + b"".join(b"%08X" % each for each in (*numbers, len(path) + 1, 0))
    return text + path + bytes(1 + -(len(text) + len(path) + 1) % 4)
