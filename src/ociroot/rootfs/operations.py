"""The operations through which the tree has its decisions carried out."""

from __future__ import annotations

from typing import Protocol

from ..tar.stream import Stream
from .nodes import Directory, Node

__all__ = ["NoOperations", "Operations"]


class Operations(Protocol):
    """What the tree has done on real directories, in this order. Names are single components."""

    def make_directory(self, directory: Directory) -> None:
        """Make a directory; its attributes come last of all, when everything is in place."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Stream) -> None:
        """Make a regular file and its attributes; the stream has its ``stored_size`` bytes."""

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """Make a symbolic link, a device or a FIFO, with its attributes."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """Give an inode that is there, at ``at``, one more name."""

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name, and of a directory everything below it; the tree still has it all."""


class NoOperations:
    """Operations that do nothing: for a tree that is only looked at."""

    def make_directory(self, directory: Directory) -> None:
        """See :class:`Operations`."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Stream) -> None:
        """See :class:`Operations`."""

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`Operations`."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`Operations`."""

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`Operations`."""
