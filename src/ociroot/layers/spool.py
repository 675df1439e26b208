"""The uncompressed bytes of layers in a temporary file, for random access."""

from __future__ import annotations

import os
from contextlib import suppress

from ..errors import DestinationError
from ..images.layers import LayerBlob
from ..limits import Limits
from ..sources.blob import FileRange, LocalBlob
from ..sources.spool import SpoolFile
from ..spec.digest import Digest

__all__ = ["LayerSpool"]


class LayerSpool:
    """Keeps the uncompressed bytes of compressed layers in one unnamed file.

    The pipeline's hasher thread writes them in the first pass. They may be read only after that
    pass has ended and has verified the layer. A repeated layer is kept once.
    """

    def __init__(self, tmpdir: str | os.PathLike[str] | None, limits: Limits) -> None:
        """Begin empty; the file is created for the first layer.

        Args:
            tmpdir: the directory for the file; None: the system's default.
            limits: bound its size.
        """
        self._tmpdir = tmpdir
        self._limits = limits
        self._file: SpoolFile | None = None
        self._layers: dict[Digest, FileRange] = {}
        self._writing: Digest | None = None
        self._start = 0

    def wants(self, layer: LayerBlob, compression: str) -> bool:
        """Return whether the bytes of a layer are kept; a plain local one is read in place.

        Args:
            layer: the layer.
            compression: its compression.
        """
        return compression != "none" or not isinstance(layer.blob, LocalBlob)

    def begin(self, layer: LayerBlob) -> bool:
        """Begin the next layer.

        Returns:
            Whether its bytes must be written; False if they are kept already.

        Raises:
            DestinationError: the file cannot be created.
        """
        if layer.diff_id in self._layers:
            return False
        if self._file is None:
            self._file = SpoolFile(self._tmpdir, self._limits)
        # The bytes of an unfinished pass are overwritten.
        self._start = self._end()
        if self._file.size != self._start:
            self._file.truncate(self._start)
        self._writing = layer.diff_id
        return True

    def write(self, chunk: bytes) -> None:
        """Write the next bytes of the layer.

        Raises:
            DestinationError: there is no space for them.
            LimitExceeded: the limit ``spool`` is exceeded.
        """
        assert self._file is not None  # noqa: S101
        self._file.write(chunk)

    def end(self) -> None:
        """Record that the layer is complete."""
        assert self._file is not None and self._writing is not None  # noqa: S101
        size = self._file.size - self._start
        self._layers[self._writing] = FileRange(self._file.file, self._start, size)

    def get(self, layer: LayerBlob) -> FileRange | None:
        """Return the range with a layer's uncompressed bytes; None if they are not kept."""
        return self._layers.get(layer.diff_id)

    def discard(self, layer: LayerBlob) -> None:
        """Discard a layer that was not verified, once nothing more of it is written."""
        self._layers.pop(layer.diff_id, None)
        if self._file is not None:
            with suppress(DestinationError):  # why the layer is discarded is the error
                self._file.truncate(self._end())

    def _end(self) -> int:
        """Return where the layers that are kept end in the file."""
        return max((kept.offset + kept.size for kept in self._layers.values()), default=0)

    def clear(self) -> None:
        """Discard all layers."""
        self._layers.clear()

    def abandon(self) -> None:
        """Remove the file, with a warning if nobody has closed it."""
        if self._file is not None:
            self._file.file.abandon()

    def close(self) -> None:
        """Remove the file."""
        self._layers.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
