"""Content descriptors (image-spec, descriptor.md) and the media types they carry."""

from __future__ import annotations

from functools import cached_property

import msgspec

from ..errors import MalformedImage
from .digest import Digest
from .platform import Platform

__all__ = ["CONFIG_TYPES", "INDEX_TYPES", "LAYER_TYPES", "MANIFEST_TYPES", "Descriptor"]

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
#: The media types of layers, with the compression that each declares.
LAYER_TYPES = {
    "application/vnd.oci.image.layer.v1.tar": "none",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "none",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd": "zstd",
}


class Descriptor(msgspec.Struct, frozen=True, rename="camel", dict=True):
    """A reference to content by media type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    artifact_type: str = ""

    def __post_init__(self) -> None:
        # descriptor.md, "Properties", size: "The size MUST NOT be negative." It is an int64.
        if not 0 <= self.size < 1 << 63:
            raise MalformedImage(f"invalid descriptor size {self.size}")
        _ = self.parsed_digest

    @cached_property
    def parsed_digest(self) -> Digest:
        """The digest, checked against the grammar before it is used as a file name."""
        return Digest.parse(self.digest)

    @property
    def is_attestation(self) -> bool:
        """Whether it refers to a BuildKit attestation instead of an image."""
        unknown = self.platform is not None and self.platform.os == "unknown"
        return unknown or "vnd.docker.reference.type" in self.annotations
