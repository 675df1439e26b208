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
            ``layers`` while layers are read, ``export`` while an archive is written.
        done: bytes read so far, of the archive or of the blobs of all layers; in the stage
            ``export`` bytes written, before they are compressed.
        total: bytes to read or to write; 0: unknown.
        layer: the number of the current layer, from 1; 0 in the other stages.
        layers: the number of layers; 0 in the other stages.
    """

    stage: Literal["source", "layers", "export"]
    done: int
    total: int
    layer: int = 0
    layers: int = 0


#: Called from time to time, in the thread that does the work.
ProgressCallback = Callable[[Progress], None]
