"""Left-overs of killed runs: recognise those that are ours, and remove them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress

from .. import linux
from ..errors import printable
from ..linux import OPEN_DIRECTORY
from ..notices import Notices
from .removal import empty_directory, open_own, remove_open
from .signals import first_signal_waits

__all__ = ["BESIDE", "MARK", "TREE", "clean_up", "lock", "note", "prefix_of", "remove_staging"]

#: In a staging directory: the result, and the mark that identifies a left-over as ours.
TREE = "rootfs"
MARK = "ociroot-staging"
#: The suffix of the name of a directory that is temporarily beside its staging directory.
BESIDE = "~"
# The suffix of a staging directory's name.
_ENDING = re.compile("[0-9a-f]{12}")
# The prefix of the notes in a staging directory: the numbers of inodes in it or beside it.
_NUMBER = "inode-"


def clean_up(parent_fd: int, name: str, notices: Notices) -> bool:
    """Remove the staging directories that our killed processes have left for a destination.

    They are removed only if they have our mark or are empty, and only from our own directory or one
    like /tmp, where other users cannot exchange them.

    Args:
        parent_fd: the descriptor of their parent.
        name: the name of the destination.
        notices: collects warnings about those that are kept.

    Returns:
        Whether another process is working on that destination.
    """
    prefix = prefix_of(name)
    in_use = False
    for found in os.listdir(parent_fd):
        if not found.startswith(prefix) or not _ENDING.fullmatch(found, len(prefix)):
            continue
        with suppress(OSError):  # removed meanwhile; one that cannot be removed does no harm
            fd = os.open(found, OPEN_DIRECTORY, dir_fd=parent_fd)
            try:
                in_use |= _clean_up_one(parent_fd, found, fd, notices)
            finally:
                os.close(fd)
    return in_use


def _clean_up_one(parent_fd: int, name: str, fd: int, notices: Notices) -> bool:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return False  # not ours
    free = lock(fd)
    if free is None:
        return False  # unknown whether it is in use
    if not free or _in_use(fd):
        return True
    mount = linux.mount_id(fd)
    marked = _marked(fd) or not os.listdir(fd)
    if not marked or mount is None or mount != linux.mount_id(parent_fd) or not _safe(parent_fd):
        notices.add("left-over-kept", name)
        return False
    with first_signal_waits():
        try:
            remove_staging(parent_fd, name, fd)
        except OSError:
            raise
        except BaseException as stopped:  # a second signal
            stopped.add_note(f"{printable(name)} was left behind")
            raise
    return False


def _in_use(fd: int) -> bool:
    """Return whether another run has locked the tree in a staging directory."""
    try:
        tree = os.open(TREE, OPEN_DIRECTORY, dir_fd=fd)
    except OSError:
        return False
    try:
        status = os.fstat(tree)
        # After an exchange this is the old tree, on which any process may hold a lock.
        private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        return private and lock(tree) is False
    finally:
        os.close(tree)


def _marked(fd: int) -> bool:
    try:
        status = os.stat(MARK, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _safe(parent_fd: int) -> bool:
    """Return whether no other user can have renamed a directory of ours in this one."""
    status = os.fstat(parent_fd)
    return status.st_uid == os.geteuid() or (
        status.st_uid == 0 and bool(status.st_mode & stat.S_ISVTX)
    )


def remove_staging(parent_fd: int, name: str, fd: int) -> None:
    """Remove a staging directory, and the noted directories in it or beside it.

    Args:
        parent_fd: the descriptor of its parent.
        name: its name.
        fd: its descriptor.

    Raises:
        OSError: something cannot be removed, or was not noted and is kept.
    """
    noted = _noted(fd)
    _remove_noted(parent_fd, name + BESIDE, noted)
    if not _remove_noted(fd, TREE, noted):
        with suppress(FileNotFoundError):
            os.rmdir(TREE, dir_fd=fd)
    # The mark is removed last, so that the next run can continue if this one is killed.
    empty_directory(fd, keep=MARK)
    with suppress(FileNotFoundError):
        os.rmdir(MARK, dir_fd=fd)
    remove_open(parent_fd, name, fd)


def note(fd: int, *inodes: os.stat_result) -> None:
    """Record in a staging directory which inodes may be in it or beside it.

    The notes are directory names, like the mark: creating them needs no descriptor and is atomic.

    Args:
        fd: its descriptor.
        inodes: the inodes.
    """
    for number in {inode.st_ino for inode in inodes}:
        os.mkdir(f"{_NUMBER}{number}", 0o700, dir_fd=fd)


def _noted(fd: int) -> set[int]:
    names = os.listdir(fd)
    return {int(name.removeprefix(_NUMBER)) for name in names if name.startswith(_NUMBER)}


def _remove_noted(dir_fd: int, name: str, noted: set[int]) -> bool:
    """Remove a directory if it was noted; return whether it was."""
    try:
        if os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino not in noted:
            return False
        fd = open_own(name, dir_fd, linux.mount_id(dir_fd))
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_ino not in noted:
            return False
        remove_open(dir_fd, name, fd)
    finally:
        os.close(fd)
    return True


def lock(fd: int) -> bool | None:
    """Lock an open directory until all copies of the descriptor are closed.

    Returns:
        True if the lock was acquired, False if another process has it; None if the file system
        does not support locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        return None
    return True


def prefix_of(name: str) -> str:
    """Return the prefix of the names of staging directories for a destination."""
    # A name has at most 255 bytes; a character cut in two is kept as surrogate escapes.
    return f".{os.fsdecode(os.fsencode(name)[:200])}.ociroot-"
