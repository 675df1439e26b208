"""What the entries of layers cost, held against the limits."""

from __future__ import annotations

import sys

from ..limits import Limits
from .nodes import Node, weight

__all__ = ["Accounts"]


class Accounts:
    """What the tree of an image costs.

    Attributes:
        entries: entries seen, and directories that they imply.
        size: bytes of the files that are there.
        memory: bytes of memory that the names and nodes take, roughly.
        most_size: how many bytes of files there may be. Entries and files are counted where they
            are added, since a call for each would cost more than the rest of it.
    """

    __slots__ = ("_limits", "_most_memory", "entries", "memory", "most_size", "size")

    def __init__(self, limits: Limits) -> None:
        """Begin with nothing.

        Args:
            limits: on what layers may bring.
        """
        self.entries = 0
        self.size = 0
        self.memory = 0
        self._limits = limits
        self.most_size = limits.size if limits.size is not None else sys.maxsize
        self._most_memory = limits.memory

    def add_name(self, name: bytes, node: Node) -> None:
        """Count what a name takes of the memory.

        Raises:
            LimitExceeded: it is too much.
        """
        self.memory += weight(name, node)
        if self.memory > self._most_memory:
            raise self._limits.exceeded("memory")

    def add_memory(self, size: int) -> None:
        """Count some more bytes of memory, or fewer.

        Raises:
            LimitExceeded: there are too many.
        """
        self.memory += size
        if self.memory > self._most_memory:
            raise self._limits.exceeded("memory")

    def forget(self, name: bytes, node: Node) -> None:
        """Count a name as gone."""
        node.links -= 1
        self.memory -= weight(name, node)
        if not node.links:
            self.size -= node.space
