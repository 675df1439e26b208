"""What killed runs have left: telling it from what is not ours to remove, and removing it."""

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

#: In a staging directory: what is made, and the mark by which a left one is known to be ours.
TREE = "rootfs"
MARK = "ociroot-staging"
#: What is beside a staging directory for a moment has its name and this.
BESIDE = "~"
# How a staging directory's own name ends.
_ENDING = re.compile("[0-9a-f]{12}")
# In a staging directory, too: the number of an inode that may be in it or beside it.
_NUMBER = "inode-"


def clean_up(parent_fd: int, name: str, notices: Notices) -> bool:
    """Remove the staging directories that killed processes of ours have left for a name.

    That is done in a directory of our own, or in one like /tmp, where others cannot exchange what
    is ours; and with what has our mark, or is empty.

    Args:
        parent_fd: the directory that they are in.
        name: the name of what they were for.
        notices: told of what is left there.

    Returns:
        Whether another process is at work for that name.
    """
    prefix = prefix_of(name)
    in_use = False
    for found in os.listdir(parent_fd):
        if not found.startswith(prefix) or not _ENDING.fullmatch(found, len(prefix)):
            continue
        with suppress(OSError):  # it is gone meanwhile; and what cannot be removed is in no way
            fd = os.open(found, OPEN_DIRECTORY, dir_fd=parent_fd)
            try:
                in_use |= _clean_up_one(parent_fd, found, fd, notices)
            finally:
                os.close(fd)
    return in_use


def _clean_up_one(parent_fd: int, name: str, fd: int, notices: Notices) -> bool:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return False  # none of ours
    free = lock(fd)
    if free is None:
        return False  # whether it is in use cannot be known
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
    """Say whether the directory in a staging directory is locked by whoever works there."""
    try:
        tree = os.open(TREE, OPEN_DIRECTORY, dir_fd=fd)
    except OSError:
        return False
    try:
        status = os.fstat(tree)
        # Another may have opened what was at the destination before, and hold a lock on that.
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
    """Say whether nobody else can have put a directory of ours under another name in this one."""
    status = os.fstat(parent_fd)
    return status.st_uid == os.geteuid() or (
        status.st_uid == 0 and bool(status.st_mode & stat.S_ISVTX)
    )


def remove_staging(parent_fd: int, name: str, fd: int) -> None:
    """Remove a staging directory, and what was noted in it to be in it or beside it.

    Args:
        parent_fd: the directory that it is in.
        name: its name there.
        fd: its descriptor.

    Raises:
        OSError: something cannot be removed, or was not noted: it stays.
    """
    noted = _noted(fd)
    _remove_noted(parent_fd, name + BESIDE, noted)
    if not _remove_noted(fd, TREE, noted):
        with suppress(FileNotFoundError):
            os.rmdir(TREE, dir_fd=fd)
    # The mark goes last, for whoever comes after us if we do not come to the end.
    empty_directory(fd, keep=MARK)
    with suppress(FileNotFoundError):
        os.rmdir(MARK, dir_fd=fd)
    remove_open(parent_fd, name, fd)


def note(fd: int, *inodes: os.stat_result) -> None:
    """Note in a staging directory what may be in it or beside it.

    These are names, as the mark is: to make them takes no descriptor, and they are there at once.

    Args:
        fd: its descriptor.
        inodes: what it is.
    """
    for number in {inode.st_ino for inode in inodes}:
        os.mkdir(f"{_NUMBER}{number}", 0o700, dir_fd=fd)


def _noted(fd: int) -> set[int]:
    names = os.listdir(fd)
    return {int(name.removeprefix(_NUMBER)) for name in names if name.startswith(_NUMBER)}


def _remove_noted(dir_fd: int, name: str, noted: set[int]) -> bool:
    """Remove a directory, if it is one of those that were noted; say whether it was."""
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
    """Lock an open directory until it is closed by all who have it open.

    Returns:
        Whether it is ours now, or another's; None: this file system has no locks.
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
    """Return how the names of the staging directories for a name begin."""
    # A name has at most 255 bytes; bytes that are no text any more stay as they are.
    return f".{os.fsdecode(os.fsencode(name)[:200])}.ociroot-"
