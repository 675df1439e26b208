"""What a source is: the documents to begin from, and the blobs that they name.

A source hands out documents as bytes and blobs as :class:`~ociroot.sources.blob.Blob`; what they
should hold (digest, size) is checked by whoever reads them. How a source finds them is its own: the
members of an archive, the files of a directory, what a registry sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

import msgspec

from ..errors import ClosedSource, MalformedImage
from ..limits import DEFAULTS, Limits
from ..spec.descriptor import Descriptor
from ..spec.digest import Digest
from .blob import Blob, head

__all__ = ["Files", "FilesSource", "Roots", "Source"]


class Roots(msgspec.Struct, frozen=True):
    """The documents that lead to all images of a source, by the names that it has for them.

    Attributes:
        index: an index of the image-spec; None: there is none. An OCI image layout has
            ``index.json``. A source that is one manifest, as a registry's by its tag, gives an
            index that lists it alone.
        manifest: the ``manifest.json`` of a docker-archive; None: there is none.
    """

    index: str | None
    manifest: str | None


class Source(Protocol):
    """A place that holds images."""

    @property
    def name(self) -> str:
        """What messages call it: the path that it was opened by."""

    @property
    def form(self) -> str:
        """What it is, to be shown: ``oci-archive``, ``oci-layout``, ``docker-archive``."""

    @property
    def limits(self) -> Limits:
        """What its images may ask for."""

    @property
    def source_paths(self) -> tuple[str, ...]:
        """The files and directories that it is read from."""

    def roots(self) -> Roots:
        """Return the names of the documents to begin from."""

    def document(self, name: str) -> bytes | None:
        """Return the content of a document that has no digest to check against.

        Of one that is longer than any document may be, one byte more than that is returned.

        Args:
            name: one of the roots, or a name that Docker's ``manifest.json`` has.

        Returns:
            None when it is not there.

        Raises:
            MalformedImage: there are several of that name.
        """

    def member(self, name: str) -> Blob | None:
        """Return a layer by the name that Docker's ``manifest.json`` has; None: it is not there."""

    def blob(self, descriptor: Descriptor) -> Blob | None:
        """Return the blob of a descriptor; None: it is not there."""

    def missing(self, digest: Digest) -> MalformedImage:
        """Return what to raise for a blob that is not there."""

    def stored_size(self, blobs: Iterable[Blob]) -> int:
        """Return how many bytes are stored for some blobs: each blob is counted once."""

    def check_open(self) -> None:
        """Refuse to go on with a source that has been closed.

        Raises:
            ClosedSource: it has been.
        """

    def close(self) -> None:
        """Close what is open."""


class Files(Protocol):
    """Named files: the members of an archive, or of a directory."""

    @property
    def names(self) -> list[bytes]:
        """The first of the names, for telling what it is."""

    def get(self, name: str) -> Blob | None:
        """Return a file; None: it is not there."""

    def check_unique(self, name: str) -> None:
        """Refuse a file that two readers could take for two different ones.

        Raises:
            MalformedImage: there are several of that name, or it is one that readers read
                differently.
        """

    def close(self) -> None:
        """Close what is open."""


class FilesSource:
    """A source of named files: what an archive and a directory have in common.

    Attributes:
        name: the path that it was opened by.
        files: the files.
        limits: what its images may ask for.
        source_paths: the files and directories that it is read from.
    """

    def __init__(
        self, name: str, files: Files, limits: Limits = DEFAULTS, source_paths: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.files = files
        self.limits = limits
        self.source_paths = source_paths
        self._closed = False

    @cached_property
    def is_layout(self) -> bool:
        """Whether there are the two files of an OCI image layout."""
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
        `<alg>:<encoded>`". A Digest's parts are checked, so they may be part of a name.
        """
        digest = descriptor.parsed_digest
        return self.files.get(f"blobs/{digest.algorithm}/{digest.encoded}")

    def missing(self, digest: Digest) -> MalformedImage:
        """See :class:`Source`."""
        return MalformedImage(f"the blob {digest} is not there")

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
