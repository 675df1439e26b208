"""What a source holds, as a listing shows it: its images, and what is no image."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..errors import OcirootError
from ..spec.config import Config
from ..spec.descriptor import Descriptor
from ..spec.digest import Digest
from ..spec.manifest import Manifest
from ..spec.platform import Platform

__all__ = ["ChosenImage", "FoundImage", "Listing", "NonImage"]


class FoundImage(msgspec.Struct, frozen=True):
    """An image of a source, whose documents have been verified.

    There may be thousands; the documents themselves are read again when one is chosen.

    Attributes:
        names: what it is called: its full name, its ref name, its tags.
        platform: what it runs on.
        image_id: the digest of its configuration.
        descriptor: the manifest's descriptor; None in a docker-archive, which has no manifest.
        config_name: the name of the configuration's file, in a docker-archive.
        members: the names of the layers' files, in a docker-archive.
        size: bytes of the layers as they lie there.
    """

    names: tuple[str, ...]
    platform: Platform
    image_id: Digest
    descriptor: Descriptor | None = None
    config_name: str = ""
    members: tuple[str, ...] = ()
    size: int = 0

    @property
    def digest(self) -> Digest:
        """What it is chosen by: the digest of its manifest, or else its image ID."""
        return self.descriptor.parsed_digest if self.descriptor is not None else self.image_id


class ChosenImage(FoundImage, frozen=True, kw_only=True):
    """An image with its documents.

    Attributes:
        config: the configuration.
        manifest: the manifest; None in a docker-archive.
    """

    config: Config
    manifest: Manifest | None = None


class NonImage(msgspec.Struct, frozen=True):
    """Something in a source that is no image, or none that can be read.

    Attributes:
        kind: what it is: ``attestation``, ``missing``, ``unreadable: …`` with the reason, or its
            artifact type or media type.
        digest: its digest; empty in a docker-archive, which has none.
        size: its size in bytes.
        subject: the digest of the image that an attestation is about; empty: of none.
        names: what it is called.
        platform: what it runs on, if its descriptor says so.
        error: why it cannot be read, or that it is missing; None: it is something else.
        place: how many images are listed before it.
    """

    kind: str
    digest: str
    size: int
    subject: str = ""
    names: tuple[str, ...] = ()
    platform: Platform | None = None
    error: OcirootError | None = None
    place: int = 0

    @property
    def is_unreadable(self) -> bool:
        """Whether it is there and cannot be read.

        What is missing is another thing. image-layout.md, "Blobs": "The blobs directory MAY be
        missing referenced blobs". What was saved of a multi-platform image for one platform lists
        the others all the same.
        """
        return self.error is not None and self.kind != "missing"


class Listing(msgspec.Struct, frozen=True):
    """What is in a source, in its order."""

    images: tuple[FoundImage, ...]
    others: tuple[NonImage, ...]

    @classmethod
    def of(cls, listed: Iterable[FoundImage | NonImage]) -> Listing:
        """Part what is listed into images and what is none."""
        images: list[FoundImage] = []
        others: list[NonImage] = []
        for each in listed:
            if isinstance(each, FoundImage):
                images.append(each)
            else:
                others.append(msgspec.structs.replace(each, place=len(images)))
        return cls(tuple(images), tuple(others))
