"""How far work is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

__all__ = ["Progress", "ProgressCallback"]


class Progress(msgspec.Struct, frozen=True):
    """How far the work is.

    Attributes:
        stage: ``source`` while a compressed or piped archive is written to a temporary file,
            ``layers`` while layers are read.
        done: bytes that have been read: of the archive, or of the blobs of all layers.
        total: how many there are; 0: unknown.
        layer: the number of the layer that is being read, from 1; 0 in the stage ``source``.
        layers: how many there are; 0 in the stage ``source``.
    """

    stage: Literal["source", "layers"]
    done: int
    total: int
    layer: int = 0
    layers: int = 0


#: Called now and then, from the thread that does the work.
ProgressCallback = Callable[[Progress], None]
