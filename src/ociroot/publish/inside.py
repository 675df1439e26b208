"""Filling a directory in place: what is made in it is moved up at the end."""

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

# What mkfs leaves at the top of a file system.
_LOST_FOUND = "lost+found"


def held(fd: int, *, mounted: bool) -> set[str]:
    """Return what is in a directory, but for what mkfs leaves in a file system.

    Args:
        fd: its descriptor.
        mounted: whether it is a mount point.
    """
    found = set(names(fd))
    if mounted and _LOST_FOUND in found:
        status = os.stat(_LOST_FOUND, dir_fd=fd, follow_symlinks=False)
        # Anybody may have made it in a file system that anybody may write to.
        own = status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
        if own and stat.S_ISDIR(status.st_mode):
            found.discard(_LOST_FOUND)
    return found


def names(fd: int) -> list[str]:
    """Return what is in a directory, which may be gone.

    It is opened anew: btrfs shows in an open directory what it held when it was opened (seen with
    Linux 6.18).
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
    """Let nobody else make names in a directory; on an error it is again as it was."""
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
    """Move what was made from the staging directory to the one that it is in.

    Args:
        place: the staging directory, which is removed.
        fd: the one that it is in.
        finish: sets the attributes of that one.
        mounted: whether that one is a mount point.

    Raises:
        DestinationError: somebody has put something there.
        OSError: the kernel refuses it. Nothing has been moved then.
    """
    entries = names(place.fd)
    try:
        os.fchmod(fd, 0o700)  # until all is there
        for entry in entries:
            if mounted and entry == _LOST_FOUND:
                # The file system's own is as empty as a directory to be replaced must be.
                os.rename(entry, entry, src_dir_fd=place.fd, dst_dir_fd=fd)
            else:
                _move(entry, place.fd, fd)
        # Before the root gets its time, which this would change, and its mode, which might not let
        # us.
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
            # What is still waiting has not been moved: another's may have its name there.
            if entry not in waiting:
                remove_tree(fd, entry)
        raise


def _move(entry: str, from_fd: int, to_fd: int) -> None:
    """Move a name to where there is none."""
    try:
        linux.renameat2(from_fd, entry, to_fd, entry, linux.RENAME_NOREPLACE)
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        # A directory that its owner may not write to: it holds its `..`. That is for root alone.
        mode = stat.S_IMODE(os.stat(entry, dir_fd=from_fd, follow_symlinks=False).st_mode)
        fd = open_own(entry, from_fd, linux.mount_id(from_fd))
        try:
            linux.renameat2(from_fd, entry, to_fd, entry, linux.RENAME_NOREPLACE)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
