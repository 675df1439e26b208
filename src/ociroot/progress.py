"""Progress reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

__all__ = ["Progress", "ProgressCallback"]


class Progress(msgspec.Struct, frozen=True):
    """A progress report.

    Attributes:
        stage: ``source`` while a compressed or piped archive is written to a temporary file,
            ``layers`` while layers are read.
        done: bytes read so far, of the archive or of the blobs of all layers.
        total: bytes to read; 0: unknown.
        layer: the number of the current layer, from 1; 0 in the stage ``source``.
        layers: the number of layers; 0 in the stage ``source``.
    """

    stage: Literal["source", "layers"]
    done: int
    total: int
    layer: int = 0
    layers: int = 0


#: Called from time to time, in the thread that does the work.
ProgressCallback = Callable[[Progress], None]
