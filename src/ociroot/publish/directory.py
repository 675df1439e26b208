"""Where the result appears, at once and whole: staging, and the step that makes it visible.

    the destination                       staged                 made visible by
    is absent, or an empty directory      beside it              one rename
    is an empty mount point               in it                  moving the entries up
    holds something, with ``replace``     beside it              one exchange, then removing the old

An empty directory is also staged in where that is the only way: its parent may not be written, or a
shell stands in it and would be left in a directory that is gone. The staging directory is 0700 from
the first moment, so nobody else sees or touches what is half done; on any failure it is removed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..errors import DestinationError
from . import linux
from .removal import remove_tree
from .staging import DIRECTORY, Place, lock, remove_left_over, staging_directory

__all__ = ["Staging", "staged"]

#: What sets the attributes of a root, given its descriptor.
Finish = Callable[[int], None]


class Staging:
    """An empty directory that will be the destination.

    Attributes:
        fd: its descriptor.
    """

    def __init__(self, place: Place, publish: Callable[[Finish], None], given: str) -> None:
        self.fd = place.fd
        self._place = place
        self._publish = publish
        self._given = given

    def publish(self, finish: Finish) -> None:
        """Make everything visible at the destination.

        Args:
            finish: sets the attributes of the root: of the staging directory before it takes its
                place, or of the directory that its entries have been moved up to.

        Raises:
            DestinationError: something has come in the way meanwhile; then nothing is visible.
        """
        with _translated(self._given):
            self._publish(finish)
            self._place.published = True

    @property
    def left(self) -> str:
        """What of the old tree could not be removed and why, once all is done; empty: nothing."""
        return f"{self._place.name}: {self._place.left}" if self._place.left else ""


@contextmanager
def staged(
    destination: str | os.PathLike[str], *, replace: bool = False, sync: bool = False
) -> Iterator[Staging]:
    """Make a staging directory, and remove it unless its content was published.

    Args:
        destination: the path that the result is to have; its parent must exist. Symbolic links of
            the user's own in it are followed.
        replace: whether a directory that holds something may be exchanged for the result.
        sync: whether the result is on the disk before it becomes visible, and its name after.

    Raises:
        DestinationError: the destination may not be used, with the reason.
    """
    given = os.fspath(destination)
    with _translated(given):
        if not given:
            raise DestinationError("an empty name is no destination")
        path = os.path.realpath(given)
        directory, name = os.path.split(path)
        try:
            parent_fd = os.open(directory, DIRECTORY)
        except FileNotFoundError:
            raise DestinationError("its parent directory does not exist") from None
    try:
        manager = contextmanager(_staged_in)(parent_fd, path, name, replace, sync, given)
        with _translated(given):
            staging = manager.__enter__()
        try:
            yield staging
        except BaseException as error:
            # What the caller raises is the caller's, an OSError too.
            manager.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, DestinationError):
                # It names the member; whose file system is full is the destination's.
                error.locate(source=given)
                if error.is_full:
                    error.problem += "; nothing was left behind"
            raise
        with _translated(given):
            manager.__exit__(None, None, None)
    finally:
        os.close(parent_fd)


@contextmanager
def _translated(given: str) -> Iterator[None]:
    """Turn what the kernel says into our error, which names the destination."""
    try:
        yield
    except DestinationError as error:
        raise error.locate(source=given) from error.__cause__
    except OSError as error:
        raise DestinationError.from_os(error, "use the destination").locate(source=given) from error


def _staged_in(
    parent_fd: int, path: str, name: str, replace: bool, sync: bool, given: str
) -> Iterator[Staging]:
    """Choose the way of the table above, and go it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield from _beside(parent_fd, name, sync, given)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise DestinationError("it exists and is not a directory")
    fd = os.open(path, DIRECTORY)
    try:
        if lock(fd) is False:
            raise DestinationError("another extraction to it is under way")
        remove_left_over(fd, name)
        mounted = not name or linux.mount_id(fd) != linux.mount_id(parent_fd)
        held = [entry for entry in os.listdir(fd) if not (mounted and entry == "lost+found")]
        current = os.stat(".")
        stands_in = (current.st_dev, current.st_ino) == (status.st_dev, status.st_ino)
        if not held:
            if os.geteuid() not in (0, status.st_uid):
                raise DestinationError("it belongs to another user")
            # A subvolume of btrfs is no mount point, and still nothing can be renamed over it.
            apart = status.st_dev != os.fstat(parent_fd).st_dev
            if mounted or apart or stands_in or not _may_write(parent_fd):
                yield from _inside(fd, name, sync, given)
            else:
                yield from _beside(parent_fd, name, sync, given)
            return
        if not replace:
            raise DestinationError(
                "it exists and is not empty", remedy="--replace exchanges it for the image"
            )
        if mounted or stands_in:
            what = "a mount point" if mounted else "the current directory"
            raise DestinationError(f"it is {what}, which cannot be replaced; empty it first")
        below = _mounts_below(path)
        if below:
            raise DestinationError(f"{below[0]} is mounted below it; unmount it first")
        yield from _beside(parent_fd, name, sync, given, exchange=True)
    finally:
        os.close(fd)


