"""A single file that appears at its path at once and whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import linux
from ..errors import DestinationError
from ..notices import Notices
from .leftovers import clean_up
from .location import opened_parent
from .signals import first_signal_waits
from .staging import staging_directory

__all__ = ["StagedFile", "staged_file"]


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
def staged_file(destination: str, notices: Notices, *, force: bool = False) -> Iterator[StagedFile]:
    """Make a directory for a file that is to be at a path, and remove it at the end.

    Args:
        destination: the path that the file is to have.
        notices: told of what could not be removed.
        force: whether a file that is there is replaced; a directory never is, and of a symbolic
            link that link.

    Raises:
        DestinationError: the path is taken, or cannot be written.
    """
    name = os.path.basename(destination)
    try:
        if name in ("", ".", ".."):
            raise DestinationError("it is a directory")
        with opened_parent(destination, follow=False) as where:
            clean_up(where.parent_fd, name, notices)
            with staging_directory(where.parent_fd, name, notices) as place:

                def publish() -> None:
                    with first_signal_waits():
                        if force:
                            os.rename(name, name, src_dir_fd=place.fd, dst_dir_fd=where.parent_fd)
                        else:
                            linux.renameat2(
                                place.fd, name, where.parent_fd, name, linux.RENAME_NOREPLACE
                            )
                        place.published = True

                yield StagedFile(place.fd, os.fsencode(name), publish)
            if place.left:
                notices.add("left-over", f"{where.path(place.left)}: {place.why}")
    except FileExistsError as error:
        raise DestinationError(
            "it exists", source=destination, remedy="--force replaces it"
        ) from error
    except DestinationError as error:
        raise error.locate(source=destination) from error.__cause__
    except OSError as error:
        failed = DestinationError.from_os(error, "write it")
        raise failed.locate(source=destination) from error
