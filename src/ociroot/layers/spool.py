"""The uncompressed bytes of layers in a temporary file, so that files can be read at any place."""

from __future__ import annotations

import os

from ..images.layers import LayerBlob
from ..limits import Limits
from ..sources.blob import FileRange, LocalBlob, OpenFile
from ..sources.spool import SpoolFile
from ..spec.digest import Digest

__all__ = ["LayerSpool"]


class LayerSpool:
    """Keeps the uncompressed bytes of compressed layers, all of them in one file without a name.

    The pipeline's hasher thread writes them as they flow by: they cost no second pass. They are
    to be read only when the pass that wrote them has verified the layer, and has ended. A layer
    that an image has several times is kept once.
    """

    def __init__(self, tmpdir: str | os.PathLike[str] | None, limits: Limits) -> None:
        """Begin with nothing; the file is made when the first layer comes.

        Args:
            tmpdir: where the file is made; None: the system's place.
            limits: on its size.
        """
        self._tmpdir = tmpdir
        self._limits = limits
        self._file: SpoolFile | None = None
        self._layers: dict[Digest, FileRange] = {}
        self._writing: Digest | None = None
        self._start = 0

    def wants(self, layer: LayerBlob, compression: str) -> bool:
        """Say whether the bytes of a layer are to be kept; a plain one is read in place.

        Args:
            layer: the layer.
            compression: what its bytes are.
        """
        return compression != "none" or not isinstance(layer.blob, LocalBlob)

    def begin(self, layer: LayerBlob) -> bool:
        """Begin with the next layer.

        Returns:
            Whether its bytes are to be written: not when they have been kept already.

        Raises:
            DestinationError: the file cannot be made.
        """
        if layer.diff_id in self._layers:
            return False
        if self._file is None:
            self._file = SpoolFile(self._tmpdir, self._limits)
            self._open = OpenFile(self._file.fd)
        # What a pass that did not end has left behind is overwritten.
        self._start = max((kept.offset + kept.size for kept in self._layers.values()), default=0)
        if self._file.size != self._start:
            self._file.truncate(self._start)
        self._writing = layer.diff_id
        return True

    def write(self, chunk: bytes) -> None:
        """Keep the next bytes of the layer.

        Raises:
            DestinationError: there is no space for them.
            LimitExceeded: it is more than the limit that somebody has set.
        """
        assert self._file is not None  # noqa: S101
        self._file.write(chunk)

    def end(self) -> None:
        """Note that the layer is whole."""
        assert self._file is not None and self._writing is not None  # noqa: S101
        size = self._file.size - self._start
        self._layers[self._writing] = FileRange(self._open, self._start, size)

    def get(self, layer: LayerBlob) -> FileRange | None:
        """Return where a layer's uncompressed bytes are; None: they are not kept."""
        return self._layers.get(layer.diff_id)

    def discard(self, layer: LayerBlob) -> None:
        """Forget a layer, which turned out not to be what it should be."""
        self._layers.pop(layer.diff_id, None)

    def clear(self) -> None:
        """Forget all layers."""
        self._layers.clear()

    def close(self) -> None:
        """Remove the file."""
        self._layers.clear()
        if self._file is not None:
            self._open.end()
            self._file = None
