"""The items of a source as listed: its images, and what is not an image."""

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

    There can be thousands, so the documents are not kept; they are read again for the chosen image.

    Attributes:
        names: its full name, its ref name, its tags.
        platform: its platform.
        image_id: the digest of its configuration.
        descriptor: the manifest's descriptor; None in a docker-archive, which has no manifest.
        config_name: the file name of the configuration in a docker-archive.
        members: the file names of the layers in a docker-archive.
        size: bytes of the layers as stored.
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
        """The digest that selects it: that of its manifest, or else its image ID."""
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
    """An item of a source that is not an image, or is an unreadable one.

    Attributes:
        kind: ``attestation``, ``missing``, ``unreadable: …`` with the reason, or its artifact type
            or media type.
        digest: its digest; empty in a docker-archive, which has none.
        size: its size in bytes.
        subject: the digest of the image that an attestation describes, or empty.
        names: its names.
        platform: the platform in its descriptor, if any.
        error: the reason why it is unreadable or missing; None for other kinds.
        place: the number of images that are listed before it.
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
        """Whether it exists but cannot be read.

        A missing item is not an error. image-layout.md, "Blobs": "The blobs directory MAY be
        missing referenced blobs". A multi-platform image that was saved for one platform still
        lists the others.
        """
        return self.error is not None and self.kind != "missing"


class Listing(msgspec.Struct, frozen=True):
    """The items of a source, in its order."""

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
