"""Read an image's layers sequentially, and verify each at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from ..errors import MalformedImage, OcirootError, SourceError, VerificationError, located
from ..images.layers import LayerBlob
from ..limits import Limits
from ..notices import Notices
from ..sources.blob import LocalBlob
from ..spec.digest import Digest
from ..tar.counting import Counted
from ..tar.reader import entries
from ..tar.stream import ChunkStream, FileStream, Stream
from .changeset import Change, changes
from .diagnosis import diagnose, digest_of
from .pipeline import LayerContent, Pipeline
from .tuning import tuned

if TYPE_CHECKING:
    from .spool import LayerSpool

__all__ = ["LayerReader", "OutOfOrder", "Plan"]

_T = TypeVar("_T")


class Plan(msgspec.Struct, frozen=True):
    """How the layers are read.

    Attributes:
        layers: the layers in the order of application, each with its diff_id.
        limits: bound the layers.
        whiteouts_first: whether the whiteouts of each layer are gathered in a first pass.
        reordered: whether the order differs from the manifest's.
        verify: whether plain layers are read completely to verify their digests, or only their
            headers.
        only: the number, from 1, of the only layer to read; None: all are merged.
        spool: keeps the uncompressed bytes of compressed layers; None: they are not kept.
    """

    layers: tuple[LayerBlob, ...]
    limits: Limits
    whiteouts_first: bool = False
    reordered: bool = False
    verify: bool = True
    only: int | None = None
    spool: LayerSpool | None = None


class OutOfOrder(Exception):
    """The layers match the diff_ids in another order than the manifest's."""

    def __init__(self, layers: tuple[LayerBlob, ...]) -> None:
        super().__init__()
        self.layers = layers


class LayerReader:
    """Reads layers of a plan sequentially, and verifies each at its end.

    Every pass verifies that the layers are those of the config, except for plain layers that are
    read in place.

    Attributes:
        total: bytes of the blobs that are read completely.
    """

    def __init__(self, plan: Plan, layers: Sequence[LayerBlob], notices: Notices) -> None:
        """Create a reader, which is a context manager.

        Args:
            plan: how to read the layers.
            layers: the layers of the plan to read, in this order.
            notices: collects warnings.
        """
        self._plan = plan
        self._notices = notices
        self._counted = Counted()
        self._in_place: dict[int, LocalBlob] = {}
        if not plan.verify:
            # A plain layer that is not read is identified by its digest, which must equal the
            # diff_id (a docker-archive has none): otherwise it may be another layer.
            self._in_place = {
                layer.number: layer.blob
                for layer in layers
                if layer.digest in (None, layer.diff_id)
                and isinstance(layer.blob, LocalBlob)
                and layer.compression == "none"
            }
        flowing = [layer for layer in layers if layer.number not in self._in_place]
        self.total = sum(layer.blob.size for layer in flowing)
        self._pipeline = Pipeline(flowing, plan.limits, plan.spool)
        self._stack = ExitStack()

    @property
    def done(self) -> int:
        """The bytes of them read so far."""
        return self._pipeline.bytes_read

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(tuned())
            # First, because a signal handler may raise between the two.
            self._stack.callback(self._pipeline.close)
            self._pipeline.__enter__()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(
        self,
        layer: LayerBlob,
        work: Callable[[Iterator[Change], Stream], _T],
        tick: Callable[[], None] | None = None,
    ) -> tuple[_T, LayerContent]:
        """Read the next layer.

        Args:
            layer: the layer.
            work: called with its changes and its stream.
            tick: called from time to time.

        Returns:
            The result of ``work``, and the properties of the layer.

        Raises:
            VerificationError: the layer does not match its digest or diff_id.
            OcirootError: it cannot be read, or ``work`` has raised an error.
        """
        try:
            if (blob := self._in_place.get(layer.number)) is not None:
                result = self._read_in_place(blob, work)
                content = LayerContent(layer, layer.diff_id, "none", blob.size)
            else:
                stream = ChunkStream(self._pipeline.chunks(tick))
                result = work(self._changes(stream), stream)
                # The diff_id includes the bytes after the end marker.
                stream.drain()
                content = self._pipeline.finish()
        except OcirootError as error:
            raise self._diagnosed(layer, error) from error
        if not content.as_declared:
            with located(layer=layer.label):
                self._notices.add("compression", f"layer {layer.label}: {content.compression}")
        if self._is_of_another(layer, content.diff_id):
            self._check_order()
        content.verify()
        return result, content

    def _diagnosed(self, layer: LayerBlob, error: OcirootError) -> OcirootError:
        """Return the error to report for a layer that could not be applied.

        Raises:
            OutOfOrder: the layers are in another order.
        """
        if isinstance(error, MalformedImage):
            try:
                diff_id = self._diff_id_of_rest(layer)
            except VerificationError as found:
                return found
            if diff_id is not None:
                if self._is_of_another(layer, diff_id):
                    with suppress(OcirootError):
                        self._check_order()
                return error.locate(layer=layer.label)
        return diagnose(
            layer, error, self._pipeline if layer.number not in self._in_place else None
        )

    def _diff_id_of_rest(self, layer: LayerBlob) -> Digest | None:
        """Read a layer that could not be applied to its end; return its diff_id, if it has one.

        Raises:
            VerificationError: it was read in place, and its digest is wrong.
        """
        if layer.number in self._in_place:
            with suppress(SourceError):
                return digest_of(layer)
            return None
        content = self._pipeline.read_rest()
        return content.diff_id if content is not None else None

    def _is_of_another(self, layer: LayerBlob, diff_id: Digest) -> bool:
        """Return whether a diff_id is that of another layer of the config."""
        return diff_id != layer.diff_id and any(
            other.diff_id == diff_id for other in self._plan.layers
        )

    def _read_in_place(self, blob: LocalBlob, work: Callable[[Iterator[Change], Stream], _T]) -> _T:
        with blob.opened() as fd:
            stream = FileStream(fd, blob.size, blob.offset)
            return work(self._changes(stream), stream)

    def _changes(self, stream: Stream) -> Iterator[Change]:
        return changes(entries(stream, self._plan.limits, self._counted), self._notices)

    def _check_order(self) -> None:
        if not self._plan.reordered:
            _check_order(self._plan.layers, self._plan.limits)


def _check_order(layers: Sequence[LayerBlob], limits: Limits) -> None:
    """Check whether the layers match the diff_ids in another order.

    Layers are matched with ``rootfs.diff_ids`` by content. config.md,
    "rootfs": the diff_ids are "in order from first to last".

    Raises:
        OutOfOrder: they do.
        OcirootError: a layer cannot be read.
    """
    places: dict[str, list[LayerBlob]] = {}
    with tuned(), Pipeline(layers, limits) as pipeline:
        for layer in layers:
            for _ in pipeline.chunks():
                pass
            places.setdefault(str(pipeline.finish().diff_id), []).append(layer)
    wanted = [layer.diff_id for layer in layers]
    ordered: list[LayerBlob] = []
    for diff_id in wanted:
        if not places.get(str(diff_id)):
            return  # not the same layers
        place = places[str(diff_id)].pop(0)
        ordered.append(msgspec.structs.replace(place, diff_id=diff_id))
    if [layer.number for layer in ordered] != [layer.number for layer in layers]:
        raise OutOfOrder(tuple(ordered))
