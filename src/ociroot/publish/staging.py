"""Staging directories: where a result is made before anybody can see it.

One lies beside what it is for, named so that a person knows what it is: ``.NAME.ociroot-1a2b3c``.
It is 0700 from the first moment, locked (flock(2)) while it is in use, and removed at the end. One
that a killed or crashed process has left is not locked any more: the next to work there removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..writers.attributes import Attributes
from .removal import remove_tree

__all__ = [
    "DIRECTORY",
    "Place",
    "lock",
    "remove_left_over",
    "staging_directory",
]

# How often to make another one, when somebody has cleaned up the last too early.
_TRIES = 100

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
    place = Place("", -1)
    failed = True
    try:
        _make(place, parent_fd, _prefix(name))
        fd = place.fd
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
            if place.name:
                remove_tree(parent_fd, place.name)
        except OSError as error:
            place.left = os.strerror(error.errno or 0)
            if not failed and not place.published:
                raise
        finally:
            if place.fd >= 0:
                os.close(place.fd)


def _make(place: Place, parent_fd: int, prefix: str) -> None:
    """Make and lock a directory that nobody has cleaned up before it was locked."""
    for _ in range(_TRIES):
        place.name = prefix + os.urandom(6).hex()
        os.mkdir(place.name, 0o700, dir_fd=parent_fd)
        with suppress(FileNotFoundError):
            place.fd = _open_made(place.name, parent_fd)
            if lock(place.fd) is not False:
                now = os.stat(place.name, dir_fd=parent_fd, follow_symlinks=False)
                if os.path.samestat(now, os.fstat(place.fd)):
                    return
        if place.fd >= 0:
            os.close(place.fd)
        place.name, place.fd = "", -1
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _open_made(name: str, parent_fd: int) -> int:
    """Open a directory that has just been made, also if the umask denies its owner to read it."""
    try:
        return os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    except PermissionError:
        fd = os.open(name, os.O_PATH | DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        # Not by its name, which may stand for something else by now.
        with suppress(FileNotFoundError):  # without /proc it cannot be opened, which is said next
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        return os.open(".", DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)


def _prefix(name: str) -> str:
    # A name has at most 255 bytes; bytes that are no text any more stay as they are.
    return f".{os.fsdecode(os.fsencode(name)[:200])}.ociroot-"


def lock(fd: int) -> bool | None:
    """Lock an open directory until it is closed.

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
            if os.fstat(fd).st_uid == os.geteuid() and lock(fd) is True:
                with suppress(OSError):  # what cannot be removed is not in our way
                    remove_tree(parent_fd, found)
        finally:
            os.close(fd)
