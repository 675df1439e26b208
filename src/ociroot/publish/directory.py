"""Atomic publication of a directory: staging, and the step that makes the result visible.

    the destination                       staged                 made visible by
    is absent, or an empty directory      beside it              one rename
    is an empty mount point               in it                  moving the entries up
    is not empty, with ``replace``        beside it              one exchange, then removing the old

An empty directory is also staged in if its parent is not writable, or if it is the current
directory of the process, which would otherwise be removed. The staging directory has mode 0700 from
the beginning, so no other user can see or change unfinished results; on any failure it is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from .. import linux
from ..errors import DestinationError
from ..linux import OPEN_DIRECTORY
from ..notices import Notices
from .inside import closed_to_others, held, move_up
from .leftovers import clean_up
from .location import Location, may_write, opened_parent
from .mounts import is_mount_point
from .probes import check_moving
from .replacing import check_old
from .signals import first_signal_waits
from .staged import Staged, entered, notice_leftover, sync_names, translated
from .staging import StagingDirectory, staging_directory, under_way

__all__ = ["PublishOptions", "Staging", "staged", "tmpdir_for"]

_WHAT = "use the destination"
#: Sets the attributes of the root, given its descriptor.
Finish = Callable[[int], None]


class PublishOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a directory is published.

    Attributes:
        replace: whether an existing root file system may be replaced.
        replace_anything: whether any other directory may be replaced.
        discard_volumes: whether files in ``volumes`` may be removed with it.
        parents: whether missing parent directories are created.
        sync: whether the result is flushed to the disk before it becomes visible, and its name
            afterwards.
        volumes: the paths of volumes, whose data must not be removed.
        sources: the paths of the image, which must not be removed.
    """

    replace: bool = False
    replace_anything: bool = False
    discard_volumes: bool = False
    parents: bool = False
    sync: bool = False
    volumes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


_DEFAULTS = PublishOptions()


class Staging(Staged):
    """An empty directory that becomes the destination."""

    def __init__(
        self, place: StagingDirectory, holder: str, given: str, publish: Callable[[Finish], None]
    ) -> None:
        super().__init__(place, holder, given)
        self._publish = publish

    def publish(self, finish: Finish) -> None:
        """Make everything visible at the destination.

        Args:
            finish: sets the attributes of the root: of the staging directory before it is renamed,
                or of the destination after the entries have been moved up.

        Raises:
            DestinationError: something was put there meanwhile; then nothing is visible.
        """
        with translated(self._given, _WHAT):
            self._publish(finish)


@contextmanager
def staged(
    destination: str | os.PathLike[str], notices: Notices, options: PublishOptions = _DEFAULTS
) -> Iterator[Staging]:
    """Create a staging directory, and remove it unless its content was published.

    Args:
        destination: the path of the result.
        notices: collects warnings about what could not be removed or flushed.
        options: how the result is published.

    Raises:
        DestinationError: the destination cannot be used, with the reason.
    """
    given = os.fspath(destination)
    manager = contextmanager(_staged)(given, notices, options)
    with entered(given, _WHAT, manager) as staging:
        yield staging


def _staged(given: str, notices: Notices, options: PublishOptions) -> Iterator[Staging]:
    with opened_parent(given, parents=options.parents, remedy="--parents makes it") as where:
        try:
            fd = os.open(where.name or ".", OPEN_DIRECTORY, dir_fd=where.parent_fd)
        except FileNotFoundError:
            yield from _Way(given, where, notices, options).beside()
            return
        except NotADirectoryError:
            raise DestinationError("it exists and is not a directory") from None
        try:
            yield from _Way(given, where, notices, options).choose(fd)
        finally:
            os.close(fd)


class _Way:
    """The rows of the table above for one destination."""

    def __init__(
        self, given: str, where: Location, notices: Notices, options: PublishOptions
    ) -> None:
        self._given = given
        self._where = where
        self._notices = notices
        self._options = options

    def choose(self, fd: int) -> Iterator[Staging]:
        """Choose the row for an existing directory.

        Args:
            fd: its descriptor.
        """
        where, options = self._where, self._options
        if clean_up(fd, where.name, self._notices):
            raise under_way()
        status = os.fstat(fd)
        mounted = is_mount_point(fd, where.parent_fd)
        stands_in = os.path.samestat(os.stat("."), status)
        if not held(fd, mounted=mounted):
            if os.geteuid() not in (0, status.st_uid):
                raise DestinationError("it belongs to another user")
            # A btrfs subvolume is not a mount point, but nothing can be renamed over it either.
            apart = status.st_dev != os.fstat(where.parent_fd).st_dev
            if mounted or apart or stands_in or not may_write(where.parent_fd):
                yield from self._inside(fd, mounted=mounted)
            else:
                yield from self.beside(exists=True)
            return
        if mounted or stands_in:
            what = "a mount point" if mounted else "the current directory"
            raise DestinationError(
                f"it is not empty, and it is {what}, which cannot be replaced; empty it first"
            )
        if not (options.replace or options.replace_anything):
            raise DestinationError("it exists and is not empty", remedy="--replace replaces it")
        check_old(
            fd,
            anything=options.replace_anything,
            volumes=() if options.discard_volumes else options.volumes,
            sources=options.sources,
        )
        yield from self.beside(exists=True, old_fd=fd)

    def beside(self, *, exists: bool = False, old_fd: int = -1) -> Iterator[Staging]:
        """Stage beside the destination.

        Args:
            exists: whether the destination exists.
            old_fd: its descriptor if it is not empty; else -1.
        """
        where, sync = self._where, self._options.sync
        in_use = clean_up(where.parent_fd, where.name, self._notices)
        if in_use and exists:
            raise under_way()
        with staging_directory(where.parent_fd, where.name, self._notices, old_fd=old_fd) as place:

            def publish(finish: Finish) -> None:
                place.put(where.name, finish, sync=sync)
                self._synchronize(where.parent_fd)

            yield Staging(place, where.directory, self._given, publish)
        notice_leftover(place, where.directory, self._notices)

    def _inside(self, fd: int, *, mounted: bool) -> Iterator[Staging]:
        """Stage in the destination."""
        holder = self._where.path(self._where.name)
        with (
            staging_directory(fd, self._where.name, self._notices, exclusive=True) as place,
            closed_to_others(fd),
        ):
            if held(fd, mounted=mounted) - {place.name}:
                raise DestinationError("something was put into it meanwhile")
            check_moving(place.fd)

            def publish(finish: Finish) -> None:
                if self._options.sync:
                    linux.syncfs(place.fd)
                with first_signal_waits():
                    move_up(place, fd, finish, mounted=mounted)
                    place.published = True
                self._synchronize(fd)

            yield Staging(place, holder, self._given, publish)
        notice_leftover(place, holder, self._notices)

    def _synchronize(self, fd: int) -> None:
        if self._options.sync:
            sync_names(fd, self._notices)


def tmpdir_for(path: str) -> str | None:
    """Return a directory for temporary files that are as large as what is to have a path.

    Args:
        path: where the result of an extraction is to be.

    Returns:
        A directory in the same file system: the path where something is mounted, else its parent;
        None: it may not be written to.
    """
    with suppress(DestinationError, OSError), opened_parent(path) as where:
        inside = -1
        with suppress(OSError):
            inside = os.open(where.name or ".", OPEN_DIRECTORY, dir_fd=where.parent_fd)
        try:
            mounted = inside >= 0 and is_mount_point(inside, where.parent_fd)
            if may_write(inside if mounted else where.parent_fd):
                return where.path(where.name) if mounted else where.directory or "."
        finally:
            if inside >= 0:
                os.close(inside)
    return None
