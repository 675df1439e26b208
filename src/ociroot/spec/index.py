"""The image index (image-spec, image-index.md) and the layout's header (image-layout.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import MalformedImage, Unsupported
from ..limits import Limits
from .descriptor import Descriptor
from .document import decode, typed

__all__ = ["Index", "check_layout"]


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """A list of manifests for specific platforms, and of further indexes.

    Attributes:
        manifests: the descriptors, not decoded yet, so that a malformed one does not prevent the
            use of the others.
    """

    schema_version: int
    manifests: tuple[Any, ...] = ()
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}

    def __post_init__(self) -> None:
        check_schema_version(self.schema_version)

    @staticmethod
    def descriptor(item: Any) -> Descriptor:
        """Decode an item of ``manifests``.

        Raises:
            MalformedImage: it violates descriptor.md.
            Unsupported: its digest algorithm is not supported.
        """
        return typed(item, Descriptor, Descriptor)


class _LayoutHeader(msgspec.Struct, rename="camel"):
    image_layout_version: str


def check_schema_version(version: int) -> None:
    """Refuse any version but 2 (manifest.md and image-index.md: "this MUST be `2`")."""
    if version != 2:
        raise MalformedImage(f"schemaVersion is {version}, not 2")


def check_layout(content: bytes, limits: Limits) -> None:
    """Check the ``oci-layout`` file.

    image-layout.md, "oci-layout file": "It MUST contain an `imageLayoutVersion` field"; the version
    of this specification is 1.0.0.

    Raises:
        MalformedImage: it is not a valid ``oci-layout`` document.
        Unsupported: it has another version.
    """
    version = decode(content, _LayoutHeader, limits).image_layout_version
    if version != "1.0.0":
        raise Unsupported(f"imageLayoutVersion {version[:40]!r} is not supported (1.0.0 is)")
