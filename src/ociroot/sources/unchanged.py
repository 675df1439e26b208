"""Files that are read a second time without being verified again: whether they have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import SourceError
from .blob import Blob, LocalBlob

__all__ = ["FileStates"]


class FileStates:
    """The states of the files that blobs lie in, taken before the blobs are verified.

    A file with the same inode, size, modification and change time afterwards holds the bytes that
    were verified: a write sets both times, and nothing but the clock sets the change time.
    """

    def __init__(self, blobs: Iterable[Blob]) -> None:
        """Take the states of the files of all blobs that lie in local files.

        Raises:
            SourceError: a file cannot be opened.
        """
        self._states = {blob: _state(blob) for blob in blobs if isinstance(blob, LocalBlob)}

    def check(self, blob: Blob) -> None:
        """Refuse a blob whose file has changed since.

        Raises:
            SourceError: it has changed, or cannot be opened any more.
        """
        if isinstance(blob, LocalBlob) and self._states.get(blob) != _state(blob):
            raise SourceError(
                "the file was changed while it was read, so what was read is not what was verified",
                remedy="try again",
            )


def _state(blob: LocalBlob) -> tuple[int, int, int, int, int]:
    with blob.opened() as fd:
        status = os.fstat(fd)
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
