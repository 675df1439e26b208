"""Check before the work whether its last step is supported."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .. import linux
from ..errors import DestinationError

__all__ = ["check_moving", "exchanging"]


def check_moving(fd: int) -> None:
    """Check that the file system supports RENAME_NOREPLACE.

    Args:
        fd: the descriptor of an empty directory.

    Raises:
        DestinationError: it does not.
    """
    names = ("one", "other")
    try:
        os.mkdir(names[0], 0o700, dir_fd=fd)
        linux.renameat2(fd, names[0], fd, names[1], linux.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise DestinationError(
                "its file system cannot rename without replacing an existing name",
                remedy="extract to a new directory beside it",
            ) from error
        raise
    finally:
        for name in names:
            with suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=fd)


@contextmanager
def exchanging() -> Iterator[None]:
    """Raise a clear error if the file system does not support RENAME_EXCHANGE."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise DestinationError(
                "its file system cannot exchange two directories", remedy="remove it first"
            ) from error
        raise
