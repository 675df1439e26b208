"""A single file that appears at its path at once and whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import DestinationError
from . import linux
from .staging import DIRECTORY, staging_directory

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
            with staging_directory(parent_fd, name) as place:
                fd = place.fd

                def publish() -> None:
                    if force:
                        os.rename(name, name, src_dir_fd=fd, dst_dir_fd=parent_fd)
                    else:
                        linux.renameat2(fd, name, parent_fd, name, linux.RENAME_NOREPLACE)

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
