"""Finding out before all the work whether its last step will be possible."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import DestinationError
from . import linux

__all__ = ["check_exchange", "check_moving"]


def check_moving(fd: int) -> None:
    """Find out before all the work whether a name can be moved only to where there is none."""
    with _probe(fd, "one"):
        try:
            linux.renameat2(fd, "one", fd, "other", linux.RENAME_NOREPLACE)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS):
                raise DestinationError(
                    "its file system may replace what is there when it moves a name",
                    remedy="extract to a new directory beside it",
                ) from error
            raise


def check_exchange(fd: int) -> None:
    """Find out before all the work whether the file system can exchange two directories."""
    with _probe(fd, "one", "other"):
        try:
            linux.renameat2(fd, "one", fd, "other", linux.RENAME_EXCHANGE)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS):
                raise DestinationError(
                    "its file system cannot exchange two directories", remedy="remove it first"
                ) from error
            raise


@contextmanager
def _probe(fd: int, *names: str) -> Iterator[None]:
    """Make some of the directories "one" and "other", and remove both."""
    try:
        for name in names:
            os.mkdir(name, 0o700, dir_fd=fd)
        yield
    finally:
        for name in ("one", "other"):
            with suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=fd)
