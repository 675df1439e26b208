"""Staging directories, in which results are created before they are visible.

A staging directory is beside its destination, with a telling name and two entries:

    .NAME.ociroot-1a2b3c4d5e6f/    mode 0700 and owned by us, from beginning to end
        ociroot-staging            the mark that identifies it as ours, rather than the name
        rootfs/                    the result

It is removed at the end. A left-over of a killed process is no longer locked (flock(2)): the next
run for that destination removes it, if no other user can have exchanged it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .. import linux
from ..errors import DestinationError
from ..linux import OPEN_DIRECTORY
from ..notices import Notices
from .leftovers import BESIDE, MARK, TREE, clean_up, lock, note, prefix_of, remove_staging
from .location import may_write
from .probes import exchanging
from .removal import empty_directory, open_own
from .signals import first_signal_waits

__all__ = ["StagingDirectory", "staging_directory", "under_way"]

# The suffix of the name if only one may exist.
_ONLY = "0" * 12
# The maximum number of retries when another run removed it before it was locked.
_TRIES = 100


class StagingDirectory:
    """A directory that only we can enter, with the directory for the result in it.

    Attributes:
        name: its name in its parent; empty: it does not exist.
        fd: the descriptor of the directory for the result. It is locked while any process has it
            open, which includes the second writer process.
        published: whether the result has been published.
        left: the name of what could not be removed; empty: nothing is left.
        why: the reason.
    """

    def __init__(self, parent_fd: int, old_fd: int = -1) -> None:
        """Prepare one.

        Args:
            parent_fd: the descriptor of its parent.
            old_fd: the directory that will be exchanged for the result, and removed; -1: none.
        """
        self._parent_fd = parent_fd
        self._old_fd = old_fd
        self._outer_fd = -1
        self._keeps_time = False
        self.name = ""
        self.fd = -1
        self.published = False
        self.left = self.why = ""

    # Creation.

    def make(self, name: str) -> bool:
        """Create and lock both directories; return False if the name must be tried again.

        Raises:
            DestinationError: another process interferes.
        """
        try:
            os.mkdir(name, 0o700, dir_fd=self._parent_fd)
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise DestinationError("its parent directory has been removed") from None
        try:
            if not self._open(name):
                return False
            self._mark(name)
        except OSError:
            if not self.name:
                with suppress(OSError):
                    os.rmdir(name, dir_fd=self._parent_fd)
            raise
        _make_private(self._outer_fd)
        os.mkdir(TREE, 0o700, dir_fd=self._outer_fd)
        self.fd = open_own(TREE, self._outer_fd, linux.mount_id(self._outer_fd))
        lock(self.fd)
        _make_private(self.fd)
        note(self._outer_fd, *(os.fstat(fd) for fd in (self.fd, self._old_fd) if fd >= 0))
        self._keeps_time = self._try_moving()
        self._close_outer()
        return True

    def _open(self, name: str) -> bool:
        """Open and lock the new directory; return False if another run has removed it."""
        with suppress(FileNotFoundError):
            self._outer_fd = open_own(name, self._parent_fd, linux.mount_id(self._parent_fd))
            free = lock(self._outer_fd) is not False
            if free and not _is_another(name, self._parent_fd, self._outer_fd):
                return True
        self._close_outer()
        return False

    def _mark(self, name: str) -> None:
        """Create the mark, if the opened directory is the one that was created."""
        if os.listdir(self._outer_fd):
            raise DestinationError("its staging directory was not empty when it was opened")
        os.mkdir(MARK, 0o700, dir_fd=self._outer_fd)
        made = os.stat(MARK, dir_fd=self._outer_fd, follow_symlinks=False)
        # Compared with a new file of ours: a file system may map our uid (FUSE).
        if made.st_uid != os.fstat(self._outer_fd).st_uid:
            os.rmdir(MARK, dir_fd=self._outer_fd)
            raise DestinationError("another user has exchanged its staging directory")
        self.name = name

    def _try_moving(self) -> bool:
        """Test the final move and undo it; return whether the directory keeps its mtime.

        On XFS it does not if it is exchanged with an entry of another directory.
        """
        beside, outer, parent = self.name + BESIDE, self._outer_fd, self._parent_fd
        os.utime(self.fd, ns=(0, 0))
        if self._old_fd < 0:
            os.rename(TREE, beside, src_dir_fd=outer, dst_dir_fd=parent)
            os.rename(beside, TREE, src_dir_fd=parent, dst_dir_fd=outer)
        else:
            os.mkdir(BESIDE, 0o700, dir_fd=outer)
            # Noted before it is moved, so that a later run can identify it.
            note(outer, os.stat(BESIDE, dir_fd=outer, follow_symlinks=False))
            os.rename(BESIDE, beside, src_dir_fd=outer, dst_dir_fd=parent)
            try:
                with exchanging():
                    self._exchange(outer, TREE, beside)
                    self._exchange(outer, TREE, beside)
            finally:
                os.rmdir(beside, dir_fd=parent)
        return os.fstat(self.fd).st_mtime_ns == 0

    def hold(self) -> int:
        """Open and lock the staging directory itself; return its descriptor.

        It is closed during the work, when descriptors may be few.
        """
        if self._outer_fd < 0:
            self._outer_fd = os.open("..", OPEN_DIRECTORY, dir_fd=self.fd)
            with suppress(OSError):  # there are no locks here
                # Another run locks it only while it checks whether it is in use.
                fcntl.flock(self._outer_fd, fcntl.LOCK_EX)
        return self._outer_fd

    # Publication and removal.

    def put(self, name: str, finish: Callable[[int], None], *, sync: bool) -> None:
        """Publish the result beside the staging directory, in one step.

        Args:
            name: its name in the parent.
            finish: sets its attributes.
            sync: whether it is flushed to the disk first.

        Raises:
            DestinationError: something else was put there meanwhile.
            OSError: a system call failed.
        """
        self.hold()
        finish(self.fd)
        if sync:
            linux.syncfs(self.fd)
        with first_signal_waits():
            self._put(name, sync=sync)
            self.published = True

    def _put(self, name: str, *, sync: bool) -> None:
        from_fd, made = self.hold(), TREE
        moved = [fd for fd in (self.fd, self._old_fd) if fd >= 0]
        if not (self._keeps_time and all(map(may_write, moved))):
            self._move_beside(sync=sync)
            from_fd, made = self._parent_fd, self.name + BESIDE
        try:
            if self._old_fd < 0:
                # rename(2): an existing directory "must … be empty".
                os.rename(made, name, src_dir_fd=from_fd, dst_dir_fd=self._parent_fd)
            else:
                self._exchange(from_fd, made, name)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _in_the_way() from error
            raise
        # A user who may write to the parent can have exchanged either of them.
        if _is_another(name, self._parent_fd, self.fd):
            raise _in_the_way()
        if self._old_fd >= 0 and _is_another(made, from_fd, self._old_fd):
            self._exchange(from_fd, made, name)
            raise _in_the_way()

    def _exchange(self, from_fd: int, made: str, name: str) -> None:
        linux.renameat2(from_fd, made, self._parent_fd, name, linux.RENAME_EXCHANGE)

    def _move_beside(self, *, sync: bool) -> None:
        """Move the result out of the staging directory, to a temporary name beside it.

        Moving a directory to another parent changes its `..`, so an ordinary user needs write
        permission, which a root of mode 0555 lacks; and it may change its mtime. Then the final
        step is a rename within one directory, to which neither applies.
        """
        status = os.fstat(self.fd)
        os.fchmod(self.fd, 0o700)
        beside = self.name + BESIDE
        os.rename(TREE, beside, src_dir_fd=self.hold(), dst_dir_fd=self._parent_fd)
        os.fchmod(self.fd, stat.S_IMODE(status.st_mode))
        os.utime(self.fd, ns=(status.st_atime_ns, status.st_mtime_ns))
        if sync:
            os.fsync(self.fd)

    def remove(self) -> None:
        """Remove it with its content, and with the tree that was replaced, if any.

        Raises:
            OSError: something cannot be removed.
        """
        if not self.name:
            return
        outer_fd = self.hold()
        if self.published:
            self._close_tree()  # descriptors may be few
        # By descriptor, wherever it may have been moved.
        unwanted = self._old_fd if self.published else self.fd
        if unwanted >= 0:
            empty_directory(unwanted)
        remove_staging(self._parent_fd, self.name, outer_fd)
        self.name = ""

    def rest(self) -> str:
        """Return the name of what is left in the parent: the replaced tree, or its own."""
        with suppress(OSError):
            os.stat(self.name + BESIDE, dir_fd=self._parent_fd, follow_symlinks=False)
            return self.name + BESIDE
        return self.name

    def close(self) -> None:
        """Close the descriptors."""
        self._close_outer()
        self._close_tree()

    def _close_tree(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _close_outer(self) -> None:
        if self._outer_fd >= 0:
            os.close(self._outer_fd)
            self._outer_fd = -1


def _is_another(name: str, dir_fd: int, fd: int) -> bool:
    """Return whether a name is known not to be that of an open directory."""
    try:
        now = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        return not os.path.samestat(now, os.fstat(fd))
    except FileNotFoundError:
        return True
    except OSError:
        return False


@contextmanager
def staging_directory(
    parent_fd: int, name: str, notices: Notices, *, old_fd: int = -1, exclusive: bool = False
) -> Iterator[StagingDirectory]:
    """Create and lock a staging directory, retrying if it is removed first; remove it at the end.

    Args:
        parent_fd: the descriptor of its parent.
        name: the name of the destination.
        notices: collects warnings about left-overs that are kept.
        old_fd: the directory that will be exchanged for the result; -1: none.
        exclusive: whether only one may exist at a time; then no other user may write to the
            parent.

    Raises:
        DestinationError: there is another one, or another process interferes.
        OSError: it cannot be created, or cannot be removed although nothing else has failed.
    """
    place = StagingDirectory(parent_fd, old_fd)
    failed = True
    try:
        with first_signal_waits():
            for _ in range(_TRIES):
                if place.make(prefix_of(name) + (_ONLY if exclusive else os.urandom(6).hex())):
                    break
                if exclusive and clean_up(parent_fd, name, notices):
                    raise under_way()
            else:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        yield place
        failed = False
    finally:
        try:
            with first_signal_waits():
                _remove_at_last(place, failed=failed)
        finally:
            place.close()


def _remove_at_last(place: StagingDirectory, *, failed: bool) -> None:
    try:
        place.remove()
    except OSError as error:
        place.left, place.why = place.rest(), os.strerror(error.errno or 0)
        if not failed and not place.published:
            raise
    except BaseException:  # a second signal
        place.left = place.rest()
        raise


def _make_private(fd: int) -> None:
    """Remove inherited attributes from a directory, and make it accessible only to us.

    A default ACL and the set-group-ID bit of the parent are inherited, and must not apply to the
    image's files. The kernel clears the bit when the mode is set.
    """
    linux.clear_acls(fd)
    os.fchmod(fd, 0o700)
    with suppress(PermissionError):
        os.fchown(fd, os.geteuid(), os.getegid())


def under_way() -> DestinationError:
    """Return the error for another run that works on the same destination."""
    return DestinationError("another extraction to it is in progress")


def _in_the_way() -> DestinationError:
    return DestinationError("something else was put there meanwhile")
