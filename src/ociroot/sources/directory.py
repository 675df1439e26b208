"""OCI image layouts in a directory."""

from __future__ import annotations

import errno
import os
import stat

from ..errors import MalformedImage, SourceError, printable
from ..limits import Limits
from ..spec.digest import Digest
from .blob import FileBlob, Lifetime, head
from .source import FilesSource, Roots

__all__ = ["DirectorySource"]

_SHARED = "--shared-blob-dir names the directory of blobs that layouts share"
# The first bytes of a document, in which its first character is searched.
_FIRST = 100


class DirectorySource(FilesSource):
    """An OCI image layout, or an unpacked docker-archive."""

    def __init__(self, path: str, shared_blobs: str | None, limits: Limits) -> None:
        """Open a directory.

        Args:
            path: the directory.
            shared_blobs: the directory that replaces ``blobs`` if several layouts share one.
            limits: bound the images.

        Raises:
            SourceError: it cannot be read.
        """
        # Each of these may be on a mount of its own.
        parts = ("", "index.json", "blobs", "blobs/sha256", "blobs/sha512")
        paths = [os.path.join(path, part) for part in parts]
        paths += [shared_blobs] if shared_blobs is not None else []
        read_from = tuple(map(os.path.realpath, paths))
        super().__init__(path, DirectoryFiles(path, shared_blobs), limits, read_from)
        self._shares_blobs = shared_blobs is not None

    @property
    def form(self) -> str:
        """See :class:`~ociroot.sources.source.Source`."""
        return "oci-layout" if self.is_layout else "docker-archive"

    def roots(self) -> Roots:
        """Return the root documents.

        In a layout directory ``manifest.json`` may belong to another format; then it is not a list.
        """
        roots = super().roots()
        found = self.files.get(roots.manifest) if roots.manifest and self.is_layout else None
        if found is not None and head(found, _FIRST).lstrip()[:1] != b"[":
            return Roots(roots.index, None)
        return roots

    def missing(self, digest: Digest) -> MalformedImage:
        """See :class:`~ociroot.sources.source.Source`."""
        error = super().missing(digest)
        if self.is_layout and not self._shares_blobs:
            error.remedy = _SHARED
        return error


class DirectoryFiles:
    """The files of a directory. Symbolic links may not lead out of it."""

    def __init__(self, path: str, blobs: str | None = None) -> None:
        """Open a directory.

        Args:
            path: the directory.
            blobs: the directory that replaces ``blobs`` if several layouts share one.
        """
        self._root = os.path.realpath(path)
        self._shared = os.path.realpath(blobs) if blobs is not None else None
        self._found: dict[str, FileBlob | None] = {}
        self._parents: dict[str, str] = {}
        self._lifetime = Lifetime()
        self.names: list[bytes] = []
        try:
            self.names = sorted(map(os.fsencode, os.listdir(self._root)))[:100]
        except OSError as error:
            raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error

    def get(self, name: str) -> FileBlob | None:
        """Return a file; None if it does not exist.

        Raises:
            MalformedImage: it is a link out of the directory, or not a regular file.
            SourceError: it cannot be read.
        """
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def _look(self, name: str) -> FileBlob | None:
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
        return FileBlob(path, status.st_size, self._lifetime)

    def _real(self, path: str) -> str:
        """Return a path without links; the path of the parent is resolved only once.

        Raises:
            OSError: it does not exist.
        """
        os.lstat(path)  # fail early if it does not exist
        parent, name = os.path.split(path)
        if parent not in self._parents:
            self._parents[parent] = os.path.realpath(parent)
        path = os.path.join(self._parents[parent], name)
        return os.path.realpath(path) if name in ("", ".", "..") or os.path.islink(path) else path

    def check_unique(self, name: str) -> None:
        """Do nothing: names in a directory are unique."""

    def close(self) -> None:
        """Refuse further reads; each file is closed after it was read."""
        self._lifetime.end()