def _mounts_below(path: str) -> list[str]:
    """Return what is mounted below a directory (proc_pid_mountinfo(5))."""
    try:
        with open("/proc/self/mountinfo", "rb") as info:
            points = [line.split(b" ")[4] for line in info]
    except OSError:
        return []
    # Blanks and the like are written as \\040.
    names = [re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), point) for point in points]
    return [name for name in map(os.fsdecode, names) if name.startswith(path + "/")]


def _may_write(parent_fd: int) -> bool:
    return os.access(f"/proc/self/fd/{parent_fd}", os.W_OK | os.X_OK)


def _beside(
    parent_fd: int, name: str, sync: bool, given: str, *, exchange: bool = False
) -> Iterator[Staging]:
    with staging_directory(parent_fd, name) as place:
        if exchange:
            _check_exchange(parent_fd, place.name)

        def publish(finish: Finish) -> None:
            finish(place.fd)
            if sync:
                linux.syncfs(place.fd)
            try:
                if exchange:
                    # Afterwards the old tree lies under the staging name, to be removed.
                    _exchange(parent_fd, place.name, name)
                else:
                    # rename(2): an existing directory "must … be empty".
                    os.rename(place.name, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise DestinationError("something else was put there meanwhile") from error
                raise
            if sync:
                os.fsync(parent_fd)

        yield Staging(place, publish, given)


def _inside(destination_fd: int, name: str, sync: bool, given: str) -> Iterator[Staging]:
    with staging_directory(destination_fd, name) as place:
        _check_moving(place.fd)

        def publish(finish: Finish) -> None:
            if sync:
                linux.syncfs(place.fd)
            entries = _names(place.fd)
            try:
                for entry in entries:
                    if entry == "lost+found":
                        # The file system's own is as empty as a directory to be replaced must be.
                        os.rename(entry, entry, src_dir_fd=place.fd, dst_dir_fd=destination_fd)
                    else:
                        linux.renameat2(
                            place.fd, entry, destination_fd, entry, linux.RENAME_NOREPLACE
                        )
                # Before the root gets its time, which this would change, and its mode, which might
                # not let us.
                os.rmdir(place.name, dir_fd=destination_fd)
                finish(destination_fd)
                if sync:
                    os.fsync(destination_fd)
            except BaseException:
                with suppress(OSError):
                    os.fchmod(destination_fd, 0o700)
                waiting = _names(place.fd)
                for entry in entries:
                    # What is still waiting has not been moved: another's may have its name there.
                    if entry not in waiting:
                        remove_tree(destination_fd, entry)
                raise

        yield Staging(place, publish, given)


def _names(fd: int) -> list[str]:
    """Return what is in a directory, which may be gone.

    It is opened anew: btrfs shows in an open directory what it held when it was opened (seen with
    Linux 6.18).
    """
    try:
        fresh = os.open(".", DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        return []
    try:
        return os.listdir(fresh)
    finally:
        os.close(fresh)


def _exchange(dir_fd: int, one: str, other: str) -> None:
    """Exchange two names in one step."""
    linux.renameat2(dir_fd, one, dir_fd, other, linux.RENAME_EXCHANGE)


def _check_moving(fd: int) -> None:
    """Find out before all the work whether a name can be moved only to where there is none."""
    names = ("one", "other")
    try:
        os.mkdir(names[0], 0o700, dir_fd=fd)
        linux.renameat2(fd, names[0], fd, names[1], linux.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise DestinationError(
                "its file system may replace what is there when it moves a name",
                remedy="extract to a new directory beside it",
            ) from error
        raise
    finally:
        for name in names:
            with suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=fd)


def _check_exchange(parent_fd: int, staging: str) -> None:
    """Find out before all the work whether the file system can exchange two directories."""
    probe = staging + "~"
    try:
        os.mkdir(probe, 0o700, dir_fd=parent_fd)
        _exchange(parent_fd, staging, probe)
        # Back, so that the descriptor of the staging directory keeps its name.
        _exchange(parent_fd, staging, probe)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise DestinationError(
                "its file system cannot exchange two directories", remedy="remove it first"
            ) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            os.rmdir(probe, dir_fd=parent_fd)
