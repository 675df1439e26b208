"""Where the members of an image lie: in a tar archive, indexed by offset, or in a directory.

Both give a :class:`~ociroot.sources.Blob` for a name, and neither unpacks anything.
"""

from __future__ import annotations

import os
import stat

import msgspec

from ..errors import LimitExceeded, MalformedImage, SourceError, printable
from ..limits import DEFAULTS, Limits
from ..tar.names import clean
from ..tar.reader import entries
from ..tar.stream import FileStream
from . import Blob

__all__ = ["ArchiveFiles", "DirectoryFiles", "Files"]

#: Links that are followed from one member to another.
MAX_LINKS = 16


class ArchiveFiles:
    """The members of an uncompressed tar archive.

    Attributes:
        names: the first names in the archive, for telling what it is.
    """

    def __init__(self, fd: int, limits: Limits = DEFAULTS) -> None:
        """Index an archive.

        Args:
            fd: an open regular file; this object's, once it is made.
            limits: on its members. An image has a few for each layer; what has more is something
                else.

        Raises:
            MalformedImage: it is not a tar archive, or a broken one.
            LimitExceeded: it has more members than any image.
        """
        self._fd = fd
        self._blobs: dict[bytes, Blob] = {}
        self._links: dict[bytes, bytes] = {}
        self.names: list[bytes] = []
        stream = FileStream(fd, os.fstat(fd).st_size)
        common: list[bytes] | None = None
        try:
            # A blob may be as large as the archive is.
            for entry in entries(stream, msgspec.structs.replace(limits, file_size=1 << 63)):
                name = clean(entry.name)
                if not name:
                    continue
                if len(self._blobs) + len(self._links) == limits.members:
                    first = ", ".join(map(printable, self.names[:3]))
                    raise LimitExceeded(
                        f"an archive of more than {limits.members} members is no image; "
                        f"it begins with {first}",
                        remedy="--max-members raises the limit",
                    )
                if len(self.names) < 100:
                    self.names.append(name)
                # The last of a name counts, as tar has it.
                if entry.kind == "file" and entry.segments is None:
                    self._blobs[name] = Blob(fd, stream.position, entry.stored)
                    self._links.pop(name, None)
                elif entry.kind == "link":
                    self._links[name] = clean(entry.target)
                    self._blobs.pop(name, None)
                elif entry.kind == "symlink":
                    self._links[name] = clean(_beside(name, entry.target))
                    self._blobs.pop(name, None)
                if entry.kind != "dir":
                    parts = name.split(b"/")[:-1]
                    common = parts if common is None else _shared(common, parts)
        except MalformedImage as error:
            if not self.names:
                raise MalformedImage("this is not a tar archive") from error
            raise
        #: What all names have before them: someone packed the directory, not what is in it.
        self._base = b"/".join(common or []) + b"/" if common else b""

    def get(self, name: str) -> Blob | None:
        """Return where a member lies, through links to other members; None: it is not there."""
        path = clean(name.encode("utf-8", "surrogateescape"))
        for base in dict.fromkeys((b"", self._base)):
            target = base + path
            for _ in range(MAX_LINKS):
                found = self._blobs.get(target)
                if found is not None:
                    return found
                if target not in self._links:
                    break
                target = self._links[target]
        return None

    def close(self) -> None:
        """Close the archive."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


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
        self._found: dict[str, Blob] = {}
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
        if name in self._found:
            return self._found[name]
        if "\0" in name:
            return None
        root, inside = self._root, name
        if self._shared is not None and name.startswith("blobs/"):
            root, inside = self._shared, name.removeprefix("blobs/")
        path = os.path.realpath(os.path.join(root, inside))
        if os.path.commonpath((root, path)) != root:
            raise MalformedImage(f"it leads out of the layout, to {path}", member=name)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceError(
                f"cannot open: {os.strerror(error.errno or 0)}", member=name
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise MalformedImage("it is not a regular file", member=name)
        blob = self._found[name] = Blob(-1, 0, status.st_size, path)
        return blob

    def close(self) -> None:
        """Do nothing: each file is closed when it has been read."""


Files = ArchiveFiles | DirectoryFiles


def _beside(name: bytes, target: bytes) -> bytes:
    """Return what a symbolic link in an archive points to, as a name from the archive's root."""
    return target if target.startswith(b"/") else name.rpartition(b"/")[0] + b"/" + target


def _shared(one: list[bytes], other: list[bytes]) -> list[bytes]:
    """Return what two lists begin with."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return one[:length]
