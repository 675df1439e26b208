"""Sources: root documents, and the blobs that they refer to.

A source returns documents as bytes and blobs as :class:`~ociroot.sources.blob.Blob`; the callers
verify their digests and sizes. Each kind of source finds them in its own way: members of an
archive, files of a directory, responses of a registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

import msgspec

from ..errors import ClosedSource, MalformedImage
from ..limits import Limits
from ..spec.descriptor import Descriptor
from ..spec.digest import Digest
from .blob import Blob, head

__all__ = ["Files", "FilesSource", "Roots", "Source"]


class Roots(msgspec.Struct, frozen=True):
    """The names of the documents that lead to all images of a source.

    Attributes:
        index: an image index, or None. An OCI image layout has ``index.json``. A source with a
            single manifest, such as a tag of a registry, returns an index that lists only that.
        manifest: the ``manifest.json`` of a docker-archive, or None.
    """

    index: str | None
    manifest: str | None


class Source(Protocol):
    """A source of images."""

    @property
    def name(self) -> str:
        """The name in messages: the path that was opened."""

    @property
    def form(self) -> str:
        """The form, for display: ``oci-archive``, ``oci-layout``, ``docker-archive``."""

    @property
    def limits(self) -> Limits:
        """The limits on its images."""

    @property
    def source_paths(self) -> tuple[str, ...]:
        """The paths of the files and directories that it is read from."""

    def roots(self) -> Roots:
        """Return the names of the root documents."""

    def document(self, name: str) -> bytes | None:
        """Return the content of a document that has no digest to check against.

        A document that is larger than the limit is truncated to one byte more than the limit.

        Args:
            name: one of the roots, or a name from Docker's ``manifest.json``.

        Returns:
            The content; None if it does not exist.

        Raises:
            MalformedImage: the name is not unique.
        """

    def member(self, name: str) -> Blob | None:
        """Return a layer by its name in Docker's ``manifest.json``; None if it does not exist."""

    def blob(self, descriptor: Descriptor) -> Blob | None:
        """Return the blob of a descriptor; None if it does not exist."""

    def missing(self, digest: Digest) -> MalformedImage:
        """Return the error for a missing blob."""

    def stored_size(self, blobs: Iterable[Blob]) -> int:
        """Return the stored bytes of some blobs, each counted once."""

    def check_open(self) -> None:
        """Check that the source is open.

        Raises:
            ClosedSource: it has been closed.
        """

    def close(self) -> None:
        """Close the source."""


class Files(Protocol):
    """Named files: the members of an archive, or the files of a directory."""

    @property
    def names(self) -> list[bytes]:
        """The first names, to detect what it is."""

    def get(self, name: str) -> Blob | None:
        """Return a file; None if it does not exist."""

    def check_unique(self, name: str) -> None:
        """Refuse a file for which two readers could see different content.

        Raises:
            MalformedImage: the name is not unique, or readers treat the file differently.
        """

    def close(self) -> None:
        """Close the files."""


class FilesSource:
    """A source of named files: the common code of archives and directories.

    Attributes:
        name: the path that was opened.
        files: the files.
        limits: the limits on its images.
        source_paths: the paths of the files and directories that it is read from.
    """

    def __init__(
        self, name: str, files: Files, limits: Limits, source_paths: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.files = files
        self.limits = limits
        self.source_paths = source_paths
        self._closed = False

    @cached_property
    def is_layout(self) -> bool:
        """Whether it has the two files of an OCI image layout."""
        return all(self.files.get(name) is not None for name in ("oci-layout", "index.json"))

    def roots(self) -> Roots:
        """See :class:`Source`."""
        index, manifest = (
            name if self.files.get(name) is not None else None
            for name in ("index.json", "manifest.json")
        )
        return Roots(index, manifest)

    def document(self, name: str) -> bytes | None:
        """See :class:`Source`."""
        self.files.check_unique(name)
        found = self.files.get(name)
        return head(found, self.limits.document + 1) if found is not None else None

    def member(self, name: str) -> Blob | None:
        """See :class:`Source`."""
        return self.files.get(name)

    def blob(self, descriptor: Descriptor) -> Blob | None:
        """See :class:`Source`.

        image-layout.md, "Blobs": "The content of `blobs/<alg>/<encoded>` MUST match the digest
        `<alg>:<encoded>`". The parts of a Digest are validated, so they are safe in a name.
        """
        digest = descriptor.parsed_digest
        return self.files.get(f"blobs/{digest.algorithm}/{digest.encoded}")

    def missing(self, digest: Digest) -> MalformedImage:
        """See :class:`Source`."""
        return MalformedImage(f"the blob {digest} is missing")

    def stored_size(self, blobs: Iterable[Blob]) -> int:
        """See :class:`Source`."""
        return sum(blob.size for blob in set(blobs))

    def check_open(self) -> None:
        """See :class:`Source`."""
        if self._closed:
            raise ClosedSource("the source is closed", source=self.name)

    def close(self) -> None:
        """See :class:`Source`."""
        self._closed = True
        self.files.close()
