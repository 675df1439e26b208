"""Accounting of entries, disk space and memory against the limits."""

from __future__ import annotations

import sys

from ..limits import Limits
from .nodes import Node, weight

__all__ = ["Accounts"]


class Accounts:
    """The resources that the tree of an image uses.

    Attributes:
        entries: entries seen, and directories that they imply.
        size: bytes of the existing files.
        memory: approximate bytes of memory of the names and nodes.
        most_size: the limit on the bytes of files. The code that adds entries and files updates
            and checks their counts itself, because a call for each would be too expensive.
    """

    __slots__ = ("_limits", "_most_memory", "entries", "memory", "most_size", "size")

    def __init__(self, limits: Limits) -> None:
        """Begin with zero.

        Args:
            limits: bound the layers.
        """
        self.entries = 0
        self.size = 0
        self.memory = 0
        self._limits = limits
        self.most_size = limits.size if limits.size is not None else sys.maxsize
        self._most_memory = limits.memory

    def add_name(self, name: bytes, node: Node) -> None:
        """Count the memory of a name and its node.

        Raises:
            LimitExceeded: the limit ``memory`` is exceeded.
        """
        self.memory += weight(name, node)
        if self.memory > self._most_memory:
            raise self._limits.exceeded("memory")

    def add_memory(self, size: int) -> None:
        """Add bytes of memory, or subtract them if negative.

        Raises:
            LimitExceeded: the limit ``memory`` is exceeded.
        """
        self.memory += size
        if self.memory > self._most_memory:
            raise self._limits.exceeded("memory")

    def forget(self, name: bytes, node: Node) -> None:
        """Update the counts for a removed name."""
        node.links -= 1
        self.memory -= weight(name, node)
        if not node.links:
            self.size -= node.space
