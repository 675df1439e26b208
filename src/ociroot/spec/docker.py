"""The ``manifest.json`` of a docker-archive (moby, image/spec/v1.2.md, "Combined Image JSON")."""

from __future__ import annotations

import msgspec

from ..errors import MalformedImage
from ..limits import DEFAULTS, Limits
from .document import parse, typed

__all__ = ["ArchivedImage", "decode_manifest"]


class ArchivedImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of the archive: the names of its configuration and of its layers, base first."""

    config: str
    layers: tuple[str, ...] = ()
    repo_tags: tuple[str, ...] = ()


def decode_manifest(content: bytes, limits: Limits = DEFAULTS) -> tuple[ArchivedImage, ...]:
    """Read a ``manifest.json``.

    Args:
        content: its bytes.
        limits: on its size and its nesting.

    Raises:
        MalformedImage: it is not a list of images, or breaks a rule of JSON.
        LimitExceeded: it is too long or nested too deeply.
    """
    value = parse(content, limits)
    if not isinstance(value, list):
        raise MalformedImage(f"a JSON array is expected, not {type(value).__name__}")
    return typed(value, tuple[ArchivedImage, ...])
