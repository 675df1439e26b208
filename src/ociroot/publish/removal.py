"""Removing a tree of directories, however deep and whatever its modes are."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress

from .. import linux
from ..linux import OPEN_DIRECTORY, OPEN_HANDLE

__all__ = ["empty_directory", "open_own", "remove_open", "remove_tree"]


def remove_tree(dir_fd: int, name: str) -> None:
    """Remove whatever has a name, a directory with everything below it.

    Args:
        dir_fd: the directory that it is in.
        name: its name there; nothing happens when there is none.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        fd = open_own(name, dir_fd, linux.mount_id(dir_fd))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=dir_fd)
        return
    try:
        remove_open(dir_fd, name, fd)
    finally:
        os.close(fd)


def remove_open(dir_fd: int, name: str, fd: int) -> None:
    """Remove an open directory with everything below it.

    Args:
        dir_fd: the directory that it is in.
        name: its name there. If that stands for something else by now, that stays.
        fd: its descriptor.

    Raises:
        OSError: something cannot be removed.
    """
    empty_directory(fd)
    now = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if not os.path.samestat(now, os.fstat(fd)):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    os.rmdir(name, dir_fd=dir_fd)


def empty_directory(top: int, keep: str = "") -> None:
    """Remove everything in an open directory.

    No path and no recursion: a directory below the top one is moved up to the top one, under a name
    of ours, before it is emptied itself. So the depth is never more than two, and neither a deep
    tree nor few file descriptors are a problem. No symbolic link is followed, and nothing that is
    mounted somewhere below is entered or changed.

    Args:
        top: its descriptor.
        keep: a name in it that stays.

    Raises:
        OSError: something cannot be removed.
    """
    if os.fstat(top).st_mode & 0o700 != 0o700:
        with suppress(PermissionError):
            os.fchmod(top, 0o700)
    mount = linux.mount_id(top)
    fresh = (f".{os.urandom(8).hex()}-{number}" for number in itertools.count())
    waiting = _empty(top, top, fresh, mount, keep)
    while waiting:
        below = waiting.pop()
        fd = open_own(below, top, mount)
        try:
            waiting += _empty(fd, top, fresh, mount)
        finally:
            os.close(fd)
        os.rmdir(below, dir_fd=top)


def open_own(name: str, dir_fd: int, mount: int | None) -> int:
    """Open a directory; give ourselves the permissions that its owner needs to empty it.

    Args:
        name: its name.
        dir_fd: the directory that it is in.
        mount: the mount that it must be on; None: that cannot be known here, and only one of
            another device is told from it.

    Raises:
        OSError: the kernel refuses it; EBUSY where something else is mounted there.
    """
    handle = os.open(name, OPEN_HANDLE | os.O_DIRECTORY, dir_fd=dir_fd)
    try:
        status = os.fstat(handle)
        if mount is None:
            apart = status.st_dev != os.fstat(dir_fd).st_dev
        else:
            apart = linux.mount_id(handle) != mount
        if apart:
            # Somebody has mounted something there: its files are not of this tree.
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if status.st_mode & 0o700 != 0o700:
            # Not by its name, which may stand for something else by now. It may be another's, and
            # root needs no permissions.
            with suppress(PermissionError, FileNotFoundError):
                os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", OPEN_DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


def _empty(fd: int, top: int, fresh: Iterator[str], mount: int | None, keep: str = "") -> list[str]:
    """Unlink what are files, move what are directories to the top; return their names there."""
    with os.scandir(fd) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    directories: list[str] = []
    for name, is_directory in entries:
        if name == keep:
            continue
        if not is_directory:
            os.unlink(name, dir_fd=fd)
        elif fd == top:
            directories.append(name)
        else:
            # To be moved, a directory must be writable to an ordinary user: it holds its `..`.
            os.close(open_own(name, fd, mount))
            moved = next(fresh)
            os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=top)
            directories.append(moved)
    return directories
