"""The merged file system in memory: apply changes to it, and derive the operations on disk.

The layers are applied bottom up to an empty tree in memory. This module decides everything on names
and nodes: how paths with symbolic links resolve, what is replaced, what is merged, what a whiteout
removes. The output is a sequence of :class:`Operations` on real directories; the kernel never
resolves a path of an image, and the state of the disk is never queried.

The order inside a layer. layer.md, "Whiteouts": "Whiteout files MUST only apply to resources in
lower/parent layers", and "Opaque Whiteout": the whiteout "is applied first, before creating the new
version …, regardless of the ordering in which the whiteout file was encountered". So a whiteout is
looked up in the tree of the lower layers, and never removes what this layer has added. One pass
suffices unless, before a whiteout, an entry used a symbolic link or made a hard link to a lower
layer, or an entry's parent is a file that a later whiteout may remove. Then :class:`WhiteoutsFirst`
requests a second pass, in which the layer's whiteouts are known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import MalformedImage, OcirootError, printable, quoted
from ..layers.changeset import Change
from ..limits import Limits
from ..notices import Notices
from ..tar.entry import Entry
from ..tar.names import as_bytes, clean
from ..tar.stream import Stream
from .accounting import Accounts
from .lookup import MAX_LINKS, Lookup, Place, Way, find
from .nodes import Directory, Node, xattrs_weight
from .operations import Operations
from .removals import Marks, Removals, WhiteoutsFirst

__all__ = ["Tree", "WhiteoutsFirst"]

#: The maximum length of a name in bytes (NAME_MAX of Linux).
MAX_NAME = 255
#: The maximum length of a symbolic link's target in bytes (PATH_MAX of Linux, without the NUL).
MAX_TARGET = 4095


class Tree:
    """A root file system to which layers are applied.

    Attributes:
        root: the root directory.
        lookup: looks up paths in it; the limit ``steps`` bounds all look-ups together.
    """

    def __init__(self, operations: Operations, notices: Notices, limits: Limits) -> None:
        """Create an empty tree.

        manifest.md, "layers": "The final filesystem layout MUST match the result of applying the
        layers to an empty directory. The ownership, mode, and other attributes of the initial empty
        directory are unspecified."

        Args:
            operations: receives the changes as operations on disk.
            notices: collects warnings about duplicate paths.
            limits: bound the layers.
        """
        self.root = Directory(None, b"", 0)
        self.lookup = Lookup(self.root, limits)
        self._operations = operations
        self._notices = notices
        self._limits = limits
        self._accounts = Accounts(limits)
        self._layer = 0
        self._whiteouts_known = False
        self._marks = Marks(self._accounts)
        self._removals = Removals(self.lookup, operations, self._accounts, self._marks)
        self._last_path = b""
        self._last_parent = self.root

    def __repr__(self) -> str:
        return f"<Tree entries={self._accounts.entries} layers={self._layer}>"

    def apply(
        self,
        changes: Iterable[Change],
        data: Stream,
        *,
        whiteouts: Iterable[Change] | None = None,
    ) -> int:
        """Apply the changes of one more layer.

        Args:
            changes: the layer's changes.
            data: the stream of the layer, at the data of the current change's entry.
            whiteouts: the layer's whiteouts, if they are known beforehand; those among the changes
                are then ignored.

        Returns:
            The number of changes.

        Raises:
            MalformedImage: a change cannot be applied.
            LimitExceeded: a limit is exceeded.
            WhiteoutsFirst: the layer requires ``whiteouts``.
        """
        self._layer += 1
        marks, accounts, removals = self._marks, self._accounts, self._removals
        marks.begin(self._layer)
        self._last_path, self._last_parent = b"", self.root
        self._whiteouts_known = whiteouts is not None
        # All of them refer to the lower tree, so they are looked up before any is applied.
        for change, directory in [(c, removals.find_lower(c)) for c in whiteouts or ()]:
            if directory is not None and removals.is_attached(directory):
                removals.hide(change, directory)
        count, most = 0, self._limits.entries
        for change in changes:
            count += 1
            try:
                accounts.entries += 1
                if accounts.entries > most:
                    raise self._limits.exceeded("entries")
                if change.action == "add":
                    marks.added = True
                    self._add(change, data)
                elif not self._whiteouts_known:
                    if marks.linking:
                        raise WhiteoutsFirst
                    hidden = removals.find_lower(change)
                    # A whiteout of what does not exist has no effect.
                    if hidden is not None:
                        removals.hide(change, hidden)
                        self._last_path, self._last_parent = b"", self.root
            except OcirootError as error:
                raise error.locate(
                    member=change.entry.name, offset=change.entry.offset
                ) from error.__cause__
        return count

    def find(self, path: str | bytes, *, follow: bool = True) -> Place | None:
        """Look up a path as a process whose root is the tree would.

        Args:
            path: the path from the root; ``..`` is clamped at the root.
            follow: whether a symbolic link in the final component is followed.

        Returns:
            The parent, the name and the node (for the root: the root, an empty name, the root);
            None if there is none, or if the links form a loop.
        """
        return find(Lookup(self.root, self._limits, counted=False), as_bytes(path), follow=follow)

    # Additions and modifications.

    def _add(self, change: Change, data: Stream) -> None:
        _, path, name, entry = change
        if not name:
            self._describe_directory(self.root, entry)
            return
        if len(name) > MAX_NAME:
            raise _long_name(name)
        # Entries of one directory usually follow each other.
        parent = self._last_parent if path == self._last_path else self._parent(path)
        old = parent.entries.get(name)
        kind = entry.kind
        if kind == "link":
            self._link(parent, name, entry, old)
            return
        if old is not None:
            # layer.md, "Changeset over existing files": "If the entry and the existing path are
            # both directories, then the existing path's attributes MUST be replaced by those of
            # the entry in the changeset."
            if kind == "dir" and isinstance(old, Directory):
                self._describe_directory(old, entry)
                self._touch(old)
                return
            # "In all other cases …: removing the file path …, recreating the file path".
            self._replace(parent, name, old, entry)
        if parent.layer != self._layer:
            self._touch(parent)
        if kind == "dir":
            directory = self._make_directory(parent, name)
            self._describe_directory(directory, entry)
            return
        node = Node.of(entry, self._layer)
        if kind == "file":
            node.size = entry.size
            node.offset = data.position
            node.segments = entry.segments
            accounts = self._accounts
            accounts.size += entry.size if entry.segments is None else node.space
            if accounts.size > accounts.most_size:
                raise self._limits.exceeded("size", accounts.size)
            self._operations.make_file(parent, name, node, data)
        else:
            node.target = entry.target
            if kind == "symlink":
                _check_target(entry.target)
            self._operations.make_other(parent, name, node)
        parent.entries[name] = node
        self._accounts.add_name(name, node)

    def _describe_directory(self, directory: Directory, entry: Entry) -> None:
        if directory.own == self._layer:
            self._notices.add("duplicate-path", entry.name)
        directory.own = self._layer
        before = xattrs_weight(directory)
        directory.set_metadata(entry)
        self._accounts.add_memory(xattrs_weight(directory) - before)

    def _make_directory(self, parent: Directory, name: bytes) -> Directory:
        if parent.depth >= self._limits.depth:
            raise self._limits.exceeded("depth")
        if len(name) > MAX_NAME:
            raise _long_name(name)
        directory = Directory(parent, name, self._layer)
        self._accounts.add_name(name, directory)
        parent.entries[name] = directory
        self._operations.make_directory(directory)
        return directory

    def _link(self, parent: Directory, name: bytes, entry: Entry, old: Node | None) -> None:
        """Make a hard link. The entry's attributes are ignored: the inode keeps its target's."""
        directory, _, base = clean(entry.target).rpartition(b"/")
        way = self.lookup.way(directory)
        holder = way.directory if self._resolve(way, make=False) else None
        node = holder.entries.get(base) if holder is not None else None
        if holder is None or node is None:
            raise MalformedImage(f"a hard link to {printable(entry.target)}, which does not exist")
        if isinstance(node, Directory):
            raise MalformedImage(f"a hard link to {printable(entry.target)}, which is a directory")
        if old is not None:
            if old is node:
                self._touch(parent)
                self._remember_link(parent, name, node)
                return
            within: Directory | None = holder
            while within is not None:
                if within is old:
                    raise MalformedImage(
                        f"a hard link to {printable(entry.target)} that replaces its directory"
                    )
                within = within.parent
            self._replace(parent, name, old, entry)
        self._touch(parent)
        self._operations.make_link(parent, name, node, (holder, base))
        parent.entries[name] = node
        node.links += 1
        self._accounts.add_name(name, node)
        self._remember_link(parent, name, node)

    def _remember_link(self, parent: Directory, name: bytes, node: Node) -> None:
        if node.layer < self._layer:
            # A later whiteout could not distinguish it from a name of the lower layers.
            self._marks.linking = True
            self._marks.note(self._marks.linked, (parent, name))

    def _replace(self, parent: Directory, name: bytes, old: Node, entry: Entry) -> None:
        """Remove the existing node at an entry's path."""
        if isinstance(old, Directory):
            duplicate = old.own == self._layer
            self._marks.note(self._marks.ways_gone, (parent, name))
        else:
            duplicate = old.layer == self._layer or (parent, name) in self._marks.linked
            if old.kind == "symlink" and old.layer < self._layer:
                self._marks.note(self._marks.ways_gone, (parent, name))
        if duplicate:
            self._notices.add("duplicate-path", entry.name)
        self._removals.remove(parent, name, old)
        if old.kind in ("dir", "symlink"):
            self._last_path, self._last_parent = b"", self.root

    def _touch(self, directory: Directory) -> None:
        """Record that this layer added something in a directory, so that its whiteouts keep it."""
        layer = self._layer
        node: Directory | None = directory
        while node is not None and node.layer != layer:
            node.layer = layer
            node = node.parent

    # Path look-up.

    def _parent(self, path: bytes) -> Directory:
        """Return the parent directory of an entry; create missing directories."""
        found = self.lookup.straight(path)
        if isinstance(found, Way):
            self._resolve(found, make=True)
            found = found.directory
        self._last_path, self._last_parent = path, found
        return found

    def _resolve(self, way: Way, *, make: bool) -> bool:
        """Walk a path to the directory at its end, as seen by an entry of this layer.

        Symbolic links are followed inside the root; ``/`` and ``..`` do not lead out of it.

        Args:
            way: the walk.
            make: whether missing directories are created.

        Returns:
            Whether the directory exists.
        """
        while way.advance():
            node = way.node
            if node is not None and node.kind == "symlink":
                self._marks.linking = True
                if not way.follow():
                    raise self._no_way(f"more than {MAX_LINKS} symbolic links in its path")
            elif not make:
                return False
            elif node is None:
                self._accounts.entries += 1
                self._touch(way.directory)
                way.directory = self._make_directory(way.directory, way.name)
            else:
                what = f"its parent /{printable(way.directory.path_of(way.name))} is a {node.kind}"
                raise self._no_way(what)
        return True

    def _no_way(self, problem: str) -> Exception:
        """Return the error for an obstacle in a path, which a later whiteout may remove."""
        return MalformedImage(problem) if self._whiteouts_known else WhiteoutsFirst()


def _check_target(target: bytes) -> None:
    if not target:
        raise MalformedImage("a symbolic link with an empty target")
    if len(target) > MAX_TARGET:
        raise MalformedImage(
            f"the target of a symbolic link has {len(target)} bytes (maximum {MAX_TARGET})"
        )


def _long_name(name: bytes) -> MalformedImage:
    return MalformedImage(f"a name has {len(name)} bytes (maximum {MAX_NAME}): {quoted(name[:40])}")
