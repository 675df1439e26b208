"""The members of a tar archive, indexed by offset and read in place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from ..errors import LimitExceeded, MalformedImage, printable
from ..limits import Limits
from ..tar.entry import Entry
from ..tar.names import clean
from ..tar.reader import entries
from ..tar.stream import FileStream
from .blob import Blob, FileRange, OpenFile
from .source import FilesSource

__all__ = ["ArchiveFiles", "ArchiveSource"]

#: Links that are followed from one member to another.
MAX_LINKS = 16


# Bytes of a name per counted member; a longer name counts as several. Names in images have about
# a hundred.
_NAME = 256


class ArchiveSource(FilesSource):
    """An oci-archive, a docker-archive, or both at once."""

    def __init__(
        self, name: str, file: OpenFile, limits: Limits, packed: int | None = None
    ) -> None:
        """Index an archive.

        Args:
            name: the path of the archive; ``-`` is standard input.
            file: a regular file with the uncompressed archive; the source closes it, unless this
                constructor fails.
            limits: bound the images.
            packed: the size in bytes of the compressed archive; None: it was not compressed.

        Raises:
            OcirootError: see :class:`ArchiveFiles`.
        """
        # Standard input can be a file, too, which must not be removed with the destination.
        path = os.path.realpath("/proc/self/fd/0" if name == "-" else name)
        super().__init__(name, ArchiveFiles(file, limits), limits, (path,))
        self._packed = packed

    @property
    def form(self) -> str:
        """See :class:`~ociroot.sources.source.Source`."""
        return "oci-archive" if self.is_layout else "docker-archive"

    def stored_size(self, blobs: Iterable[Blob]) -> int:
        """Return the stored bytes of some blobs, at most the size of a compressed archive."""
        stored = super().stored_size(blobs)
        return min(stored, self._packed) if self._packed is not None else stored


class ArchiveFiles:
    """The members of an uncompressed tar archive.

    Attributes:
        names: the first names in the archive, to detect what it is.
    """

    def __init__(self, file: OpenFile, limits: Limits) -> None:
        """Index an archive.

        Args:
            file: a regular file; this object closes it, unless the constructor fails.
            limits: bound its members; a long name counts as several. An image has a few members per
                layer.

        Raises:
            MalformedImage: it is not a valid tar archive.
            LimitExceeded: it has more members than any image.
        """
        self._file = file
        self._blobs: dict[bytes, FileRange] = {}
        self._links: dict[bytes, bytes] = {}
        # Members that are neither files nor links, and duplicate members.
        self._odd: set[bytes] = set()
        self._twice: set[bytes] = set()
        self.names: list[bytes] = []
        count = 0
        fd = file.fileno()
        stream = FileStream(fd, os.fstat(fd).st_size)
        common: list[bytes] | None = None
        try:
            # A blob may be as large as the archive.
            for entry in entries(stream, msgspec.structs.replace(limits, file_size=1 << 63)):
                name = clean(entry.name)
                if not name:
                    continue
                count += 1 + (len(name) + len(entry.target)) // _NAME if entry.kind != "dir" else 0
                if count > limits.members:
                    first = ", ".join(printable(each[:_NAME]) for each in self.names[:3])
                    raise LimitExceeded(
                        f"an archive of more than {limits.members} members is not an image; "
                        f"it begins with {first}",
                        remedy="--max-members raises the limit",
                    )
                if len(self.names) < 100:
                    self.names.append(name)
                self._add(name, entry, stream.position)
                if entry.kind != "dir":
                    parts = name.split(b"/")[:-1]
                    common = parts if common is None else _shared(common, parts)
        except MalformedImage as error:
            if not self.names:
                raise MalformedImage("this is not a tar archive") from error
            raise
        #: The common prefix of all names: the layout directory itself was archived.
        self._base = b"/".join(common or []) + b"/" if common else b""

    def _add(self, name: bytes, entry: Entry, position: int) -> None:
        """Add a member to the index. The last one of a name counts, as in tar."""
        if name in self._blobs or name in self._links or name in self._odd:
            self._twice.add(name)
            self._blobs.pop(name, None)
            self._links.pop(name, None)
        if entry.kind == "file" and entry.segments is None:
            self._blobs[name] = FileRange(self._file, position, entry.stored_size)
        elif entry.kind == "link":
            self._links[name] = clean(entry.target)
        elif entry.kind == "symlink":
            self._links[name] = clean(_beside(name, entry.target))
        elif entry.kind != "dir":
            self._odd.add(name)

    def get(self, name: str) -> FileRange | None:
        """Return a member, following links to other members; None if it does not exist."""
        for way in self._ways(name):
            if (found := self._blobs.get(way[-1])) is not None:
                return found
        return None

    def check_unique(self, name: str) -> None:
        """See :class:`ociroot.sources.source.Files`."""
        for way in self._ways(name):
            for member in way:
                if member in self._twice:
                    raise MalformedImage("duplicate member of the archive", member=member)
                if member in self._odd:
                    raise MalformedImage("not a plain file", member=member)

    def _ways(self, name: str) -> Iterator[list[bytes]]:
        """Yield chains of members: a name and the targets of links, with and without the prefix."""
        path = clean(name.encode("utf-8", "surrogateescape"))
        for base in dict.fromkeys((b"", self._base)):
            way = [base + path]
            while len(way) < MAX_LINKS and way[-1] in self._links:
                way.append(self._links[way[-1]])
            yield way

    def close(self) -> None:
        """Close the archive."""
        self._file.end()


def _beside(name: bytes, target: bytes) -> bytes:
    """Return the target of a symbolic link as a name relative to the archive's root."""
    return target if target.startswith(b"/") else name.rpartition(b"/")[0] + b"/" + target


def _shared(one: list[bytes], other: list[bytes]) -> list[bytes]:
    """Return the common prefix of two lists."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return one[:length]
