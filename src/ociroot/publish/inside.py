"""Fill a directory in place: the result is staged inside it and moved up at the end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .. import linux
from ..errors import DestinationError, printable
from ..linux import OPEN_DIRECTORY
from .removal import open_own, remove_tree
from .staging import StagingDirectory

__all__ = ["closed_to_others", "held", "move_up"]

# The directory that mkfs creates in a file system.
_LOST_FOUND = "lost+found"


def held(fd: int, *, mounted: bool) -> set[str]:
    """Return the names in a directory, except for mkfs's ``lost+found``.

    Args:
        fd: its descriptor.
        mounted: whether it is a mount point.
    """
    found = set(names(fd))
    if mounted and _LOST_FOUND in found:
        status = os.stat(_LOST_FOUND, dir_fd=fd, follow_symlinks=False)
        # In a world-writable file system, any user may have created it.
        own = status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
        if own and stat.S_ISDIR(status.st_mode):
            found.discard(_LOST_FOUND)
    return found


def names(fd: int) -> list[str]:
    """Return the names in a directory, which may have been removed.

    It is opened again: on btrfs an open directory lists its content at the time of opening (seen
    with Linux 6.18).
    """
    try:
        fresh = os.open(".", OPEN_DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        return []
    try:
        return os.listdir(fresh)
    finally:
        os.close(fresh)


@contextmanager
def closed_to_others(fd: int) -> Iterator[None]:
    """Make a directory writable for us alone; restore its owner and mode on an error."""
    before = os.fstat(fd)
    mode = stat.S_IMODE(before.st_mode)
    try:
        if before.st_uid != os.geteuid():
            os.fchown(fd, os.geteuid(), -1)
        if before.st_uid != os.geteuid() or mode & 0o022:
            os.fchmod(fd, 0o700)
        yield
    except BaseException:
        with suppress(OSError):
            now = os.fstat(fd)
            if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, mode)
        raise


def move_up(
    place: StagingDirectory, fd: int, finish: Callable[[int], None], *, mounted: bool
) -> None:
    """Move the result from the staging directory to its parent, the destination.

    Args:
        place: the staging directory, which is removed.
        fd: the descriptor of the destination.
        finish: sets the attributes of the destination.
        mounted: whether the destination is a mount point.

    Raises:
        DestinationError: another process has put something into the destination.
        OSError: a system call failed. Nothing is left moved then.
    """
    entries = names(place.fd)
    try:
        os.fchmod(fd, 0o700)  # until it is complete
        for entry in entries:
            if mounted and entry == _LOST_FOUND:
                # rename(2) replaces only an empty directory, which the file system's own is.
                os.rename(entry, entry, src_dir_fd=place.fd, dst_dir_fd=fd)
            else:
                _move(entry, place.fd, fd)
        # Before the time of the root is set, which this would change, and its mode, which may not
        # allow it.
        place.remove()
        foreign = held(fd, mounted=mounted) - set(entries)
        if foreign:
            raise DestinationError(f"{printable(min(foreign))} was put into it meanwhile")
        finish(fd)
    except BaseException:
        with suppress(OSError):
            os.fchmod(fd, 0o700)
        waiting = names(place.fd)
        for entry in entries:
            # An entry that is still staged was not moved: the one of that name is another user's.
            if entry not in waiting:
                remove_tree(fd, entry)
        raise


def _move(entry: str, from_fd: int, to_fd: int) -> None:
    """Move an entry without replacing an existing one."""
    try:
        linux.renameat2(from_fd, entry, to_fd, entry, linux.RENAME_NOREPLACE)
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        # Moving a directory changes its `..`, so an ordinary user needs write permission on it.
        mode = stat.S_IMODE(os.stat(entry, dir_fd=from_fd, follow_symlinks=False).st_mode)
        fd = open_own(entry, from_fd, linux.mount_id(from_fd))
        try:
            linux.renameat2(from_fd, entry, to_fd, entry, linux.RENAME_NOREPLACE)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
