"""Check whether a directory may be replaced by a root file system and removed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from .. import linux
from ..errors import DestinationError, printable, quoted
from ..fhs import looks_like_root
from ..linux import OPEN_DIRECTORY
from .mounts import holds_any, mount_below, walk

__all__ = ["check_old"]

# Symbolic links that are followed in the path of a volume, as many as in Linux.
_LINKS = 40
# The maximum number of volumes in a message.
_NAMED = 3


def check_old(
    fd: int, *, anything: bool, volumes: Iterable[str] = (), sources: Sequence[str] = ()
) -> None:
    """Refuse to remove a directory that may still be needed.

    Args:
        fd: the descriptor of the directory that is to be replaced.
        anything: whether it may be something else than a root file system.
        volumes: the paths of the image's volumes, whose data outlives a container.
        sources: the paths that the image is read from.

    Raises:
        DestinationError: it must not be removed, with the reason.
        OSError: something in it cannot be read.
    """
    if holds_any(fd, sources):
        raise DestinationError("the image is inside it, and would be removed")
    if linux.mount_id(fd) is None:
        raise DestinationError(
            "mounts below it cannot be determined without /proc, and would be emptied",
            remedy="mount /proc",
        )
    below = mount_below(fd)
    if below is not None:
        raise DestinationError(f"{printable(below)} is mounted below it; unmount it first")
    if not anything and not looks_like_root(_directories(fd)):
        raise DestinationError(
            "it does not look like a root file system, and would be removed",
            remedy="--replace-anything replaces it anyway",
        )
    held = [path for path in _distinct(volumes) if _holds_files(fd, path)]
    if held:
        named = ", ".join(quoted("/" + "/".join(path)[:200]) for path in held[:_NAMED])
        more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
        raise DestinationError(
            f"there are files in volumes of the image, which would be removed: {named}{more}",
            remedy="--discard-volumes removes them",
        )


def _directories(fd: int) -> list[str]:
    """Return the names of directories, and of links that may point to directories (`/bin`)."""
    with os.scandir(fd) as found:
        return [e.name for e in found if e.is_symlink() or e.is_dir(follow_symlinks=False)]


def _distinct(volumes: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the components of each volume's path, without volumes inside another one."""
    paths: set[tuple[str, ...]] = set()
    for volume in volumes:
        names: list[str] = []
        for name in volume.split("/"):
            if name == "..":
                del names[-1:]
            elif name not in ("", "."):
                names.append(name)
        paths.add(tuple(names))
    distinct: list[tuple[str, ...]] = []
    for path in sorted(paths):
        if not distinct or path[: len(distinct[-1])] != distinct[-1]:
            distinct.append(path)
    return distinct


def _holds_files(fd: int, path: Sequence[str]) -> bool:
    """Return whether there is anything but directories at a path below a directory.

    Symbolic links in the path are followed inside the directory, as in a container: `/var/run` is
    a link in most images.
    """
    here = os.open(".", OPEN_DIRECTORY, dir_fd=fd)
    way: list[str] = []
    todo = list(reversed(path))
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                todo += [*reversed(way[:-1])]
                way.clear()
                here = _go(here, ".", fd)
                continue
            try:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
            except (FileNotFoundError, ValueError):  # such as a name with a NUL
                return False
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return False
                raise
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS:
                    return True  # unknown
                target = os.readlink(name, dir_fd=here)
                todo += target.split("/")[::-1]
                if target.startswith("/"):
                    way.clear()
                    here = _go(here, ".", fd)
                continue
            if not stat.S_ISDIR(status.st_mode):
                return not todo
            here = _go(here, name, here)
            way.append(name)
        for below in walk(here):
            with os.scandir(below) as found:
                if any(not entry.is_dir(follow_symlinks=False) for entry in found):
                    return True
        return False
    except PermissionError:
        return True  # unknown
    finally:
        os.close(here)


def _go(here: int, name: str, dir_fd: int) -> int:
    """Open a directory and close ``here``, which stays open if that fails."""
    there = os.open(name, OPEN_DIRECTORY, dir_fd=dir_fd)
    os.close(here)
    return there
