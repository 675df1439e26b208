"""Atomic publication of a single file: an archive, a disk image, a copy."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import linux
from ..errors import DestinationError
from ..notices import Notices
from .leftovers import clean_up
from .location import opened_parent
from .signals import first_signal_waits
from .staged import Staged, entered, notice_leftover, sync_names, translated
from .staging import StagingDirectory, staging_directory

__all__ = ["StagedFile", "staged_file"]

_WHAT = "write it"


class StagedFile(Staged):
    """A staging directory for a single file.

    It is beside the destination, so on the same file system: the file is moved, not copied.

    Attributes:
        name: the file's name in the staging directory.
    """

    def __init__(
        self,
        place: StagingDirectory,
        holder: str,
        given: str,
        name: bytes,
        publish: Callable[[], None],
    ) -> None:
        super().__init__(place, holder, given)
        self.name = name
        self._publish = publish

    def publish(self) -> None:
        """Move the file to the destination, in one step.

        Raises:
            DestinationError: something was put there meanwhile.
        """
        with translated(self._given, _WHAT):
            self._publish()


@contextmanager
def staged_file(
    destination: str,
    notices: Notices,
    *,
    force: bool = False,
    sync: bool = False,
) -> Iterator[StagedFile]:
    """Create a staging directory for a file, and remove it at the end.

    Args:
        destination: the path of the file.
        notices: collects warnings about what could not be removed or flushed.
        force: whether an existing file is replaced, or a symbolic link itself; a directory never
            is.
        sync: whether the file is flushed to the disk before it becomes visible, and its name
            afterwards.

    Raises:
        DestinationError: the path exists, or cannot be written.
    """
    manager = contextmanager(_staged)(destination, notices, force, sync)
    with entered(destination, _WHAT, manager) as staged:
        yield staged


def _staged(given: str, notices: Notices, force: bool, sync: bool) -> Iterator[StagedFile]:
    name = os.path.basename(given)
    if name in ("", ".", ".."):
        raise DestinationError("it is a directory")
    with opened_parent(given, follow=False) as where:
        clean_up(where.parent_fd, name, notices)
        with staging_directory(where.parent_fd, name, notices) as place:

            def publish() -> None:
                if sync:
                    linux.syncfs(place.fd)
                with first_signal_waits():
                    if force:
                        os.rename(name, name, src_dir_fd=place.fd, dst_dir_fd=where.parent_fd)
                    else:
                        _move_to_new(name, place.fd, where.parent_fd)
                    place.published = True
                if sync:
                    sync_names(where.parent_fd, notices)

            yield StagedFile(place, where.directory, given, os.fsencode(name), publish)
        notice_leftover(place, where.directory, notices)


def _move_to_new(name: str, from_fd: int, to_fd: int) -> None:
    """Move a file without replacing an existing one.

    Raises:
        DestinationError: the name exists.
        OSError: the file cannot be moved.
    """
    try:
        try:
            linux.renameat2(from_fd, name, to_fd, name, linux.RENAME_NOREPLACE)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            # On file systems such as NFS: link(2) never replaces a name. The first name is removed
            # with the staging directory.
            os.link(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    except FileExistsError as error:
        raise DestinationError("it exists", remedy="--force replaces it") from error
