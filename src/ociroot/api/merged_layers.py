"""The merged layers of an image, and the bytes of each of them, read when they are first used."""

from __future__ import annotations

import os
from threading import RLock
from typing import NamedTuple

import msgspec

from ..errors import ClosedSource, OcirootError, VerificationError, located
from ..images.layers import LayerBlob
from ..layers.diagnosis import diagnose
from ..layers.pipeline import Pipeline
from ..layers.reading import Plan
from ..layers.spool import LayerSpool
from ..layers.tuning import tuned
from ..limits import Limits
from ..notices import ImageWarning, Notices
from ..progress import ProgressCallback
from ..rootfs.file import LayerBytes
from ..rootfs.merge import apply_with_retry, merge
from ..rootfs.operations import NoOperations
from ..rootfs.tree import Tree
from ..sources.blob import FileRange, LocalBlob
from ..sources.source import Source

__all__ = ["MergeOptions", "MergedLayers", "MergedState"]


class MergeOptions(NamedTuple):
    """How the layers are merged.

    Attributes:
        layer: the number, from 1, of the layer that is looked at alone; None: all are merged.
        strict: whether a warning that is a breach of the specification is an error.
        tmpdir: where compressed layers are decompressed to; None: the system's place.
        progress: called now and then while the layers are merged.
    """

    layer: int | None
    strict: bool
    tmpdir: str | os.PathLike[str] | None
    progress: ProgressCallback | None


class MergedState(NamedTuple):
    """What is known when the layers have been merged.

    Attributes:
        tree: the merged file system.
        layers: the layers in the order in which they were applied.
        plain: the numbers, from 1, of those that are not compressed.
        warnings: what came up.
        limits: what the image may ask for.
    """

    tree: Tree
    layers: tuple[LayerBlob, ...]
    plain: frozenset[int]
    warnings: tuple[ImageWarning, ...]
    limits: Limits


class MergedLayers:
    """The layers of an image, merged and verified when they are first used, each at most once more.

    Attributes:
        source_name: what messages call the image's source.
        closed: whether it has been closed.
    """

    def __init__(self, source: Source, blobs: tuple[LayerBlob, ...], options: MergeOptions) -> None:
        """Begin with nothing read.

        Args:
            source: where the layers are.
            blobs: the layers in the manifest's order.
            options: how they are merged.
        """
        self.source_name = source.name
        self.closed = False
        self._source = source
        self._blobs = blobs
        self._options = options
        self._spool = LayerSpool(options.tmpdir, source.limits)
        self._lock = RLock()
        self._state: MergedState | None = None
        self._bytes: dict[int, LayerBytes] = {}

    def close(self) -> None:
        """Remove the temporary file, and forget the tree."""
        with self._lock:
            self.closed = True
            self._state = None
            self._bytes.clear()
            self._spool.close()

    def check_open(self) -> None:
        """Refuse to go on when the file system, or what it is read from, has been closed.

        Raises:
            ClosedSource: it has been.
        """
        if self.closed:
            raise ClosedSource("the file system is closed", source=self.source_name)
        self._source.check_open()

    def merged(self, *, spool: bool = False) -> MergedState:
        """Return the merged file system.

        Args:
            spool: whether the contents of compressed layers are wanted as well, and are to be kept
                if the layers are read now.

        Raises:
            OcirootError: the layers cannot be merged.
        """
        self.check_open()
        state = self._state
        if state is None:
            with self._lock:
                state = self._state = self._state or self._merge(spool)
        return state

    def _merge(self, spool: bool) -> MergedState:
        options, limits = self._options, self._source.limits

        def attempt(plan: Plan, notices: Notices) -> MergedState:
            if spool:
                # What an attempt before this one has kept was not all verified.
                self._spool.clear()
                plan = msgspec.structs.replace(plan, spool=self._spool)
            tree, reports = merge(plan, NoOperations(), notices, options.progress)
            plain = (report.layer for report in reports if report.compression == "none")
            return MergedState(tree, plan.layers, frozenset(plain), notices.warnings(), limits)

        try:
            with located(source=self.source_name):
                return apply_with_retry(
                    self._blobs, options.strict, attempt, limits=limits, only=options.layer
                )
        except BaseException:
            self._spool.close()
            raise

    def bytes_of(self, number: int) -> LayerBytes:
        """Return the verified uncompressed bytes of a layer.

        Args:
            number: its number, from 1, in the order in which they were applied.

        Raises:
            VerificationError: it is not what it was when the layers were merged.
            OcirootError: it cannot be read, or there is no space to decompress it.
        """
        found = self._bytes.get(number)  # which checks itself, when it is read
        if found is None:
            with self._lock:
                state = self.merged()
                layer = state.layers[number - 1]
                blob: LocalBlob
                if number in state.plain and isinstance(layer.blob, LocalBlob):
                    blob = layer.blob
                else:
                    blob = self._spool.get(layer) or self._decompressed(layer)
                found = LayerBytes(blob, layer.label, self.source_name, self.check_open)
                self._bytes[number] = found
        return found

    def _decompressed(self, layer: LayerBlob) -> FileRange:
        """Decompress a layer into the temporary file, and verify it."""
        try:
            with tuned(), Pipeline([layer], self._source.limits, self._spool) as pipeline:
                try:
                    for _ in pipeline.chunks():
                        pass
                    pipeline.finish().verify()
                except OcirootError as error:
                    raise diagnose(layer, error, pipeline) from error
            found = self._spool.get(layer)
            if found is None:
                raise VerificationError("it is not compressed any more", layer=layer.label)
        except BaseException as error:
            self._spool.discard(layer)
            if isinstance(error, OcirootError):
                error.locate(source=self.source_name)
            raise
        return found
