"""The ``manifest.json`` of a docker-archive (moby, image/spec/v1.2.md, "Combined Image JSON")."""

from __future__ import annotations

import msgspec

from ..errors import Unsupported
from ..limits import Limits
from .document import expected, parse, typed

__all__ = ["ArchivedImage", "decode_manifest"]


class ArchivedImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of the archive: the file names of its configuration and its layers, base first."""

    config: str
    layers: tuple[str, ...] = ()
    repo_tags: tuple[str, ...] = ()


def decode_manifest(content: bytes, limits: Limits) -> tuple[ArchivedImage, ...]:
    """Decode a ``manifest.json``.

    Args:
        content: the bytes of the document.
        limits: bound its size and its nesting.

    Raises:
        MalformedImage: it is not a list of images, or not valid I-JSON.
        Unsupported: it is the manifest of skopeo's ``dir:``.
        LimitExceeded: it is too large or nested too deeply.
    """
    value = parse(content, limits)
    if isinstance(value, dict) and "schemaVersion" in value:
        raise Unsupported(
            "an image manifest instead of a list of images, as in a directory of skopeo's `dir:`",
            remedy="skopeo copy dir:… oci:… converts it to an image layout",
        )
    if not isinstance(value, list):
        raise expected("an array", value)
    return typed(value, tuple[ArchivedImage, ...], ArchivedImage)
