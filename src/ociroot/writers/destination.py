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
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..errors import DestinationError
from .attributes import Attributes
from .removal import remove_tree

__all__ = ["Staging", "staged"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
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
        parent_fd = os.open(directory or ".", _DIRECTORY)
        try:
            staging = _staging_name(name)
            with _staging_directory(parent_fd, staging) as fd:

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


def _staging_name(name: str) -> str:
    # A name has at most 255 bytes; bytes that are no text any more stay as they are.
    return f".{os.fsdecode(os.fsencode(name)[:200])}.ociroot-{secrets.token_hex(6)}"


@contextmanager
def staged(destination: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Staging]:
    """Make a staging directory, and remove it unless its content was published.

    Args:
        destination: the path that the result is to have; its parent must exist. Symbolic links of
            the user's own in it are followed.
        replace: whether a directory that holds something may be exchanged for the result.

    Raises:
        DestinationError: the destination may not be used, with the reason.
    """
    given = os.fspath(destination)
    path = os.path.realpath(given)
    directory, name = os.path.split(path)
    try:
        try:
            parent_fd = os.open(directory, _DIRECTORY)
        except FileNotFoundError:
            raise DestinationError("its parent directory does not exist") from None
        try:
            yield from _staged_in(parent_fd, path, name, replace)
        finally:
            os.close(parent_fd)
    except DestinationError as error:
        raise error.locate(source=given) from error.__cause__
    except OSError as error:
        raise DestinationError.from_os(error, "use the destination").locate(source=given) from error


def _staged_in(parent_fd: int, path: str, name: str, replace: bool) -> Iterator[Staging]:
    """Choose the way of the table above, and go it."""
    staging = _staging_name(name)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield from _beside(parent_fd, staging, name)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise DestinationError("it exists and is not a directory")
    fd = os.open(path, _DIRECTORY)
    try:
        mounted = not name or _mount_id(fd) != _mount_id(parent_fd)
        held = [entry for entry in os.listdir(fd) if not (mounted and entry == "lost+found")]
        current = os.stat(".")
        stands_in = (current.st_dev, current.st_ino) == (status.st_dev, status.st_ino)
        if not held:
            if os.geteuid() not in (0, status.st_uid):
                raise DestinationError("it belongs to another user")
            if mounted or stands_in or not _may_write(parent_fd):
                yield from _inside(fd, staging)
            else:
                yield from _beside(parent_fd, staging, name)
            return
        if not replace:
            raise DestinationError(
                "it exists and is not empty", remedy="--replace exchanges it for the image"
            )
        if mounted or stands_in:
            what = "a mount point" if mounted else "the current directory"
            raise DestinationError(f"it is {what}, which cannot be replaced; empty it first")
        yield from _beside(parent_fd, staging, name, exchange=True)
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


@contextmanager
def _staging_directory(parent_fd: int, staging: str) -> Iterator[int]:
    """Make a directory that only we can enter; at the end remove what is still there under it."""
    fd = -1
    try:
        os.mkdir(staging, 0o700, dir_fd=parent_fd)
        fd = os.open(staging, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
        # A parent with a default ACL or the set-group-ID bit hands them on; the image's root and
        # all below it have no part in that. The kernel drops the bit with the mode.
        Attributes.clear_acls(fd)
        os.fchmod(fd, 0o700)
        with suppress(PermissionError):
            os.fchown(fd, os.geteuid(), os.getegid())
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)
        remove_tree(parent_fd, staging)


def _beside(
    parent_fd: int, staging: str, name: str, *, exchange: bool = False
) -> Iterator[Staging]:
    with _staging_directory(parent_fd, staging) as fd:
        if exchange:
            _check_exchange(parent_fd, staging)

        def publish() -> None:
            try:
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

        yield Staging(fd, fd, publish)


def _inside(destination_fd: int, staging: str) -> Iterator[Staging]:
    with _staging_directory(destination_fd, staging) as fd:

        def publish() -> None:
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
