"""Removals from the tree by whiteouts and by entries that replace others."""

from __future__ import annotations

from typing import TypeVar

from ..layers.changeset import Change
from .accounting import Accounts
from .lookup import Lookup
from .nodes import WEIGHT, Directory, Node, xattrs_weight
from .operations import Operations

__all__ = ["Marks", "Removals", "WhiteoutsFirst"]

_T = TypeVar("_T")


class WhiteoutsFirst(Exception):
    """A layer can be applied correctly only if its whiteouts are known before its other entries."""


class Marks:
    """Notes on the current layer, for the whiteouts that may follow in it.

    Attributes:
        layer: its number, from 1.
        added: whether it has added anything.
        linking: whether an entry followed a symbolic link or made a hard link to a lower layer.
        ways_gone: names whose lower-layer symbolic link, or directory that may contain one, was
            removed.
        linked: names that became hard links to inodes of lower layers, which the inodes do not
            record.
        cleared: directories without remaining nodes of lower layers, so that they are cleared only
            once.
    """

    def __init__(self, accounts: Accounts) -> None:
        self.layer = 0
        self.added = False
        self.linking = False
        self.ways_gone: set[tuple[Directory, bytes]] = set()
        self.linked: set[tuple[Directory, bytes]] = set()
        self.cleared: set[Directory] = set()
        self._accounts = accounts
        # The bytes of memory of these notes, which are part of the total.
        self._noted = 0

    def begin(self, layer: int) -> None:
        """Clear the notes and begin the next layer."""
        self.layer = layer
        self.added = self.linking = False
        self.ways_gone.clear()
        self.linked.clear()
        self.cleared.clear()
        self._accounts.add_memory(-self._noted)
        self._noted = 0

    def note(self, notes: set[_T], what: _T) -> None:
        """Add a note until the end of the layer, and count its memory.

        Raises:
            LimitExceeded: it is too much.
        """
        if what not in notes:
            notes.add(what)
            self._noted += WEIGHT
            self._accounts.add_memory(WEIGHT)


class Removals:
    """Removes from the tree; of what a whiteout is about, only what the layers below brought."""

    def __init__(
        self, lookup: Lookup, operations: Operations, accounts: Accounts, marks: Marks
    ) -> None:
        """Begin with an empty tree.

        Args:
            lookup: looks up paths in the tree.
            operations: told what to remove on disk.
            accounts: what the tree costs.
            marks: what is kept in mind of the layer in hand.
        """
        self._lookup = lookup
        self._operations = operations
        self._accounts = accounts
        self._marks = marks

    def hide(self, change: Change, directory: Directory) -> None:
        """Apply a whiteout in a directory to the nodes of lower layers."""
        if change.action == "opaque":
            self._clear(directory)
            return
        node = directory.entries.get(change.name)
        if node is not None:
            self._hide_name(directory, change.name, node)

    def is_attached(self, directory: Directory) -> bool:
        """Return whether a directory is still in the tree."""
        node = directory
        while node.parent is not None:
            if node.parent.entries.get(node.name) is not node:
                return False
            node = node.parent
        return node is self._lookup.root

    def find_lower(self, change: Change) -> Directory | None:
        """Return the directory of a whiteout in the tree of the lower layers, or None.

        An opaque whiteout of a symbolic link to a directory does not apply to the link's target.
        """
        way = self._lookup.way(change.parent, stops=self._marks.ways_gone)
        while way.advance():
            node = way.node
            last = change.action == "opaque" and way.is_last
            if (way.directory, way.name) in self._marks.ways_gone:
                if not last:
                    raise WhiteoutsFirst
                return None
            if node is None or node.kind != "symlink" or node.layer == self._marks.layer or last:
                return None
            if self._marks.added:
                raise WhiteoutsFirst
            if not way.follow():
                return None
        return way.directory

    def _hide_name(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name, except for what this layer has added."""
        if node.layer < self._marks.layer:
            self._hide_lower(parent, name, node)
        elif isinstance(node, Directory):
            self._spare(node)
            self._clear(node)

    def _spare(self, directory: Directory) -> None:
        """Keep a hidden directory in which this layer has added something."""
        if directory.own < self._marks.layer:
            # Without an entry in this layer, the directory gets default attributes.
            self._accounts.add_memory(-xattrs_weight(directory))
            directory.reset_metadata()

    def _clear(self, directory: Directory) -> None:
        """Remove everything in a directory except for what this layer has added."""
        todo = [directory]
        while todo:
            directory = todo.pop()
            if directory in self._marks.cleared:
                continue
            self._marks.note(self._marks.cleared, directory)
            for name, child in list(directory.entries.items()):
                if child.layer < self._marks.layer:
                    self._hide_lower(directory, name, child)
                elif isinstance(child, Directory):
                    self._spare(child)
                    todo.append(child)

    def _hide_lower(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a node of the lower layers."""
        below = node.walk() if isinstance(node, Directory) else ()
        if node.kind == "symlink" or any(child.kind == "symlink" for _, _, child in below):
            self._marks.note(self._marks.ways_gone, (parent, name))
        self.remove(parent, name, node)

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name, and all that is below it."""
        self._operations.remove(parent, name, node)
        del parent.entries[name]
        if isinstance(node, Directory):
            directories = [node]
            for _, below_name, below in node.walk():
                self._accounts.forget(below_name, below)
                if isinstance(below, Directory):
                    directories.append(below)
            # Remaining references to a directory must not keep its content in memory.
            for directory in directories:
                directory.entries.clear()
        self._accounts.forget(name, node)
