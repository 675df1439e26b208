"""The operations through which the tree has its decisions carried out while the layers flow."""

from __future__ import annotations

from typing import Protocol

from ..tar.stream import Data
from .nodes import Directory, Node

__all__ = ["NoOperations", "Operations"]


class Operations(Protocol):
    """An output that can take back what it has made.

    The tree calls it in the order in which the layers say so. Names are single components, and what
    a parent is has been decided: no symbolic link is followed. Nothing has the name that is made;
    what had it was removed before.
    """

    def make_directory(self, directory: Directory) -> None:
        """Make a directory; its attributes come last of all, when everything is in place."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """Make a regular file and its attributes; the stream has its ``stored_size`` bytes."""

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """Make a symbolic link, a device or a FIFO, with its attributes."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """Give an inode that is there, at ``at``, one more name."""

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name, and of a directory everything below it; the tree still has it all."""

    def finish(self, root: Directory) -> None:
        """Set what comes last, when the tree is finished: attributes of directories.

        The root's own are set when it becomes visible.
        """


class NoOperations:
    """Operations that do nothing: for a tree that is only looked at."""

    def make_directory(self, directory: Directory) -> None:
        """See :class:`Operations`."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`Operations`."""

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`Operations`."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`Operations`."""

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`Operations`."""

    def finish(self, root: Directory) -> None:
        """See :class:`Operations`."""
