"""Operations on their way from the tree to an output: filtered, and with final attributes.

The tree says what to do while the layers flow; an output that is filtered, or gets other owners,
must do less or something else. Between the two stands :class:`FinalOperations`, where a filter or a
policy asks for it. What is left out by its path is never written. What only the finished tree can
tell waits for the end: whether a directory has anything in it that was selected, whether an owner
that the map does not cover is still there, and where a file is whose first name was left out.

The output gets a tree of its own, with the directories that it has made and what is in them.
"""

from __future__ import annotations

import os

from ..errors import OcirootError, Unsupported, located
from ..limits import Limits
from ..notices import Notices
from ..rootfs.filter import Position
from ..rootfs.nodes import Directory, Node
from ..rootfs.operations import Operations
from ..tar.acl import ACCESS, mode_without_acl
from ..tar.stream import Data
from .override import can_hold, override_xattrs
from .policy import duplicate
from .shape import MovedSubtree, Shape, find_subtree
from .sink import Files, depth_first

__all__ = ["FinalOperations"]

# Nodes that may wait to be refused at the end.
_WAITING = 10_000


class _Known:
    """A directory of the tree of which something may be written.

    Attributes:
        position: what the filter knows of its path.
        above: the number of names of the subtree's path that lead to it; -1: it is in the subtree.
        made: the output's own directory; None: it has not been made.
    """

    __slots__ = ("above", "made", "position")

    def __init__(self, position: Position, above: int) -> None:
        self.position = position
        self.above = above
        self.made: Directory | None = None


