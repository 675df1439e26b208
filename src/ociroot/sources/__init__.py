"""Where the blobs lie: each form of an image behind one small protocol.

A source is read in place. It hands out documents as bytes and blobs as places in an open file; what
they should hold (digest, size) is checked by whoever reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ..errors import SourceError
from ..spec.digest import Digest

__all__ = ["Blob", "Source", "open_source"]


class Blob(NamedTuple):
    """Where a blob lies: an open file that belongs to the source, an offset and a size in bytes."""

    fd: int
    offset: int
    size: int

    def chunks(self, step: int = 256 << 10) -> Iterator[bytes]:
        """Read the blob from its beginning to its end, at most ``step`` bytes at a time.

        Raises:
            SourceError: the file cannot be read, or ends inside the blob (it shrank).
        """
        at = 0
        while at < self.size:
            try:
                data = os.pread(self.fd, min(step, self.size - at), self.offset + at)
            except OSError as error:
                raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error
            if not data:
                raise SourceError(f"the file ends inside a blob, {self.size - at} bytes early")
            at += len(data)
            yield data


class Source(Protocol):
    """A place that holds images: an index of manifests, and blobs by digest."""

    @property
    def name(self) -> str:
        """What messages call it: the path that it was opened by."""

    def index(self) -> bytes:
        """Return the content of ``index.json``, which nothing but itself vouches for."""

    def blob(self, digest: Digest) -> Blob:
        """Say where a blob lies; :class:`~ociroot.errors.MalformedImage` when it is not there."""

    def close(self) -> None:
        """Close the files behind it."""


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open what lies at a path, told apart by its content.

    Args:
        path: an oci-archive: an uncompressed tar archive that holds an OCI image layout.

    Raises:
        SourceError: there is nothing that can be read.
        MalformedImage: it is not an OCI image layout.
    """
    from .archive import OCIArchive

    return OCIArchive(os.fspath(path))
