"""Removing a tree of directories, however deep and whatever its modes are."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress

from . import linux

__all__ = ["remove_tree"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(dir_fd: int, name: str) -> None:
    """Remove a directory and everything below it; nothing happens when it is not there.

    No path and no recursion: a directory below the top one is moved up to the top one, under a name
    of ours, before it is emptied itself. So the depth is never more than two, and neither a deep
    tree nor few file descriptors are a problem. No symbolic link is followed.

    Args:
        dir_fd: the directory that it is in.
        name: its name there.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        top = _open(name, dir_fd)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=dir_fd)
        return
    here = linux.mount_id(top)
    fresh = (f".{os.urandom(8).hex()}-{number}" for number in itertools.count())
    try:
        waiting = _empty(top, top, fresh)
        while waiting:
            below = waiting.pop()
            fd = _open(below, top)
            try:
                if linux.mount_id(fd) != here:
                    # Somebody has mounted something there: its files are not of this tree.
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                waiting += _empty(fd, top, fresh)
            finally:
                os.close(fd)
            os.rmdir(below, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _open(name: str, dir_fd: int) -> int:
    """Open a directory; give ourselves the permissions that its owner needs to empty it."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            with suppress(PermissionError):  # another's; root needs no permissions
                os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(name, _OPEN, dir_fd=dir_fd)
    finally:
        os.close(handle)


def _empty(fd: int, top: int, fresh: Iterator[str]) -> list[str]:
    """Unlink what are files, move what are directories to the top; return their names there."""
    with os.scandir(fd) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    directories: list[str] = []
    for name, is_directory in entries:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
        elif fd == top:
            directories.append(name)
        else:
            # To be moved, a directory must be writable to an ordinary user: it holds its `..`.
            os.close(_open(name, fd))
            moved = next(fresh)
            os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=top)
            directories.append(moved)
    return directories
