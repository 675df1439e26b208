"""Setting on a tree that an ordinary user has extracted what a record says of it, as root.

The tree and the record may be of somebody who does not mean well, and who changes both while we
work. So nothing is reached by a path of more than one name, and no symbolic link is followed, on
the way to the tree either. Then, in this order:

1. Every directory of the record, from the top down, is given to root with mode 0700, and loses its
   ACLs: what is made in it would inherit from the default ACL. From then on nobody else can make,
   rename or remove a name in it.
2. Every name is looked at: it must be of the type that the record says, on the same mount, and all
   names of its inode must be in the record. Otherwise a file outside the tree would change with it.
3. Every inode is given to root with mode 0600, so that nobody else can link it any more (with
   ``fs.protected_hardlinks``, which is on by default), and looked at again; then it gets its
   attributes. What the record does not have of extended attributes is removed: an ACL would let
   its former owner in.
4. Every directory gets its attributes, from the bottom up.

When something fails, the directories stay root's and closed, and the same can be done again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from .. import linux
from ..errors import DestinationError, printable
from ..notices import Notices
from ..rootfs.nodes import HOST_XATTRS, Directory, Node
from .directory.attributes import Attributes
from .directory.handles import DirFdCache
from .policy import OutputPolicy
from .sink import depth_first

__all__ = ["Counts", "apply_record", "opened_tree"]

_FORMATS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


_OUTSIDE = "it has a name that the record does not have, perhaps outside the tree"


class _Linked:
    """An inode with several names.

    Attributes:
        path: one of them.
        links: how many it has.
        names: how many of them the record has.
    """

    __slots__ = ("links", "names", "path")

    def __init__(self, path: bytes, links: int) -> None:
        self.path = path
        self.links = links
        self.names = 0

    def check(self) -> None:
        """Refuse an inode that would change outside the tree, too."""
        if self.names != self.links:
            raise DestinationError(_OUTSIDE, member=self.path)


class Counts:
    """What has been done.

    Attributes:
        changed: files and directories whose attributes were set.
        made: devices that were made.
    """

    def __init__(self) -> None:
        self.changed = 0
        self.made = 0


@contextmanager
def opened_tree(path: str) -> Iterator[int]:
    """Open the root of a tree, on a way without symbolic links.

    Raises:
        DestinationError: there is none, or a link is on the way: its owner could exchange it.
    """
    top = -1
    try:
        whole = os.path.abspath(path)
        top = os.open("/", linux.OPEN_DIRECTORY)
        fd = linux.open_beneath(top, os.fsencode(whole.lstrip("/") or "."), linux.OPEN_DIRECTORY)
    except OSError as error:
        failed = DestinationError.from_os(error, "open it")
        if error.errno == errno.ELOOP:
            failed.remedy = "no symbolic link is followed: give the path that it leads to"
        raise failed.locate(source=path) from error
    finally:
        if top >= 0:
            os.close(top)
    try:
        yield fd
    finally:
        os.close(fd)


def apply_record(fd: int, root: Directory, notices: Notices) -> Counts:
    """Set on a tree what a record says of it.

    Args:
        fd: the tree's root.
        root: the record.
        notices: told of what the record does not have, and of what cannot be set.

    Raises:
        DestinationError: something in the tree is not as the record says, or cannot be changed.
    """
    try:
        applier = _Applier(fd, root, notices)
    except OSError as error:
        raise DestinationError.from_os(error, "look at the tree") from error
    return applier.run()


class _Applier:
    """Goes through the steps; everything is opened by one name in its parent."""

    def __init__(self, fd: int, root: Directory, notices: Notices) -> None:
        self._fd = fd
        self._root = root
        self._notices = notices
        self._handles = DirFdCache(fd)
        self._attributes = Attributes(fd, notices, OutputPolicy())
        self._mount = linux.mount_id(fd)
        self._device = os.fstat(fd).st_dev
        # Inodes with several names: how many the record has, how many there are, and one of them.
        # Inodes that have their attributes already.
        self._names: dict[int, _Linked] = {}
        self._done: set[int] = set()
        self._counts = Counts()

    def run(self) -> Counts:
        """Do it."""
        try:
            self._lock(self._root)
            for _, _, node in depth_first(self._root):
                if isinstance(node, Directory):
                    self._lock(node)
            for parent, name, node in depth_first(self._root):
                if not isinstance(node, Directory):
                    self._look(parent, name, node)
            for linked in self._names.values():
                linked.check()
            for parent, name, node in depth_first(self._root):
                if not isinstance(node, Directory):
                    self._apply(parent, name, node)
            for directory in self._root.directories_up():
                self._finish(directory)
        finally:
            self._handles.close()
        return self._counts

    @contextmanager
    def _named(self, parent: Directory, name: bytes, what: str) -> Iterator[None]:
        """Say in errors what they are about."""
        member = parent.path_of(name) or b"/"
        try:
            yield
        except OSError as error:
            raise DestinationError.from_os(error, what, member=member) from error
        except DestinationError as error:
            raise error.locate(member=member) from error.__cause__

    def _lock(self, directory: Directory) -> None:
        """Let nobody but root change what is in a directory."""
        with self._named(directory.parent or directory, directory.name, "open the directory"):
            fd = self._handles.fd(directory)
            self._check_mount(fd)
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o700)
            linux.clear_acls(fd)

    def _check_mount(self, fd: int) -> None:
        if os.fstat(fd).st_dev != self._device or linux.mount_id(fd) != self._mount:
            raise DestinationError("another file system is mounted there")

    def _look(self, parent: Directory, name: bytes, node: Node) -> None:
        """Compare a name with the record, and count it."""
        with self._named(parent, name, "look at it"):
            try:
                status = os.stat(name, dir_fd=self._handles.fd(parent), follow_symlinks=False)
            except FileNotFoundError:
                if node.kind in ("char", "block"):
                    return
                raise DestinationError(f"the record has a {node.kind} that is not there") from None
            self._check(status, node)
            if status.st_nlink > 1:
                linked = self._names.setdefault(
                    status.st_ino, _Linked(parent.path_of(name), status.st_nlink)
                )
                linked.names += 1

    def _check(self, status: os.stat_result, node: Node) -> None:
        if status.st_dev != self._device:
            raise DestinationError("another file system is mounted there")
        if stat.S_IFMT(status.st_mode) != _FORMATS[node.kind]:
            raise DestinationError(f"the record has a {node.kind} there, and it is something else")
        device = os.major(status.st_rdev), os.minor(status.st_rdev)
        if node.kind in ("char", "block") and device != node.rdev:
            raise DestinationError("the record has another device there")

    def _apply(self, parent: Directory, name: bytes, node: Node) -> None:
        """Set the attributes of anything but a directory; make a device."""
        with self._named(parent, name, "set the attributes"):
            dir_fd = self._handles.fd(parent)
            made = False
            try:
                handle = os.open(name, linux.OPEN_HANDLE, dir_fd=dir_fd)
            except FileNotFoundError:
                os.mknod(name, _FORMATS[node.kind] | 0o600, os.makedev(*node.rdev), dir_fd=dir_fd)
                made = True
                handle = os.open(name, linux.OPEN_HANDLE, dir_fd=dir_fd)
            try:
                self._take(handle, node)
            finally:
                os.close(handle)
            self._attributes.set_by_name(name, dir_fd, node)
            if made:
                self._counts.made += 1
            else:
                self._counts.changed += 1

    def _take(self, handle: int, node: Node) -> None:
        """Give an inode to root, closed, and make sure that it is the one of the record."""
        path = b"/proc/self/fd/%d" % handle
        self._check_mount(handle)
        number = os.fstat(handle).st_ino
        if number not in self._done:
            os.chown(path, 0, 0)
            if node.kind != "symlink":
                os.chmod(path, 0o600)
            _remove_xattrs(path)
        # Whoever had it could have given it one more name, but not any more.
        status = os.fstat(handle)
        self._check(status, node)
        linked = self._names.get(number)
        if status.st_nlink != (linked.names if linked is not None else 1):
            raise DestinationError(_OUTSIDE)
        self._done.add(number)

    def _finish(self, directory: Directory) -> None:
        """Set the attributes of a directory in which everything is done."""
        parent = directory.parent or directory
        with self._named(parent, directory.name, "set the attributes"):
            fd = self._handles.fd(directory)
            for found in os.listdir(fd):
                if os.fsencode(found) not in directory.entries:
                    self._notices.add("not-recorded", directory.path_of(os.fsencode(found)))
            _remove_xattrs(b"/proc/self/fd/%d" % fd)
            self._attributes.set_on_fd(fd, directory, ours=False)
            self._handles.forget(directory)
            self._counts.changed += 1


def _remove_xattrs(path: bytes) -> None:
    """Remove the extended attributes of the inode behind a handle, but those of the host."""
    try:
        names = os.listxattr(path)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in map(os.fsencode, names):
        if not name.startswith(HOST_XATTRS):
            try:
                os.removexattr(path, name)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                    raise DestinationError.from_os(error, f"remove {printable(name)}") from error
