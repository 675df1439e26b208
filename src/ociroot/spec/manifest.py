"""The image manifest (image-spec, manifest.md)."""

from __future__ import annotations

import msgspec

from .descriptor import Descriptor
from .index import check_schema_version

__all__ = ["Manifest"]


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """The configuration and the layers, base first, of one image for one platform."""

    schema_version: int
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}

    def __post_init__(self) -> None:
        check_schema_version(self.schema_version)
