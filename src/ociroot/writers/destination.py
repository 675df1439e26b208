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

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..errors import DestinationError
from .staging import DIRECTORY, lock, remove_left_over, staging_directory, sync_file_system

__all__ = ["Staging", "staged"]

_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


class Staging:
    """An empty directory that will be the destination.

    Attributes:
        fd: its descriptor.
        root_fd: the descriptor of the directory that becomes the root: the staging directory
            itself, or the mount point that its entries are moved up to.
    """

    def __init__(self, fd: int, root_fd: int, publish: Callable[[], None]) -> None:
        self.fd = fd
        self.root_fd = root_fd
        self._publish = publish

    def publish(self) -> None:
        """Make everything visible at the destination.

        Raises:
            DestinationError: something has come in the way meanwhile.
        """
        self._publish()


class StagedFile:
    """A directory in which one file is made that will be at the destination.

    Attributes:
        fd: the directory's descriptor.
        name: the file's name in it.
    """

    def __init__(self, fd: int, name: bytes, publish: Callable[[], None]) -> None:
        self.fd = fd
        self.name = name
        self._publish = publish

    def publish(self) -> None:
        """Move the file to the destination, in one step."""
        self._publish()


@contextmanager
def staged_file(destination: str, *, force: bool = False) -> Iterator[StagedFile]:
    """Make a directory for a file that is to be at a path, and remove it at the end.

    Args:
        destination: the path that the file is to have.
        force: whether a file that is there is replaced; a directory never is.

    Raises:
        DestinationError: the path is taken, or cannot be written.
    """
    directory, name = os.path.split(destination)
    try:
        parent_fd = os.open(directory or ".", DIRECTORY)
        try:
            with staging_directory(parent_fd, name) as (_, fd):

                def publish() -> None:
                    if force:
                        os.rename(name, name, src_dir_fd=fd, dst_dir_fd=parent_fd)
                    else:
                        _rename(fd, name, parent_fd, name, _RENAME_NOREPLACE)

                yield StagedFile(fd, os.fsencode(name), publish)
        finally:
            os.close(parent_fd)
    except FileExistsError as error:
        raise DestinationError(
            "it exists", source=destination, remedy="--force replaces it"
        ) from error
    except OSError as error:
        failed = DestinationError.from_os(error, "write it")
        raise failed.locate(source=destination) from error


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
    path = os.path.realpath(given)
    directory, name = os.path.split(path)
    try:
        try:
            parent_fd = os.open(directory, DIRECTORY)
        except FileNotFoundError:
            raise DestinationError("its parent directory does not exist") from None
        try:
            yield from _staged_in(parent_fd, path, name, replace, sync)
        finally:
            os.close(parent_fd)
    except DestinationError as error:
        raise error.locate(source=given) from error.__cause__
    except OSError as error:
        raise DestinationError.from_os(error, "use the destination").locate(source=given) from error


def _staged_in(
    parent_fd: int, path: str, name: str, replace: bool, sync: bool
) -> Iterator[Staging]:
    """Choose the way of the table above, and go it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield from _beside(parent_fd, name, sync)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise DestinationError("it exists and is not a directory")
    fd = os.open(path, DIRECTORY)
    try:
        if not lock(fd):
            raise DestinationError("another extraction to it is under way")
        remove_left_over(fd, name)
        mounted = not name or _mount_id(fd) != _mount_id(parent_fd)
        held = [entry for entry in os.listdir(fd) if not (mounted and entry == "lost+found")]
        current = os.stat(".")
        stands_in = (current.st_dev, current.st_ino) == (status.st_dev, status.st_ino)
        if not held:
            if os.geteuid() not in (0, status.st_uid):
                raise DestinationError("it belongs to another user")
            if mounted or stands_in or not _may_write(parent_fd):
                yield from _inside(fd, name, sync)
            else:
                yield from _beside(parent_fd, name, sync)
            return
        if not replace:
            raise DestinationError(
                "it exists and is not empty", remedy="--replace exchanges it for the image"
            )
        if mounted or stands_in:
            what = "a mount point" if mounted else "the current directory"
            raise DestinationError(f"it is {what}, which cannot be replaced; empty it first")
        yield from _beside(parent_fd, name, sync, exchange=True)
    finally:
        os.close(fd)


def _mount_id(fd: int) -> str:
    """Return the mount that an open directory is seen through: bind mounts have the same device."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:
            for line in info:
                if line.startswith("mnt_id:"):
                    return line
    except OSError:
        pass
    return str(os.fstat(fd).st_dev)


def _may_write(parent_fd: int) -> bool:
    return os.access(f"/proc/self/fd/{parent_fd}", os.W_OK | os.X_OK)


def _beside(parent_fd: int, name: str, sync: bool, *, exchange: bool = False) -> Iterator[Staging]:
    with staging_directory(parent_fd, name) as (staging, fd):
        if exchange:
            _check_exchange(parent_fd, staging)

        def publish() -> None:
            try:
                if sync:
                    sync_file_system(fd)
                if exchange:
                    # Afterwards the old tree lies under the staging name, to be removed.
                    _exchange(parent_fd, staging, name)
                else:
                    # rename(2): an existing directory "must … be empty".
                    os.rename(staging, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise DestinationError("something else was put there meanwhile") from error
                raise
            if sync:
                os.fsync(parent_fd)

        yield Staging(fd, fd, publish)


def _inside(destination_fd: int, name: str, sync: bool) -> Iterator[Staging]:
    with staging_directory(destination_fd, name) as (staging, fd):

        def publish() -> None:
            if sync:
                sync_file_system(fd)
            moved: list[str] = []
            try:
                for entry in os.listdir(fd):
                    os.rename(entry, entry, src_dir_fd=fd, dst_dir_fd=destination_fd)
                    moved.append(entry)
            except BaseException:
                # Back into the staging directory, which is removed with all of it.
                for entry in moved:
                    os.rename(entry, entry, src_dir_fd=destination_fd, dst_dir_fd=fd)
                raise
            # Now, not at the end: it would change the time that the image has for its root.
            os.rmdir(staging, dir_fd=destination_fd)
            if sync:
                os.fsync(destination_fd)

        yield Staging(fd, destination_fd, publish)


def _exchange(dir_fd: int, one: str, other: str) -> None:
    """Exchange two names in one step."""
    _rename(dir_fd, one, dir_fd, other, _RENAME_EXCHANGE)


def _rename(from_fd: int, one: str, to_fd: int, other: str, flags: int) -> None:
    """Call renameat2(2), which Python has not."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(
        from_fd, os.fsencode(one), to_fd, os.fsencode(other), ctypes.c_uint(flags)
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


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