class FinalOperations:
    """Passes on operations with what a filter and a policy make of them.

    Attributes:
        root: the output's own root.
    """

    def __init__(
        self, output: Operations, notices: Notices, shape: Shape, files: Files, limits: Limits
    ) -> None:
        """Begin with nothing.

        Args:
            output: what carries out the operations.
            notices: told of what is skipped or dropped.
            shape: what is written; the filter's subtree is a path without links.
            files: goes to the contents of files when the tree is finished.
            limits: on links on the way to the subtree.
        """
        self.root = Directory(None, b"", -1)
        self._output = output
        self._notices = notices
        self._policy = shape.policy
        self._filter = shape.filter
        self._record = shape.record
        self._files = files
        self._limits = limits
        self._ours = os.geteuid(), os.getegid()
        self._subtree = [name for name in shape.filter.subtree.split(b"/") if name]
        self._known: dict[Directory, _Known] = {}
        # Nodes that have been written, and are refused if they are still there at the end.
        self._refused: dict[Node, OcirootError] = {}
        # Names of nodes that the output does not have at the place that they were linked from.
        self._waiting: dict[tuple[Directory, bytes], Node] = {}

    # What the tree asks for.

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        parent = directory.parent
        above = self._lookup(parent) if parent is not None else None
        if above is None:
            return
        level = above.above
        if level >= 0:
            if directory.name != self._subtree[level]:
                return
            level += 1
        position = above.position.below(directory.name, True)
        if position.is_out:
            return
        known = _Known(position, level)
        if level == len(self._subtree):
            known.above, known.made = -1, self.root
        self._known[directory] = known
        if known.above < 0 and position.is_in:
            self._directory(directory, known)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        to = self._place(parent, name)
        if to is not None:
            self._make_file(to, name, node, data)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        to = self._place(parent, name)
        if to is not None:
            self._make_other(to, name, node)

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        to = self._place(parent, name)
        if to is None or not self._is_written(node):
            return
        known = self._lookup(at[0])
        made = known.made if known is not None else None
        if made is None or made.entries.get(at[1]) is not node:
            self._waiting[parent, name] = node
            return
        self._output.make_link(to, name, node, (made, at[1]))
        to.entries[name] = node

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._waiting.pop((parent, name), None)
        known = self._lookup(parent)
        to = known.made if known is not None else None
        child = to.entries.get(name) if to is not None else None
        # The output's directories are its own; of anything else another one is not there.
        if to is not None and child is not None and (child is node or node.kind == "dir"):
            self._output.remove(to, name, child)
            del to.entries[name]
        if isinstance(node, Directory):
            for directory in node.directories_up():
                gone = self._known.pop(directory, None)
                if gone is not None and gone.made is self.root:
                    self._clear_root()

    def _clear_root(self) -> None:
        for name, child in list(self.root.entries.items()):
            self._output.remove(self.root, name, child)
            del self.root.entries[name]

    # Where it goes, and what it becomes.

    def _lookup(self, directory: Directory) -> _Known | None:
        """Return what is known of a directory of the tree; None: nothing in it is written."""
        known = self._known.get(directory)
        if known is None and directory.parent is None:
            known = self._known[directory] = _Known(self._filter.start(), 0)
            if not self._subtree:
                known.above, known.made = -1, self.root
        return known

    def _place(self, parent: Directory, name: bytes) -> Directory | None:
        """Return the output's directory for a name that is no directory; None: it is left out."""
        known = self._lookup(parent)
        if known is None or known.above >= 0 or not known.position.below(name, False).is_in:
            return None
        return self._directory(parent, known)

    def _directory(self, directory: Directory, known: _Known) -> Directory:
        """Return the output's directory for one of the tree; make it where it is not there."""
        if known.made is None:
            # Parents first, from the last one on that is there.
            missing = [(directory, known)]
            while missing[-1][1].made is None:
                above = missing[-1][0].parent
                found = self._lookup(above) if above is not None else None
                if above is None or found is None:
                    raise AssertionError("a directory outside the subtree")
                missing.append((above, found))
            to = missing.pop()[1].made
            while missing:
                each, its = missing.pop()
                its.made = Directory(to, each.name, each.layer)
                self._output.make_directory(its.made)
                assert to is not None  # noqa: S101
                to.entries[each.name] = its.made
                to = its.made
            assert known.made is not None  # noqa: S101
        return known.made

    def _make_file(self, to: Directory, name: bytes, node: Node, data: Data) -> None:
        self._output.make_file(to, name, self._written(to, name, node), data)
        to.entries[name] = node

    def _make_other(self, to: Directory, name: bytes, node: Node) -> None:
        if self._is_written(node):
            self._output.make_other(to, name, self._written(to, name, node))
            to.entries[name] = node
        elif self._record == "xattr":
            self._notices.add("owners-unrecorded", to.path_of(name))

    def _is_written(self, node: Node) -> bool:
        try:
            written = self._policy.writes(node)
        except Unsupported as error:
            self._refuse(node, error)
            return False
        return written and not (self._record and node.kind in ("char", "block"))

    def _written(self, to: Directory, name: bytes, node: Node) -> Node:
        """Return a node as it is written, which is not refused before the end."""
        try:
            made = self._policy.final(node)
        except Unsupported as error:
            self._refuse(node, error)
            made = duplicate(node)
            made.uid, made.gid = self._ours
            made.xattrs = None
        else:
            if (code := self._policy.dropped(node)) is not None:
                self._notices.add(code, to.path_of(name))
        return self._recorded(to, name, made) if self._record else made

    def _recorded(self, to: Directory, name: bytes, node: Node) -> Node:
        """Return a node as an ordinary user can write it, and read it again."""
        made = duplicate(node)
        made.uid, made.gid = self._ours
        lost = 0
        if node.kind != "symlink":
            made.mode = node.mode & 0o777 | (0o700 if node.kind == "dir" else 0o600)
            if node.xattrs and ACCESS in node.xattrs:
                made.mode = mode_without_acl(made.mode, node.xattrs[ACCESS])
        if self._record == "xattr" and can_hold(node):
            made.xattrs, lost = override_xattrs(node)
        else:
            user = {n: v for n, v in (node.xattrs or {}).items() if n.startswith(b"user.")}
            made.xattrs = user if can_hold(node) and user else None
            if self._record == "xattr" and (node.uid or node.gid or node.xattrs):
                lost = 1
        if lost:
            self._notices.add("owners-unrecorded", to.path_of(name) if name else b"/")
        return made

    def _refuse(self, node: Node, error: OcirootError) -> None:
        """Refuse a node at the end, if it is still there."""
        self._refused[node] = error
        if len(self._refused) > _WAITING:
            self._refused = {n: e for n, e in self._refused.items() if n.links}
            if len(self._refused) > _WAITING:
                raise error

    # The end.

    def finish(self, root: Directory) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`.

        Raises:
            MovedSubtree: the subtree is at another path; this was for nothing.
            OcirootError: there is no subtree, or something in it is refused, or it cannot be
                written.
        """
        top = find_subtree(root, self._filter.subtree, self._limits)
        if (path := top.path()) != b"/".join(self._subtree):
            raise MovedSubtree(path)
        self._write_waiting()
        known = self._known.get(top)
        if known is None:
            known = self._known[top] = _Known(self._filter.out, -1)
            known.made = self.root
        self._remove_empty()
        self._check_refused(top, known.position)
        for directory, its in self._known.items():
            if its.made is not None:
                its.made.copy_metadata(self._described(directory, its.made))
        self._output.finish(self.root)

    def _described(self, directory: Directory, made: Directory) -> Node:
        """Return the attributes that a directory of the output gets."""
        with located(member=directory.path() or b"/"):
            final = self._policy.final(directory)
        if not self._record:
            return final
        return self._recorded(made.parent or made, made.name, final)

    def _write_waiting(self) -> None:
        """Write what was linked from a name that was left out."""
        names: dict[Node, list[tuple[Directory, bytes]]] = {}
        for (parent, name), node in self._waiting.items():
            if parent.entries.get(name) is node:
                names.setdefault(node, []).append((parent, name))
        if not names:
            return
        there = {node: (parent, name) for parent, name, node in self.root.walk() if node in names}
        contents: list[Node] = []
        for node, places in names.items():
            if node in there:
                continue
            if node.kind == "file":
                contents.append(node)
            else:
                there[node] = self._made_first(places)
                self._make_other(*there[node], node)
        for node, stream in self._files(contents) if contents else ():
            there[node] = self._made_first(names[node])
            self._make_file(*there[node], node, stream)
        for node, places in names.items():
            for parent, name in places:
                to = self._place(parent, name)
                if to is not None:
                    self._output.make_link(to, name, node, there[node])
                    to.entries[name] = node

    def _made_first(self, places: list[tuple[Directory, bytes]]) -> tuple[Directory, bytes]:
        """Take the first of some names out, and return the output's place for it."""
        parent, name = places.pop(0)
        to = self._place(parent, name)
        assert to is not None  # noqa: S101
        return to, name

    def _remove_empty(self) -> None:
        """Remove directories that were made for what is not there any more."""
        unsure = [
            known.made
            for known in self._known.values()
            if known.made is not None and known.made.parent and not known.position.is_in
        ]
        for directory in sorted(unsure, key=lambda each: -each.depth):
            parent = directory.parent
            if parent is not None and not directory.entries:
                self._output.remove(parent, directory.name, directory)
                del parent.entries[directory.name]
        self._known = {
            directory: known
            for directory, known in self._known.items()
            if known.made is not None
            and (known.made.parent is None or known.made.parent.entries.get(known.made.name))
        }

    def _check_refused(self, top: Directory, position: Position) -> None:
        """Raise for what is refused and still there, the first one by path."""
        if not self._refused:
            return
        for parent, name, node in depth_first(top):
            if node in self._refused:
                error = self._refused[node]
                known = self._known.get(parent)
                if known is not None and known.position.below(name, False).is_in:
                    raise error.locate(member=parent.path_of(name))
