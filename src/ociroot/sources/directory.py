"""The files of a directory that holds an OCI image layout."""

from __future__ import annotations

import errno
import os
import stat

from ..errors import MalformedImage, SourceError, printable
from .blob import Blob

__all__ = ["DirectoryFiles"]


class DirectoryFiles:
    """The files of a directory. Links may lead from one to another, and not out of it."""

    def __init__(self, path: str, blobs: str | None = None) -> None:
        """Look into a directory.

        Args:
            path: the directory.
            blobs: the directory that takes the place of ``blobs``, where several layouts share one.
        """
        self._root = os.path.realpath(path)
        self._shared = os.path.realpath(blobs) if blobs is not None else None
        self._found: dict[str, Blob | None] = {}
        self._parents: dict[str, str] = {}
        self.names: list[bytes] = []
        try:
            self.names = sorted(map(os.fsencode, os.listdir(self._root)))[:100]
        except OSError as error:
            raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error

    def get(self, name: str) -> Blob | None:
        """Return where a file lies; None: it is not there.

        Raises:
            MalformedImage: it is a link that leads out of the directory, or no regular file.
            SourceError: it cannot be read.
        """
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def _look(self, name: str) -> Blob | None:
        if "\0" in name:
            return None
        root, inside = self._root, name
        if self._shared is not None and name.startswith("blobs/"):
            root, inside = self._shared, name.removeprefix("blobs/")
        try:
            path = self._real(os.path.join(root, inside))
            if os.path.commonpath((root, path)) != root:
                raise MalformedImage(
                    f"it leads out of the layout, to {printable(path)}", member=name
                )
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise SourceError(
                f"cannot open: {os.strerror(error.errno or 0)}", member=name
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise MalformedImage("it is not a regular file", member=name)
        return Blob(-1, 0, status.st_size, path)

    def _real(self, path: str) -> str:
        """Return a path without links; what is no link is not gone through name by name.

        Raises:
            OSError: it is not there.
        """
        os.lstat(path)  # what is not there is found out at once
        parent, name = os.path.split(path)
        if parent not in self._parents:
            self._parents[parent] = os.path.realpath(parent)
        path = os.path.join(self._parents[parent], name)
        return os.path.realpath(path) if name in ("", ".", "..") or os.path.islink(path) else path

    def check_unique(self, name: str) -> None:
        """Do nothing: a directory has one file of a name."""

    def close(self) -> None:
        """Do nothing: each file is closed when it has been read."""
