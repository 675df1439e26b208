"""How far work is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["Progress", "ProgressCallback"]


class Progress(msgspec.Struct, frozen=True):
    """How far the work is.

    Attributes:
        done: bytes of the blobs that have been read.
        total: bytes of all blobs.
        layer: the layer that is being applied, from 1.
        layers: how many there are.
    """

    done: int
    total: int
    layer: int
    layers: int


ProgressCallback = Callable[[Progress], None]
