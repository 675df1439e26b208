"""Staging directories: where a result is made before anybody can see it.

One lies beside what it is for, named so that a person knows what it is, with two things in it:

    .NAME.ociroot-1a2b3c4d5e6f/    0700 and ours, from the first moment to the last
        ociroot-staging            the mark: by it, and not by the name, it is known to be ours
        rootfs/                    what is made

It is removed at the end. One that a killed process has left is not locked (flock(2)) any more: the
next to work there removes it, if nobody else can have put something of ours in its place.
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

# The end of the name where there may be but one.
_ONLY = "0" * 12
# How often to make another one, when another run has removed it before it was locked.
_TRIES = 100


class StagingDirectory:
    """A directory that only we can enter, and in it the one that a result is made in.

    Attributes:
        name: its name in its parent; empty: there is none.
        fd: the descriptor of the one in it. It is locked while anybody has it open, so also while
            a second process writes there.
        published: whether what it is for has been done.
        left: the name of what could not be removed; empty: nothing is left.
        why: the reason.
    """

    def __init__(self, parent_fd: int, old_fd: int = -1) -> None:
        """Prepare one.

        Args:
            parent_fd: the directory to make it in.
            old_fd: the directory that will be exchanged for what is made, and removed; -1: none.
        """
        self._parent_fd = parent_fd
        self._old_fd = old_fd
        self._outer_fd = -1
        self._keeps_time = False
        self.name = ""
        self.fd = -1
        self.published = False
        self.left = self.why = ""

    # At the beginning.

    def make(self, name: str) -> bool:
        """Make both; say whether they could be made under that name.

        Raises:
            DestinationError: somebody interferes.
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
        """Open and lock what has been made; say whether no other run took it for a left-over."""
        with suppress(FileNotFoundError):
            self._outer_fd = open_own(name, self._parent_fd, linux.mount_id(self._parent_fd))
            free = lock(self._outer_fd) is not False
            if free and not _is_another(name, self._parent_fd, self._outer_fd):
                return True
        self._close_outer()
        return False

    def _mark(self, name: str) -> None:
        """Leave the mark in what has been opened, if that is what has been made."""
        if os.listdir(self._outer_fd):
            raise DestinationError("its staging directory was not empty when it was opened")
        os.mkdir(MARK, 0o700, dir_fd=self._outer_fd)
        made = os.stat(MARK, dir_fd=self._outer_fd, follow_symlinks=False)
        # Compared with what is surely ours: a file system may show us as another user (FUSE).
        if made.st_uid != os.fstat(self._outer_fd).st_uid:
            os.rmdir(MARK, dir_fd=self._outer_fd)
            raise DestinationError("another user has exchanged its staging directory")
        self.name = name

    def _try_moving(self) -> bool:
        """Move what was made as it will be at the end, and back; say whether it keeps its time.

        It does not with XFS, when it is exchanged with a directory of another one.
        """
        beside, outer, parent = self.name + BESIDE, self._outer_fd, self._parent_fd
        os.utime(self.fd, ns=(0, 0))
        if self._old_fd < 0:
            os.rename(TREE, beside, src_dir_fd=outer, dst_dir_fd=parent)
            os.rename(beside, TREE, src_dir_fd=parent, dst_dir_fd=outer)
        else:
            os.mkdir(BESIDE, 0o700, dir_fd=outer)
            # Before it is there, for whoever finds it.
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

        It is open before and after the work; in between, descriptors may be few.
        """
        if self._outer_fd < 0:
            self._outer_fd = os.open("..", OPEN_DIRECTORY, dir_fd=self.fd)
            with suppress(OSError):  # there are no locks here
                # Another run has it locked only while it looks whether this one is in use.
                fcntl.flock(self._outer_fd, fcntl.LOCK_EX)
        return self._outer_fd

    # At the end.

    def put(self, name: str, finish: Callable[[int], None], *, sync: bool) -> None:
        """Have what was made take its place beside the staging directory, in one step.

        Args:
            name: its name there.
            finish: sets its attributes.
            sync: whether all of it must be on the disk before.

        Raises:
            DestinationError: there is something else by now.
            OSError: the kernel refuses it.
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
        # Whoever may write to the parent can have put something else in the place of either.
        if _is_another(name, self._parent_fd, self.fd):
            raise _in_the_way()
        if self._old_fd >= 0 and _is_another(made, from_fd, self._old_fd):
            self._exchange(from_fd, made, name)
            raise _in_the_way()

    def _exchange(self, from_fd: int, made: str, name: str) -> None:
        linux.renameat2(from_fd, made, self._parent_fd, name, linux.RENAME_EXCHANGE)

    def _move_beside(self, *, sync: bool) -> None:
        """Move what was made out of the staging directory, but not yet to its place.

        To be moved to another directory, one must be writable to an ordinary user, since it holds
        its `..`; a root of mode 0555 is not. And it may not keep its time. The step that makes it
        visible is within one directory then, where neither is so.
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
        """Remove it with all that is in it, and with what was exchanged, if it is there.

        Raises:
            OSError: that could not be done.
        """
        if not self.name:
            return
        outer_fd = self.hold()
        if self.published:
            self._close_tree()  # descriptors may be few
        # By descriptor, wherever somebody may have moved it.
        unwanted = self._old_fd if self.published else self.fd
        if unwanted >= 0:
            empty_directory(unwanted)
        remove_staging(self._parent_fd, self.name, outer_fd)
        self.name = ""

    def rest(self) -> str:
        """Return the name of what is left in the parent: what it was exchanged for, or itself."""
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
    """Say whether a name is known to be that of something else than an open directory."""
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
    """Make a directory that only we can enter; at the end remove it, unless it has been moved.

    Args:
        parent_fd: the directory to make it in, where what others have left is removed.
        name: the name of what it is for.
        notices: told of what is left there.
        old_fd: the directory that will be exchanged for what is made; -1: none will.
        exclusive: whether there may be but one at a time; nobody else may make names there then.

    Raises:
        DestinationError: there is another one, or somebody interferes.
        OSError: it cannot be made, or not be removed though nothing else has failed.
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
    """Take from a directory what it got from its parent, and let nobody else enter it.

    A parent with a default ACL or the set-group-ID bit hands them on; the image's root and all
    below it have no part in that. The kernel drops the bit with the mode.
    """
    linux.clear_acls(fd)
    os.fchmod(fd, 0o700)
    with suppress(PermissionError):
        os.fchown(fd, os.geteuid(), os.getegid())


def under_way() -> DestinationError:
    """Return what to raise when another process is at work for the same destination."""
    return DestinationError("another extraction to it is under way")


def _in_the_way() -> DestinationError:
    return DestinationError("something else was put there meanwhile")
