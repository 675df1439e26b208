"""A cache of directory descriptors: each is opened by one name in its parent."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict

from ...linux import OPEN_DIRECTORY
from ...rootfs.nodes import Directory
from .far import open_far

__all__ = ["DirFdCache"]

# Descriptors for everything else: the image, the staging directory, pipes.
_OTHERS = 16
# The number of unopened parents beyond which a directory is opened with open_far, and the number of
# the last parents that are still opened one by one.
_FAR = 16
_NEAR = 8


class DirFdCache:
    """Caches file descriptors of directories of the tree; the least recently used is closed first.

    The kernel resolves no symbolic link: it gets one name at a time with ``O_NOFOLLOW``, or a path
    with ``RESOLVE_NO_SYMLINKS`` (:func:`~.far.open_far`).
    """

    def __init__(self, root_fd: int, limit: int = 64) -> None:
        """Begin at a root.

        Args:
            root_fd: the root's descriptor; the caller keeps and closes it.
            limit: the maximum number of other open directories; fewer if RLIMIT_NOFILE is low.
        """
        self._root_fd = root_fd
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if allowed != resource.RLIM_INFINITY:
            limit = min(limit, max((allowed - _OTHERS) // 2, 1))
        self._limit = limit
        self._open: OrderedDict[Directory, int] = OrderedDict()
        self._last: Directory | None = None
        self._last_fd = -1
        # A descriptor that stays open while another one is opened.
        self._kept = -1

    def fd(self, directory: Directory) -> int:
        """Return a descriptor of a directory, valid until the next call.

        Raises:
            OSError: it cannot be opened.
        """
        # Entries of one directory usually follow each other.
        if directory is self._last:
            return self._last_fd
        self._last = None  # it may be closed to open another one
        self._last_fd = self._find(directory)
        self._last = directory
        return self._last_fd

    def two(self, one: Directory, other: Directory) -> tuple[int, int]:
        """Return descriptors of two directories, valid until the next call.

        Raises:
            OSError: one of them cannot be opened.
        """
        self._kept = self.fd(one)
        try:
            return self._kept, self.fd(other)
        finally:
            self._kept = -1

    def spare(self, *used: int) -> bool:
        """Close the least recently used directory; return whether there was one.

        Args:
            used: descriptors that stay open.
        """
        for directory, fd in self._open.items():
            if fd != self._kept and fd not in used:
                self.forget(directory)
                return True
        return False

    def _find(self, directory: Directory) -> int:
        found = self._open.get(directory)
        if found is not None:
            self._open.move_to_end(directory)
            return found
        missing: list[Directory] = []
        node: Directory | None = directory
        fd = self._root_fd
        while node is not None and node.parent is not None:
            known = self._open.get(node)
            if known is not None:
                fd = known
                self._open.move_to_end(node)
                break
            missing.append(node)
            node = node.parent
        if len(missing) > _FAR:
            # Only the nearest parents are opened: they are often needed next.
            near = max(_NEAR, len(missing) // 64)
            reached = open_far(fd, [node.name for node in missing[: near - 1 : -1]])
            if reached is not None:
                fd = reached
                self._keep(missing[near], fd)
                del missing[near:]
        for node in reversed(missing):
            fd = self._open_below(fd, node.name)
            self._keep(node, fd)
        return fd

    def _keep(self, directory: Directory, fd: int) -> None:
        self._open[directory] = fd
        if len(self._open) > self._limit:
            self.spare(fd)

    def _open_below(self, fd: int, name: bytes) -> int:
        while True:
            try:
                return os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno != errno.EMFILE or not self.spare(fd):
                    raise

    def forget(self, directory: Directory) -> None:
        """Close the descriptor of a directory that is removed."""
        self._last = None
        fd = self._open.pop(directory, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close all of them."""
        self._last = None
        while self._open:
            os.close(self._open.popitem()[1])
