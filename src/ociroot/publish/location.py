"""Resolve a path from the user to an open directory and a name in it.

The path is resolved here, one name at a time, and not by the kernel: each symbolic link is checked
before it is followed. The result is a descriptor; the path is not resolved again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .. import linux
from ..errors import DestinationError, printable
from ..linux import OPEN_DIRECTORY, OPEN_HANDLE
from .removal import open_own

__all__ = ["Location", "may_write", "opened_parent"]

# The maximum that Linux follows (path_resolution(7)).
_LINKS = 40
# A directory like /tmp: any user may create a link in it, which other users cannot remove.
_SHARED = stat.S_ISVTX | stat.S_IWOTH
# The uid of unmapped users in a user namespace (/proc/sys/kernel/overflowuid).
_NO_USER = 65534


class Location(NamedTuple):
    """The location of a result.

    Attributes:
        parent_fd: the descriptor of its parent directory.
        name: its name in the parent; empty: the root directory.
        directory: the path of the parent, for messages.
    """

    parent_fd: int
    name: str
    directory: str

    def path(self, name: str) -> str:
        """Return the path of a name in the same directory, for messages."""
        return os.path.join(self.directory, name)


class _Made:
    """The parent directories that were created, to be removed after a failure."""

    def __init__(self) -> None:
        self._made: list[tuple[int, str, int]] = []

    def make(self, name: str, dir_fd: int) -> int:
        """Create a directory with mode 0755; return a handle of it."""
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileNotFoundError:
            raise DestinationError("its parent directory has been removed") from None
        except FileExistsError:
            pass
        else:
            fd = open_own(name, dir_fd, linux.mount_id(dir_fd))
            status = os.fstat(fd)
            # The owner of the parent may have put another directory of ours there meanwhile.
            if status.st_uid != os.geteuid() or status.st_mode & 0o077 or os.listdir(fd):
                os.close(fd)
                raise DestinationError(f"{printable(name)} was exchanged while it was created")
            self._made.append((os.dup(dir_fd), name, fd))
            # Independent of the umask; but an inherited set-group-ID bit is kept.
            os.fchmod(fd, status.st_mode & 0o7000 | 0o755)
        return os.open(name, OPEN_HANDLE | os.O_DIRECTORY, dir_fd=dir_fd)

    def remove(self) -> None:
        """Remove the empty ones, the last one first."""
        for dir_fd, name, fd in reversed(self._made):
            with suppress(OSError):
                now = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                if os.path.samestat(now, os.fstat(fd)):
                    os.rmdir(name, dir_fd=dir_fd)

    def close(self) -> None:
        for dir_fd, _, fd in self._made:
            os.close(dir_fd)
            os.close(fd)


@contextmanager
def opened_parent(
    path: str, *, parents: bool = False, follow: bool = True, remedy: str | None = None
) -> Iterator[Location]:
    """Resolve a destination to its open parent directory.

    Args:
        path: the path from the user. Symbolic links in it are followed, except for those of other
            users in a directory like /tmp.
        parents: whether missing directories are created; after an error they are removed again.
        follow: whether a symbolic link in the final component is followed.
        remedy: the remedy for a missing directory.

    Raises:
        DestinationError: a parent does not exist, or a link of another user is in the path.
        OSError: a component cannot be opened.
    """
    if not path:
        raise DestinationError("the destination is an empty name")
    made = _Made()
    parent_fd = -1
    try:
        try:
            handle, name, directory = _resolve(path, made if parents else None, follow=follow)
        except _Missing as error:
            error.remedy = remedy
            raise
        try:
            parent_fd = os.open(".", OPEN_DIRECTORY, dir_fd=handle)
        finally:
            os.close(handle)
        yield Location(parent_fd, name, directory)
    except BaseException:
        made.remove()
        raise
    finally:
        made.close()
        if parent_fd >= 0:
            os.close(parent_fd)


def _resolve(path: str, made: _Made | None, *, follow: bool) -> tuple[int, str, str]:
    """Return a handle of the parent, the name in it, and the parent's path."""
    at = "/" if path.startswith("/") else ""
    waiting = _names(path)
    links = 0
    fd = os.open(at or ".", OPEN_HANDLE | os.O_DIRECTORY)
    try:
        while waiting:
            name = waiting.pop()
            if not waiting and not follow:
                return fd, name, at
            try:
                below = os.open(name, OPEN_HANDLE | os.O_DIRECTORY, dir_fd=fd)
            except NotADirectoryError:
                target = _target(name, fd, at)
                if target is None:
                    if waiting:
                        raise
                    return fd, name, at  # of another type, which the caller checks
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                waiting += _names(target)
                if target.startswith("/"):
                    at = "/"
                    os.close(fd)
                    fd = -1
                    fd = os.open(at, OPEN_HANDLE | os.O_DIRECTORY)
                continue
            except FileNotFoundError:
                if not waiting:
                    return fd, name, at
                if made is None:
                    raise _Missing(os.path.join(at, name)) from None
                below = made.make(name, fd)
            if not waiting and name != "..":
                os.close(below)
                return fd, name, at
            os.close(fd)
            fd = below
            at = os.path.normpath(os.path.join(at, name))
        # The path ends with `..`, or is `.` or `/`.
        parent = os.open("..", OPEN_HANDLE | os.O_DIRECTORY, dir_fd=fd)
        try:
            name = _name_in(parent, fd)
        except BaseException:
            os.close(parent)
            raise
        os.close(fd)
        return parent, name, os.path.normpath(os.path.join(at, ".."))
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise


def _names(path: str) -> list[str]:
    """Return the names of a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


class _Missing(DestinationError):
    """A parent directory does not exist."""

    def __init__(self, path: str) -> None:
        super().__init__(f"its parent directory {printable(path)} does not exist")


def _target(name: str, dir_fd: int, at: str) -> str | None:
    """Return the target of a symbolic link; None for other files.

    Raises:
        DestinationError: another user may have planted it. By the rule of Linux (proc_sys_fs(5),
            protected_symlinks), "symbolic links are followed only when outside a sticky
            world-writable directory, or when the UID of the symbolic link and follower match, or
            when the directory owner matches the symbolic link's owner". That setting may be off,
            and applies only to links that the kernel follows.
    """
    handle = os.open(name, OPEN_HANDLE, dir_fd=dir_fd)
    try:
        link, directory = os.fstat(handle), os.fstat(dir_fd)
        if not stat.S_ISLNK(link.st_mode):
            return None
        shared = directory.st_mode & _SHARED == _SHARED
        # Two unmapped users are not known to be the same.
        owners = link.st_uid == directory.st_uid and link.st_uid != _NO_USER
        if shared and not owners and link.st_uid != os.geteuid():
            raise DestinationError(
                f"{printable(os.path.join(at, name))} is a symbolic link of another user in a "
                "world-writable directory, and is not followed"
            )
        return os.readlink("", dir_fd=handle)
    finally:
        os.close(handle)


def _name_in(parent: int, fd: int) -> str:
    """Return the name of a directory in its parent; empty for the root."""
    wanted = os.fstat(fd)
    if os.path.samestat(os.fstat(parent), wanted):
        return ""
    readable = os.open(".", OPEN_DIRECTORY, dir_fd=parent)
    try:
        for name in os.listdir(readable):
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), wanted):
                    return name
    finally:
        os.close(readable)
    raise DestinationError("it has been removed")


def may_write(fd: int) -> bool:
    """Return whether an open directory is writable."""
    return os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True)
