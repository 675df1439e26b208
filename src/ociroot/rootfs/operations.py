"""The interface through which the tree applies its changes while layers are read."""

from __future__ import annotations

from typing import Protocol

from ..tar.stream import Data
from .nodes import Directory, Node

__all__ = ["NoOperations", "Operations"]


class Operations(Protocol):
    """An output that can remove what it has created.

    The tree calls it in the order of the layers. Names are single components and parents are
    resolved: no symbolic link is followed. A new name does not exist: an existing one was removed
    before.
    """

    def make_directory(self, directory: Directory) -> None:
        """Create a directory; its attributes are set at the end by :meth:`finish`."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """Create a regular file with its attributes; ``data`` has its ``stored_size`` bytes."""

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """Create a symbolic link, a device or a FIFO with its attributes."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """Add a name to the existing inode whose name is ``at``."""

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name, with everything below a directory; the tree still contains it."""

    def finish(self, root: Directory) -> None:
        """Set the attributes of directories when the tree is finished.

        Those of the root are set when it is published.
        """


class NoOperations:
    """Operations that do nothing, for a tree that is only read."""

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
