"""The merged layers of an image and their bytes, read on first use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
from ..rootfs.merge import LayerReport, apply_with_retry, merge
from ..rootfs.operations import NoOperations
from ..rootfs.tree import Tree
from ..sources.blob import FileRange, LocalBlob
from ..sources.source import Source

__all__ = ["MergeOptions", "MergedLayers", "MergedState"]


class MergeOptions(NamedTuple):
    """How the layers are merged.

    Attributes:
        layer: the number, from 1, of the only layer to read; None: all are merged.
        strict: whether violations of the specification are errors instead of warnings.
        tmpdir: the directory for decompressed layers; None: the system's default.
        progress: called from time to time while the layers are merged.
    """

    layer: int | None
    strict: bool
    tmpdir: str | os.PathLike[str] | None
    progress: ProgressCallback | None


class MergedState(NamedTuple):
    """The result of merging the layers.

    Attributes:
        tree: the merged file system.
        layers: the layers in the order of application.
        reports: what was applied, in the same order.
        plain: the numbers, from 1, of those that are not compressed.
        warnings: the warnings.
        limits: the limits on the image.
    """

    tree: Tree
    layers: tuple[LayerBlob, ...]
    reports: tuple[LayerReport, ...]
    plain: frozenset[int]
    warnings: tuple[ImageWarning, ...]
    limits: Limits


class _Access:
    """Tracks whether a file system and its source are open, and owns the temporary file.

    Open files refer to this, not to :class:`MergedLayers`, which refers to them: without a cycle,
    the temporary file is removed as soon as nothing can read it. The threads of a pipeline that
    has ended, which are in cycles, refer to the spool alone.
    """

    def __init__(self, source: Source, spool: LayerSpool) -> None:
        self.source = source
        self.spool = spool
        self.closed = False

    def __del__(self) -> None:
        self.spool.abandon()

    def check(self) -> None:
        self.source.check_open()
        if self.closed:
            raise ClosedSource("the file system is closed", source=self.source.name)


class MergedLayers:
    """The layers of an image, merged and verified on first use; each is read at most once more.

    Attributes:
        source_name: the name of the image's source in messages.
    """

    def __init__(self, source: Source, blobs: tuple[LayerBlob, ...], options: MergeOptions) -> None:
        """Begin with nothing read.

        Args:
            source: the source of the layers.
            blobs: the layers in the manifest's order.
            options: how they are merged.
        """
        self.source_name = source.name
        self._spool = LayerSpool(options.tmpdir, source.limits)
        self._access = _Access(source, self._spool)
        self._source = source
        self._blobs = blobs
        self._options = options
        self._lock = RLock()
        self._state: MergedState | None = None
        self._bytes: dict[int, LayerBytes] = {}
        # Whether layers are being read: the lock does not keep out a callback of the same thread.
        self._reading = False

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._access.closed

    def close(self) -> None:
        """Remove the temporary file, and release the tree."""
        with self._lock:
            self._access.closed = True
            self._state = None
            self._bytes.clear()
            if not self._reading:
                self._spool.close()

    @contextmanager
    def _read_layers(self) -> Iterator[None]:
        """Keep the temporary file until layers have been read into it."""
        self._reading = True
        try:
            yield
        finally:
            self._reading = False
            if self.closed:
                self._spool.close()

    def check_open(self) -> None:
        """Check that the file system and its source are open.

        Raises:
            ClosedSource: one of them has been closed.
        """
        self._access.check()

    def merged(self, *, spool: bool = False) -> MergedState:
        """Return the merged file system.

        Args:
            spool: whether the bytes of compressed layers are needed as well, and are kept if the
                layers are read now.

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
                # The spooled bytes of an earlier attempt were not completely verified.
                self._spool.clear()
                plan = msgspec.structs.replace(plan, spool=self._spool)
            tree, reports = merge(plan, NoOperations(), notices, options.progress)
            plain = frozenset(each.layer for each in reports if each.compression == "none")
            return MergedState(tree, plan.layers, reports, plain, notices.warnings(), limits)

        try:
            with self._read_layers(), located(source=self.source_name):
                return apply_with_retry(
                    self._blobs, options.strict, attempt, limits=limits, only=options.layer
                )
        except BaseException:
            self._spool.close()
            raise

    def bytes_of(self, number: int) -> LayerBytes:
        """Return the verified uncompressed bytes of a layer.

        Args:
            number: its number, from 1 in the order of application.

        Raises:
            VerificationError: it has changed since the merge.
            OcirootError: it cannot be read, or there is no space to decompress it.
        """
        found = self._bytes.get(number)  # checks that it is open when it is read
        if found is None:
            with self._lock:
                state = self.merged()
                layer = state.layers[number - 1]
                blob: LocalBlob
                if number in state.plain and isinstance(layer.blob, LocalBlob):
                    blob = layer.blob
                else:
                    blob = self._spool.get(layer) or self._decompressed(layer)
                found = LayerBytes(blob, layer.label, self.source_name, self._access.check)
                self._bytes[number] = found
        return found

    def _decompressed(self, layer: LayerBlob) -> FileRange:
        """Decompress a layer into the temporary file, and verify it."""
        try:
            with (
                self._read_layers(),
                tuned(),
                Pipeline([layer], self._source.limits, self._spool) as pipeline,
            ):
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
