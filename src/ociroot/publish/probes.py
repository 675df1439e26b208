"""Finding out before all the work whether its last step will be possible."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .. import linux
from ..errors import DestinationError

__all__ = ["check_moving", "exchanging"]


def check_moving(fd: int) -> None:
    """Find out whether a name can be moved only to where there is none.

    Args:
        fd: an empty directory's descriptor.

    Raises:
        DestinationError: it cannot.
    """
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


@contextmanager
def exchanging() -> Iterator[None]:
    """Say so when a file system cannot exchange two directories."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise DestinationError(
                "its file system cannot exchange two directories", remedy="remove it first"
            ) from error
        raise
