"""Directories by handle: each is opened by one name in its parent, and the last few stay open."""

from __future__ import annotations

import errno
import os
import resource
from collections import OrderedDict

from ...linux import OPEN_DIRECTORY
from ...rootfs.nodes import Directory
from .far import open_far

__all__ = ["DirFdCache"]

# Descriptors for all that is no directory of the tree: the image, the staging directory, pipes.
_OTHERS = 16
# Directories on the way to another one beyond which it is opened from far above, and how many of
# the last of them are opened one by one all the same.
_FAR = 16
_NEAR = 8


class DirFdCache:
    """File descriptors of directories of the tree, least recently used ones closed first.

    There is nothing for the kernel to resolve: it gets one name at a time, with ``O_NOFOLLOW``, or
    a path of which it is told to follow no symbolic link whatsoever (:func:`~.far.open_far`).
    """

    def __init__(self, root_fd: int, limit: int = 64) -> None:
        """Begin at a root.

        Args:
            root_fd: the root's descriptor, which stays its owner's.
            limit: how many others to keep open at most; fewer where this process may have few.
        """
        self._root_fd = root_fd
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if allowed != resource.RLIM_INFINITY:
            limit = min(limit, max((allowed - _OTHERS) // 2, 1))
        self._limit = limit
        self._open: OrderedDict[Directory, int] = OrderedDict()
        self._last: Directory | None = None
        self._last_fd = -1
        # One that stays open while another is looked for.
        self._kept = -1

    def fd(self, directory: Directory) -> int:
        """Return a descriptor of a directory, valid until the next call.

        Raises:
            OSError: what the kernel says to opening it.
        """
        # Entries come directory by directory.
        if directory is self._last:
            return self._last_fd
        self._last = None  # which another may close
        self._last_fd = self._find(directory)
        self._last = directory
        return self._last_fd

    def two(self, one: Directory, other: Directory) -> tuple[int, int]:
        """Return descriptors of two directories, valid until the next call.

        Raises:
            OSError: what the kernel says to opening one of them.
        """
        self._kept = self.fd(one)
        try:
            return self._kept, self.fd(other)
        finally:
            self._kept = -1

    def spare(self, *used: int) -> bool:
        """Close the directory that was used least recently; say whether there was one.

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
            # Not all of the way is kept open; but what is near is often wanted next.
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
        """Close the descriptor of a directory that goes away."""
        self._last = None
        fd = self._open.pop(directory, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close all of them."""
        self._last = None
        while self._open:
            os.close(self._open.popitem()[1])
