"""Where the blobs lie: each form of an image, told apart by its content, read in place.

A source hands out documents as bytes and blobs as places in open files; what they should hold
(digest, size) is checked by whoever reads them. There are two kinds of documents to start from, and
a source may have both: the ``index.json`` of an OCI image layout, and the ``manifest.json`` of a
docker-archive.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import ClosedSource, MalformedImage
from ..limits import DEFAULTS, Limits
from ..spec.digest import Digest
from .blob import Blob

__all__ = ["Files", "Source"]


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
        source_paths: the files and directories that it is read from.
        missing_remedy: what may help where a blob is missing; None: nothing.
        packed: bytes of the compressed archive that it was decompressed from; None: it was not.
    """

    def __init__(
        self,
        name: str,
        form: str,
        files: Files,
        limits: Limits = DEFAULTS,
        source_paths: tuple[str, ...] = (),
        missing_remedy: str | None = None,
        packed: int | None = None,
    ) -> None:
        self.source_paths = source_paths
        self.name = name
        self.form = form
        self.limits = limits
        self.missing_remedy = missing_remedy
        self.packed = packed
        self._files = files
        self._closed = False

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
        self._closed = True
        self._files.close()

    def check_open(self) -> None:
        """Refuse to go on with a source that has been closed.

        Raises:
            ClosedSource: it has been.
        """
        if self._closed:
            raise ClosedSource("the source is closed", source=self.name)
