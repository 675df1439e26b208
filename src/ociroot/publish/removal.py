"""Remove a tree of directories of any depth and with any modes."""

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
    """Remove a name, and everything below it if it is a directory.

    Args:
        dir_fd: the descriptor of its parent.
        name: its name; it need not exist.

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
        dir_fd: the descriptor of its parent.
        name: its name. If another file has this name by now, that one is kept.
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

    It uses neither paths nor recursion: each directory below is moved up to the top one, under a
    temporary name, before it is emptied itself. So the depth is never more than two, and two
    descriptors suffice. Symbolic links are not followed, and mounts are neither entered nor
    changed.

    Args:
        top: its descriptor.
        keep: a name in it that is not removed.

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
    """Open a directory, after adding the permissions that its owner needs to empty it.

    Args:
        name: its name.
        dir_fd: the descriptor of its parent.
        mount: the mount ID that it must have; None: unknown, so the device numbers are compared.

    Raises:
        OSError: a system call failed; EBUSY if it is on another mount.
    """
    handle = os.open(name, OPEN_HANDLE | os.O_DIRECTORY, dir_fd=dir_fd)
    try:
        status = os.fstat(handle)
        if mount is None:
            apart = status.st_dev != os.fstat(dir_fd).st_dev
        else:
            apart = linux.mount_id(handle) != mount
        if apart:
            # A mount point: its files are not part of this tree.
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if status.st_mode & 0o700 != 0o700:
            # Not by name, which may refer to another file by now. Failure is ignored: the directory
            # may belong to another user, and root needs no permissions.
            with suppress(PermissionError, FileNotFoundError):
                os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", OPEN_DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


def _empty(fd: int, top: int, fresh: Iterator[str], mount: int | None, keep: str = "") -> list[str]:
    """Unlink files and move directories up to the top; return the names of the directories."""
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
            # Moving a directory changes its `..`, so an ordinary user needs write permission on it.
            os.close(open_own(name, fd, mount))
            moved = next(fresh)
            os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=top)
            directories.append(moved)
    return directories
