"""Where the blobs lie: each form of an image, told apart by its content, read in place.

A source hands out documents as bytes and blobs as places in open files; what they should hold
(digest, size) is checked by whoever reads them. There are two kinds of documents to start from, and
a source may have both: the ``index.json`` of an OCI image layout, and the ``manifest.json`` of a
docker-archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from ..errors import MalformedImage, SourceError
from ..limits import DEFAULTS, Limits
from ..spec.digest import Digest

__all__ = ["Blob", "Files", "Source"]


class Blob(NamedTuple):
    """Where a blob lies.

    Attributes:
        fd: an open file that belongs to the source; -1: it is opened by its path when it is read,
            for a layout may have more blobs than a process may have open files.
        offset: where it begins there, in bytes.
        size: bytes of it.
        path: the file's path, when it is not open.
    """

    fd: int
    offset: int
    size: int
    path: str = ""

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Give a descriptor of the file that the blob lies in.

        Raises:
            SourceError: the file cannot be opened.
        """
        if not self.path:
            yield self.fd
            return
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(
                f"cannot open: {os.strerror(error.errno or 0)}", member=self.path
            ) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def chunks(self, step: int = 256 << 10) -> Iterator[bytes]:
        """Read the blob from its beginning to its end, at most ``step`` bytes at a time.

        Raises:
            SourceError: the file cannot be read, or ends inside the blob (it shrank).
        """
        at = 0
        with self.opened() as fd:
            while at < self.size:
                try:
                    data = os.pread(fd, min(step, self.size - at), self.offset + at)
                except OSError as error:
                    raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error
                if not data:
                    raise SourceError(f"the file ends inside a blob, {self.size - at} bytes early")
                at += len(data)
                yield data


class Files(Protocol):
    """Named files: the members of an archive, or of a directory."""

    @property
    def names(self) -> list[bytes]:
        """The first of the names, for telling what it is."""

    def get(self, name: str) -> Blob | None:
        """Return where a file lies; None: it is not there."""

    def check_unique(self, name: str) -> None:
        """Refuse a file that two readers could take for two different ones.

        Raises:
            MalformedImage: there are several of that name, or it is one that readers read
                differently.
        """

    def close(self) -> None:
        """Close what is open."""


class Source:
    """A place that holds images.

    Attributes:
        name: what messages call it: the path that it was opened by.
        form: what it is: ``oci-archive``, ``oci-layout`` or ``docker-archive``.
        limits: what its images may ask for.
        places: the files and directories that it is read from.
        missing_remedy: what may help where a blob is missing; None: nothing.
        packed: bytes of the compressed archive that it was decompressed from; None: it was not.
    """

    def __init__(
        self,
        name: str,
        form: str,
        files: Files,
        limits: Limits = DEFAULTS,
        places: tuple[str, ...] = (),
        missing_remedy: str | None = None,
        packed: int | None = None,
    ) -> None:
        self.places = places
        self.name = name
        self.form = form
        self.limits = limits
        self.missing_remedy = missing_remedy
        self.packed = packed
        self._files = files

    def document(self, name: str) -> bytes | None:
        """Return the content of a file that has no digest to check against; None: it is not there.

        Of one that is longer than any document may be, one byte more than that is returned.

        Raises:
            MalformedImage: there are several of that name.
        """
        self._files.check_unique(name)
        found = self._files.get(name)
        if found is None:
            return None
        return b"".join(found._replace(size=min(found.size, self.limits.document + 1)).chunks())

    def member(self, name: str) -> Blob | None:
        """Say where a file lies by its name; None: it is not there."""
        return self._files.get(name)

    def blob(self, digest: Digest) -> Blob | None:
        """Say where a blob of the layout lies; None: it is not there.

        image-layout.md, "Blobs": "The content of `blobs/<alg>/<encoded>` MUST match the digest
        `<alg>:<encoded>`". A Digest's parts are checked, so they may stand in a name.
        """
        return self._files.get(f"blobs/{digest.algorithm}/{digest.encoded}")

    def missing(self, digest: Digest) -> MalformedImage:
        """Return what to raise for a blob that is not there."""
        return MalformedImage(f"the blob {digest} is not there", remedy=self.missing_remedy)

    def close(self) -> None:
        """Close the files behind it."""
        self._files.close()
