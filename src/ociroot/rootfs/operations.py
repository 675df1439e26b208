"""The interface through which the tree applies its changes while layers are read."""

from __future__ import annotations

from typing import Protocol

from ..tar.stream import Data
from .nodes import Directory, Node

__all__ = ["Creations", "NoOperations", "Operations"]


class Creations(Protocol):
    """What every output can do: create what the tree contains.

    Names are single components and parents are resolved: no symbolic link is followed. A new name
    does not exist.
    """

    def make_directory(self, directory: Directory) -> None:
        """Create a directory; its attributes are set at the end by :meth:`finish`."""

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """Create a regular file with its attributes.

        ``data`` has its ``stored_size`` bytes, without holes.
        """

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """Create a symbolic link, a device or a FIFO with its attributes."""

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """Add a name to the existing inode whose name is ``at``."""

    def finish(self, root: Directory) -> None:
        """Finish the output; everything has been created.

        Attributes of directories are set; those of the root may be set when it is published.
        """


class Operations(Creations, Protocol):
    """An output that can remove what it has created.

    The tree calls it in the order of the layers. Before a name is created again it is removed.
    """

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name, with everything below a directory; the tree still contains it."""


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
