"""Find mounts below a directory, and check whether it contains an image under any path.

A mount hides what is below it, and the same directory can be mounted in several places. So neither
paths nor device numbers are sufficient; the kernel's mount IDs are.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .. import linux
from ..linux import OPEN_DIRECTORY, OPEN_HANDLE

__all__ = ["holds_any", "is_mount_point", "mount_below", "walk"]


def is_mount_point(fd: int, parent_fd: int) -> bool:
    """Return whether an open directory is on another mount than its parent, or is the root."""
    one, other = linux.mount_id(fd), linux.mount_id(parent_fd)
    here, above = os.fstat(fd), os.fstat(parent_fd)
    if one is None or other is None:
        return here.st_dev != above.st_dev
    return one != other or os.path.samestat(here, above)


def mount_below(fd: int) -> str | None:
    """Return the path of a mount point below an open directory; None if there is none."""
    path = _path_of(fd)
    if path is not None:
        try:
            with open("/proc/self/mountinfo", "rb") as info:
                points = [line.split(b" ")[4] for line in info]
        except OSError:
            pass
        else:
            # Spaces and the like are written as \\040 (proc_pid_mountinfo(5)).
            names = (re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), p) for p in points)
            below = os.fsencode(path) + b"/"
            return next((os.fsdecode(name) for name in names if name.startswith(below)), None)
    found: list[str] = []
    for _ in walk(fd, found.append):
        if found:
            break
    return found[0] if found else None


def _path_of(fd: int) -> str | None:
    """Return the path of an open directory; None if it is unknown.

    It is unknown without /proc, or if something is mounted over one of its parents.
    """
    with suppress(OSError):
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            return path
    return None


def walk(fd: int, mounted: Callable[[str], None] | None = None) -> Iterator[int]:
    """Walk a directory and all directories below it, with one of them open at a time.

    Mount points below it are not entered. The tree must not change meanwhile.

    Args:
        fd: the directory's descriptor.
        mounted: called with the path of each mount point, relative to the directory.

    Yields:
        A descriptor of each directory.

    Raises:
        OSError: a directory cannot be read, or has been moved.
    """
    mount = linux.mount_id(fd)
    here = os.open(".", OPEN_DIRECTORY, dir_fd=fd)
    try:
        yield here
        # For each level down to the open one: its status, and the subdirectories still to enter.
        levels = [(os.fstat(here), _directories(here))]
        path: list[str] = []
        while levels:
            if levels[-1][1]:
                path.append(levels[-1][1].pop())
                below = os.open(path[-1], OPEN_DIRECTORY, dir_fd=here)
                if linux.mount_id(below) != mount:
                    os.close(below)
                    if mounted is not None:
                        mounted("/".join(path))
                    path.pop()
                    continue
                os.close(here)
                here = below
                yield here
                levels.append((os.fstat(here), _directories(here)))
            else:
                levels.pop()
                if levels:
                    above = os.open("..", OPEN_DIRECTORY, dir_fd=here)
                    os.close(here)
                    here = above
                    path.pop()
                    if not os.path.samestat(os.fstat(here), levels[-1][0]):
                        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    finally:
        os.close(here)


def _directories(fd: int) -> list[str]:
    with os.scandir(fd) as found:
        return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]


def holds_any(fd: int, paths: Sequence[str]) -> bool:
    """Return whether an open directory contains one of the files, under any path.

    Args:
        fd: the directory's descriptor.
        paths: files and directories, without symbolic links in their paths.
    """
    return any(_holds(fd, path) for path in paths)


def _holds(fd: int, path: str) -> bool:
    top = os.fstat(fd)
    try:
        lineage, mount = _lineage(path)
    except OSError:
        return False  # removed meanwhile
    if (top.st_dev, top.st_ino) in lineage:
        return True
    own = lineage[0]
    if own[0] != top.st_dev or mount == linux.mount_id(fd):
        return False
    # A directory below this one, or the file itself, may be mounted elsewhere (a bind mount).
    for below in walk(fd):
        status = os.fstat(below)
        if (status.st_dev, status.st_ino) in lineage:
            return True
        with os.scandir(below) as found:
            if any(entry.inode() == own[1] for entry in found):
                return True
    return False


def _lineage(path: str) -> tuple[list[tuple[int, int]], int | None]:
    """Return device and inode of a file and of all its parents, and its mount ID."""
    handle = os.open(path, OPEN_HANDLE)
    try:
        status, mount = os.fstat(handle), linux.mount_id(handle)
        lineage = [(status.st_dev, status.st_ino)]
        if not stat.S_ISDIR(status.st_mode):
            os.close(handle)
            handle = -1
            handle = os.open(os.path.dirname(path), OPEN_HANDLE | os.O_DIRECTORY)
            status = os.fstat(handle)
            lineage.append((status.st_dev, status.st_ino))
        below = mount
        while True:
            above = os.open("..", OPEN_HANDLE | os.O_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = above
            status, here = os.fstat(handle), linux.mount_id(handle)
            if (status.st_dev, status.st_ino) == lineage[-1] and here == below:
                return lineage, mount  # the root
            lineage.append((status.st_dev, status.st_ino))
            below = here
    finally:
        if handle >= 0:
            os.close(handle)
