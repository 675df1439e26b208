"""The directory writer: applies the tree's operations to a real file system.

Everything is created inside a directory that only we can enter, with ``dir_fd``, ``O_EXCL`` and
``O_NOFOLLOW``. Directories get their attributes last, children first: until then they belong to us
with mode 0700, so that their mode does not prevent changes, and changes do not affect their times.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NoReturn

from ...errors import DestinationError, OcirootError
from ...linux import CREATE_FILE, clear_acls
from ...notices import Notices
from ...rootfs.nodes import Directory, Node
from ...space import BLOCK, SpaceBudget, block_size, explain_full, occupied
from ...tar.stream import Data
from ..policy import OutputPolicy
from .attributes import Attributes
from .handles import DirFdCache
from .made import Made
from .standard import fill_standard

__all__ = ["NAME", "DirectoryWriter", "removals"]

_REMEDY = "with --max-size, a limit on the image, there is no reserve"
#: The bytes of disk that are claimed for a further name of a file.
NAME = 512
_POLICY = OutputPolicy()
_TYPES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}


class DirectoryWriter:
    """Writes a tree into an empty directory.

    It implements :class:`~ociroot.rootfs.operations.Operations`, and is a
    :class:`~ociroot.outputs.sink.Sink`.

    Attributes:
        root_fd: the directory's descriptor.
        in_tree_order: see :class:`~ociroot.outputs.sink.Sink`.
    """

    in_tree_order = False

    def __init__(
        self,
        root_fd: int,
        notices: Notices,
        policy: OutputPolicy = _POLICY,
        *,
        spare: bool = False,
    ) -> None:
        """Begin in an empty directory.

        Args:
            root_fd: its descriptor; the caller keeps and closes it.
            notices: collects warnings about what could not be created or set.
            policy: decides about attributes and devices; behind
                :class:`~ociroot.outputs.final.FinalOperations`, about devices alone.
            spare: whether to keep a reserve of the file system free.
        """
        self.root_fd = root_fd
        self._notices = notices
        self._policy = policy
        self._changes_nodes = policy.changes_nodes
        self._handles = DirFdCache(root_fd)
        try:
            #: The bytes that each file takes in addition to its data: the rest of its last block.
            self.block = block_size(root_fd) if spare else BLOCK
            self._made = Made(self.block)
            self._counts = self._made.own
            self._budget = SpaceBudget(
                root_fd,
                remedy=_REMEDY,
                reserved=spare,
                written=self._made.space,
                so_far=self._made.so_far,
            )
            self._attributes = Attributes(root_fd, notices, policy)
            self._filled = fill_standard()
        except OSError as error:
            raise DestinationError.from_os(error, "use the destination") from error
        # Names of devices that could not be created.
        self._absent: set[tuple[Directory, bytes]] = set()

    def share(self, counts: memoryview, counts_beside: memoryview, *, looks: bool) -> None:
        """Share the root with the writer of another process.

        Args:
            counts: the counters of this process; see :class:`~.made.Made`.
            counts_beside: the counters of the other process.
            looks: whether this process checks the free space; it does so for both.
        """
        self._made.share(counts, counts_beside)
        self._counts = counts
        if not looks:
            self._budget.stop_looking()

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        parent = directory.parent
        if parent is None:
            return  # the root exists
        try:
            self._budget.claim(self.block)
            dir_fd = self._handles.fd(parent)
            os.mkdir(directory.name, 0o700, dir_fd=dir_fd)
            if self._attributes.umask_hinders:
                os.chmod(directory.name, 0o700, dir_fd=dir_fd)
        except (OSError, DestinationError) as error:
            self._fail(error, "make the directory", parent, directory.name)
        self._counts[0] += 1

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if self._changes_nodes:
            node = self._final(parent, name, node)
        size = space = node.size
        if node.segments is not None or node.xattrs is not None:
            size, space = node.stored_size, self.space_of(node)
        try:
            self._budget.claim(space + self.block)
            dir_fd = self._handles.fd(parent)
            try:
                fd = os.open(name, CREATE_FILE, node.mode & 0o777, dir_fd=dir_fd)
            except OSError as error:
                if error.errno != errno.EMFILE or not self._handles.spare(dir_fd):
                    raise
                fd = os.open(name, CREATE_FILE, node.mode & 0o777, dir_fd=dir_fd)
            try:
                if node.segments is None:
                    if size:
                        _write(fd, size, data)
                else:
                    _write_sparse(fd, node, data)
                self._attributes.set_on_fd(fd, node, made=True)
            finally:
                os.close(fd)
        except (OSError, DestinationError) as error:
            self._fail(error, "write the file", parent, name)
        self._counts[0] += 1
        self._counts[1] += size
        if space != size:
            self._counts[2] += space - size

    def _final(self, parent: Directory, name: bytes, node: Node) -> Node:
        """Return a node as the policy has it written."""
        if (code := self._policy.dropped(node)) is not None:
            self._notices.add(code, parent.path_of(name))
        try:
            return self._policy.final(node)
        except OcirootError as error:
            raise error.locate(member=parent.path_of(name) or b"/") from error.__cause__

    def space_of(self, node: Node) -> int:
        """Return the bytes of disk of a file, without the block that is added for each."""
        segments, xattrs = node.segments, node.xattrs
        space = node.size if segments is None else occupied(segments, self.block)
        return space + sum(len(n) + len(v) for n, v in xattrs.items()) if xattrs else space

    def claim(self, space: int, parent: Directory, name: bytes) -> None:
        """Claim space for a name that this or the other process will create.

        Args:
            space: the bytes to claim.
            parent: its parent directory.
            name: its name.

        Raises:
            DestinationError: there is no space beyond the reserve.
        """
        try:
            self._budget.claim(space)
        except DestinationError as error:
            self._fail(error, "", parent, name)

    def _fail(
        self, error: OSError | DestinationError, what: str, parent: Directory, name: bytes
    ) -> NoReturn:
        """Raise the error of an operation on a name, with its path and the state of the disk."""
        member = parent.path_of(name)
        if isinstance(error, DestinationError):
            raise error.locate(member=member) from error.__cause__
        failed = DestinationError.from_os(error, what, member=member)
        if failed.is_full:
            failed.problem += f": {explain_full(self.root_fd, error.errno)}{self._made.so_far()}"
        raise failed from error

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if self._changes_nodes:
            node = self._final(parent, name, node)
        space = self.space_of(node)
        try:
            self._budget.claim(space + self.block)
            self._counts[2] += space if node.kind == "symlink" else space + self.block
            dir_fd = self._handles.fd(parent)
            if node.kind == "symlink":
                os.symlink(node.target, name, dir_fd=dir_fd)
                self._counts[0] += 1
            elif not self._make_node(name, node, dir_fd):
                self._notices.add("devices", parent.path_of(name))
                self._absent.add((parent, name))
                return
            self._attributes.set_by_name(name, dir_fd, node)
        except (OSError, DestinationError) as error:
            self._fail(error, f"make the {node.kind}", parent, name)

    def _make_node(self, name: bytes, node: Node, dir_fd: int) -> bool:
        """Create a device or a FIFO; return whether that was permitted."""
        device = 0 if node.kind == "fifo" else os.makedev(*node.rdev)
        try:
            os.mknod(name, _TYPES[node.kind] | 0o600, device, dir_fd=dir_fd)
        except OSError as error:
            # Only root may create devices, and not in every container.
            if error.errno != errno.EPERM or node.kind == "fifo":
                raise
            if self._policy.devices == "create":
                raise DestinationError(
                    "creating devices is not permitted", errno=error.errno
                ) from error
            return False
        return True

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        holder, target = at
        try:
            self._budget.claim(NAME)
            self._counts[2] += NAME
            if at in self._absent:
                self._absent.add((parent, name))
                return
            from_fd, to_fd = self._handles.two(holder, parent)
            os.link(target, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
        except (OSError, DestinationError) as error:
            self._fail(error, "make the hard link", parent, name)

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        for holder, below, child in removals(parent, name, node):
            self.remove_one(holder, below, child)

    def remove_one(self, parent: Directory, name: bytes, node: Node) -> None:
        """Remove a name; a directory must be empty.

        Args:
            parent: its parent directory.
            name: its name.
            node: its node.
        """
        if (parent, name) in self._absent:
            self._absent.discard((parent, name))
            return
        try:
            if isinstance(node, Directory):
                self._handles.forget(node)
                os.rmdir(name, dir_fd=self._handles.fd(parent))
            else:
                os.unlink(name, dir_fd=self._handles.fd(parent))
        except (OSError, DestinationError) as error:
            what = "directory" if node.kind == "dir" else node.kind
            self._fail(error, f"remove the {what}", parent, name)

    def forget(self, directory: Directory) -> None:
        """Close the descriptor of a directory that is removed."""
        self._handles.forget(directory)

    def finish(self, root: Directory) -> None:
        """Set the attributes of all directories except the root, children first.

        Args:
            root: the tree's root.

        Raises:
            DestinationError: an attribute cannot be set.
        """
        for directory in root.directories_up():
            if directory is not root:
                self.finish_one(directory)
        self._handles.close()

    def finish_one(self, directory: Directory) -> None:
        """Set the attributes of a directory whose content is complete."""
        made: Node = directory
        if self._changes_nodes:
            made = self._final(directory.parent or directory, directory.name, directory)
        try:
            if made.xattrs:
                space = self.space_of(made)
                self._budget.claim(space)
                self._counts[2] += space
            self._attributes.set_on_fd(self._handles.fd(directory), made)
        except (OSError, DestinationError) as error:
            parent = directory.parent or directory
            self._fail(error, "set the attributes", parent, directory.name)
        self._handles.forget(directory)

    def finish_root(self, fd: int, root: Directory) -> None:
        """Set the attributes of the root, on the directory that is published as the root.

        Args:
            fd: that directory's descriptor.
            root: the tree's root.

        Raises:
            DestinationError: an attribute cannot be set.
        """
        try:
            clear_acls(fd)
            made = self._final(root, b"", root) if self._changes_nodes else root
            self._attributes.set_on_fd(fd, made, ours=fd == self.root_fd)
        except OSError as error:
            raise DestinationError.from_os(error, "set the attributes", member=b"/") from error

    def close(self) -> None:
        """Close all descriptors."""
        self._handles.close()
        while self._filled:
            os.close(self._filled.pop())


def removals(parent: Directory, name: bytes, node: Node) -> Iterator[tuple[Directory, bytes, Node]]:
    """Yield everything to remove with a name, a directory after its entries.

    The tree below it must not change meanwhile.

    Yields:
        The parent, the name and the node.
    """
    if isinstance(node, Directory):
        # In this order each directory is opened from one that is still open.
        for directory in node.directories_up():
            for below, child in directory.entries.items():
                if not isinstance(child, Directory):
                    yield directory, below, child
            if directory is not node:
                yield directory.parent or node, directory.name, directory
    yield parent, name, node


def _write(fd: int, size: int, data: Data) -> None:
    ready = data.try_read(size)
    for piece in data.iter_chunks(size) if ready is None else (ready,):
        written = os.write(fd, piece)
        while written < len(piece):
            written += _some(os.write(fd, piece[written:]))


def _write_sparse(fd: int, node: Node, data: Data) -> None:
    os.ftruncate(fd, node.size)
    for offset, length in node.segments or ():
        for piece in data.iter_chunks(length):
            view = piece
            while view:
                written = _some(os.pwrite(fd, view, offset))
                offset += written
                view = view[written:]


def _some(written: int) -> int:
    """Return the bytes written; a write of 0 bytes without an error would be retried forever."""
    if not written:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return written
