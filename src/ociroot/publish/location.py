"""From a path that the user gave to an open directory and a name in it.

The path is resolved here, one name at a time, and not by the kernel: each symbolic link on the way
is looked at before it is followed. What comes out is a descriptor; nothing resolves a path again.
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

# As many as Linux follows (path_resolution(7)).
_LINKS = 40
# A directory like /tmp: anybody may make a link in it, and nobody else may remove it.
_SHARED = stat.S_ISVTX | stat.S_IWOTH
# What users show as that a user namespace does not have (/proc/sys/kernel/overflowuid).
_NO_USER = 65534


class Location(NamedTuple):
    """Where a result is to be.

    Attributes:
        parent_fd: its directory.
        name: its name there; empty: the root directory.
        directory: the path of its directory, for messages.
    """

    parent_fd: int
    name: str
    directory: str

    def path(self, name: str) -> str:
        """Return the path of a name in the same directory, for messages."""
        return os.path.join(self.directory, name)


class _Made:
    """The directories that have been made on the way, to be removed when it was for nothing."""

    def __init__(self) -> None:
        self._made: list[tuple[int, str, int]] = []

    def make(self, name: str, dir_fd: int) -> int:
        """Make a directory that everybody may enter; return a handle of it."""
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileNotFoundError:
            raise DestinationError("its parent directory has been removed") from None
        except FileExistsError:
            pass
        else:
            fd = open_own(name, dir_fd, linux.mount_id(dir_fd))
            status = os.fstat(fd)
            # Whoever owns the parent may have put another directory of ours there meanwhile.
            if status.st_uid != os.geteuid() or status.st_mode & 0o077 or os.listdir(fd):
                os.close(fd)
                raise DestinationError(f"{printable(name)} was exchanged while it was made")
            self._made.append((os.dup(dir_fd), name, fd))
            # Whatever the umask is; but a set-group-ID bit is the parent's to hand on.
            os.fchmod(fd, status.st_mode & 0o7000 | 0o755)
        return os.open(name, OPEN_HANDLE | os.O_DIRECTORY, dir_fd=dir_fd)

    def remove(self) -> None:
        """Remove those that are empty, the last one first."""
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
    """Find where a result is to be.

    Args:
        path: what the user gave. Symbolic links in it are followed, but for those of other users
            in a directory like /tmp.
        parents: whether missing directories are made. On an error they are removed again.
        follow: whether the last name may be a link, which is followed.
        remedy: what to do about a missing directory.

    Raises:
        DestinationError: there is no such place, or a link of another user is on the way.
        OSError: what the kernel says to a name on the way.
    """
    if not path:
        raise DestinationError("an empty name is no destination")
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
                    return fd, name, at  # of another type, which is for the caller to judge
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
        # It ends with `..`, or is a directory itself: `.`, `/`.
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
    """A directory on the way is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(f"its parent directory {printable(path)} does not exist")


def _target(name: str, dir_fd: int, at: str) -> str | None:
    """Return where a symbolic link leads; None: it is none.

    Raises:
        DestinationError: it may be a trap. By the rule of Linux (proc_sys_fs(5),
            protected_symlinks), "symbolic links are followed only when outside a sticky
            world-writable directory, or when the UID of the symbolic link and follower match, or
            when the directory owner matches the symbolic link's owner". That setting may be off,
            and holds only for links that the kernel follows.
    """
    handle = os.open(name, OPEN_HANDLE, dir_fd=dir_fd)
    try:
        link, directory = os.fstat(handle), os.fstat(dir_fd)
        if not stat.S_ISLNK(link.st_mode):
            return None
        shared = directory.st_mode & _SHARED == _SHARED
        # Two users without a number here are not known to be one.
        owners = link.st_uid == directory.st_uid and link.st_uid != _NO_USER
        if shared and not owners and link.st_uid != os.geteuid():
            raise DestinationError(
                f"{printable(os.path.join(at, name))} is a symbolic link of another user in a "
                "directory that anybody may write to, and is not followed"
            )
        return os.readlink("", dir_fd=handle)
    finally:
        os.close(handle)


def _name_in(parent: int, fd: int) -> str:
    """Return the name of a directory in its parent; empty: it is the root."""
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
    """Say whether names may be made in an open directory."""
    return os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True)
