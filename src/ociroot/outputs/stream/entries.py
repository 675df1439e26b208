"""What tar and cpio have in common: bytes are gathered, paths and holes are bounded."""

from __future__ import annotations

from ...limits import RATIO_FROM
from ...rootfs.nodes import Directory, Node
from .options import SinkOptions, Write

__all__ = ["EntryPaths", "GatheredOutput"]

# Bytes that are gathered before they are written.
_GATHERED = 1 << 20


class GatheredOutput:
    """Gathers headers and small files, so that few calls write them.

    Attributes:
        size: bytes that have been written.
    """

    def __init__(self, write: Write, large: int = _GATHERED) -> None:
        """Begin with nothing.

        Args:
            write: called with the next bytes.
            large: bytes of a piece that is written as it is.
        """
        self._write = write
        self._large = large
        self._buffer = bytearray()
        self.size = 0

    @property
    def position(self) -> int:
        """The bytes of the archive so far, written or not."""
        return self.size + len(self._buffer)

    def put(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        if len(data) >= self._large:
            self.flush()
            self.size += len(data)
            self._write(data)
            return
        self._buffer += data
        if len(self._buffer) >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        if self._buffer:
            self.size += len(self._buffer)
            self._write(self._buffer)
            self._buffer = bytearray()


class EntryPaths:
    """Makes the paths of entries, and holds them and expanded holes against the limits."""

    def __init__(self, root: bytes, options: SinkOptions) -> None:
        """Begin at the root.

        Args:
            root: what each path begins with.
            options: have the limits.
        """
        self._root = root
        self._limits = options.limits
        self._most = options.unpacked * options.limits.ratio
        self._directory: Directory | None = None
        self._prefix = root
        self._paths = self._expanded = 0

    def of(self, directory: Directory, name: bytes) -> bytes:
        """Return the path of a name in a directory, and count it.

        Raises:
            LimitExceeded: the paths have more bytes than a listing may have.
        """
        if directory is not self._directory:
            self._prefix = self._prefix_of(directory)
            self._directory = directory
        path = self._prefix + name
        self.count(path)
        return path

    def _prefix_of(self, directory: Directory) -> bytes:
        """Return the path of a directory, which mostly is near the one of the entry before.

        A path may have thousands of names, and each directory there be one of thousands.
        """
        near, cut = self._directory, 0
        if near is not None and directory.parent is near:
            return self._prefix + directory.name + b"/"
        while near is not None and near.depth > directory.depth:
            cut += len(near.name) + 1
            near = near.parent
        if near is directory:
            return self._prefix[: len(self._prefix) - cut]
        path = directory.path()
        return self._root + path + b"/" if path else self._root

    def count(self, path: bytes) -> None:
        """Hold the paths against the limit: a few kilobytes can have a million, each as long."""
        self._paths += len(path)
        if self._paths > self._limits.listing:
            raise self._limits.exceeded("listing")

    def count_holes(self, node: Node) -> None:
        """Hold what holes expand to against the limit on what comes out of compressed data."""
        self._expanded += node.size - node.stored_size
        if self._expanded > RATIO_FROM and self._expanded > self._most:
            raise self._limits.exceeded("ratio")
