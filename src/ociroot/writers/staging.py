"""Staging directories: where a result is made before anybody can see it.

One lies beside what it is for, named so that a person knows what it is: ``.NAME.ociroot-1a2b3c``.
It is 0700 from the first moment, locked (flock(2)) while it is in use, and removed at the end. One
that a killed or crashed process has left is not locked any more: the next to work there removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .attributes import Attributes
from .removal import remove_tree

__all__ = [
    "DIRECTORY",
    "Place",
    "lock",
    "remove_left_over",
    "staging_directory",
    "sync_file_system",
]

#: How directories are opened that are the user's own to name.
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Place:
    """A staging directory.

    Attributes:
        name: its name in its parent.
        fd: its descriptor.
        published: whether what it was for has been done. What lies under its name then, the tree
            that was there before, is only in the way.
        left: why what lies under its name could not be removed; empty: it was.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.published = False
        self.left = ""


@contextmanager
def staging_directory(parent_fd: int, name: str) -> Iterator[Place]:
    """Make a directory that only we can enter; at the end remove what is still there under it.

    Args:
        parent_fd: the directory to make it in.
        name: the name of what it is for.

    Raises:
        OSError: it cannot be made, or not be removed though nothing else has failed.
    """
    remove_left_over(parent_fd, name)
    token = secrets.token_hex(6)
    # Not by the name that others clean up before it is locked.
    fresh, staging = f".ociroot-new-{token}", _prefix(name) + token
    place = Place(staging, -1)
    failed = True
    try:
        os.mkdir(fresh, 0o700, dir_fd=parent_fd)
        place.fd = fd = os.open(fresh, DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        lock(fd)
        os.rename(fresh, staging, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        # A parent with a default ACL or the set-group-ID bit hands them on; the image's root and
        # all below it have no part in that. The kernel drops the bit with the mode.
        Attributes.clear_acls(fd)
        os.fchmod(fd, 0o700)
        with suppress(PermissionError):
            os.fchown(fd, os.geteuid(), os.getegid())
        yield place
        failed = False
    finally:
        try:
            for each in (fresh, staging):
                remove_tree(parent_fd, each)
        except OSError as error:
            place.left = os.strerror(error.errno or 0)
            if not failed and not place.published:
                raise
        finally:
            if place.fd >= 0:
                os.close(place.fd)


def _prefix(name: str) -> str:
    # A name has at most 255 bytes; bytes that are no text any more stay as they are.
    return f".{os.fsdecode(os.fsencode(name)[:200])}.ociroot-"


def lock(fd: int) -> bool:
    """Lock an open directory until it is closed; say whether nobody else has.

    A file system without locks has none that others could hold.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    return True


def remove_left_over(parent_fd: int, name: str) -> None:
    """Remove the staging directories that killed processes of ours have left for a name.

    Args:
        parent_fd: the directory that they are in.
        name: the name of what they were for.
    """
    prefix = _prefix(name)
    for found in os.listdir(parent_fd):
        if not found.startswith(prefix):
            continue
        try:
            fd = os.open(found, DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        except OSError:
            continue  # gone meanwhile, or nothing of ours
        try:
            if os.fstat(fd).st_uid == os.geteuid() and lock(fd):
                with suppress(OSError):  # what cannot be removed is not in our way
                    remove_tree(parent_fd, found)
        finally:
            os.close(fd)


def sync_file_system(fd: int) -> None:
    """Write to the disk what a file system has in memory (syncfs(2), which Python has not)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
