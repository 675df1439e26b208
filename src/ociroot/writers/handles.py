"""Directories by handle: each is opened by one name in its parent, and the last few stay open."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict

from ..nodes import Directory

__all__ = ["Handles"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Handles:
    """File descriptors of directories of the tree, least recently used ones closed first.

    A path is never given to the kernel: with ``O_NOFOLLOW`` and one name at a time there is nothing
    for it to resolve.
    """

    def __init__(self, root_fd: int, limit: int = 64) -> None:
        """Begin at a root.

        Args:
            root_fd: the root's descriptor, which stays its owner's.
            limit: how many others to keep open at most; fewer where this process may have few.
        """
        self._root_fd = root_fd
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._limit = limit if allowed == resource.RLIM_INFINITY else min(limit, allowed // 4)
        self._open: OrderedDict[Directory, int] = OrderedDict()
        self._last: Directory | None = None
        self._last_fd = -1

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
        for node in reversed(missing):
            fd = os.open(node.name, _OPEN, dir_fd=fd)
            self._open[node] = fd
            if len(self._open) > self._limit:
                os.close(self._open.popitem(last=False)[1])
        return fd

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
