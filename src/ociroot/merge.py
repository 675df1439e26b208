"""From an image's layers to its merged tree: the pipeline, the changes and the tree put together.

Two things are known only when layers have been read, and then the work starts over, once for each:
that the manifest lists its layers in another order than the config's diff_ids, and that a layer's
whiteouts must be known before its other entries (:class:`~ociroot.tree.WhiteoutsFirst`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from .errors import MalformedImage, OcirootError, VerificationError
from .image import LayerBlob
from .layer.changeset import Change, changes
from .layer.stream import LayerContent, Pipeline, blame, compression_of, tuned
from .limits import DEFAULTS, Limits
from .nodes import Operations
from .notices import Notices
from .tar.reader import entries
from .tar.stream import ChunkStream, FileStream, Stream
from .tree import WEIGHT, Tree, WhiteoutsFirst

__all__ = [
    "LayerReport",
    "Plan",
    "Progress",
    "ProgressCallback",
    "in_right_order",
    "merge",
    "verified",
]

_T = TypeVar("_T")


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


class LayerReport(msgspec.Struct, frozen=True):
    """What was applied.

    Attributes:
        digest: the digest of the blob; None in a docker-archive, which has none.
        diff_id: the digest of the uncompressed layer.
        media_type: as the manifest says; empty in a docker-archive.
        compression: what the bytes are: ``gzip``, ``zstd`` or ``none``.
        size: bytes of the blob.
        unpacked_size: bytes of the uncompressed layer.
        entries: how many entries of the layer were applied, whiteouts among them.
    """

    digest: str | None
    diff_id: str
    media_type: str
    compression: str
    size: int
    unpacked_size: int
    entries: int


class Plan(msgspec.Struct, frozen=True):
    """How to go about it.

    Attributes:
        layers: the layers in the order in which they are applied, each with its diff_id.
        whiteouts_first: whether the whiteouts of each layer are gathered before.
        reordered: whether that is another order than the manifest's.
        verify: whether plain layers are read whole, for their digests, or their headers alone.
        limits: what the layers may ask for.
        only: the number, from 1, of the one layer that is looked at alone; None: all are merged.
    """

    layers: tuple[LayerBlob, ...]
    whiteouts_first: bool = False
    reordered: bool = False
    verify: bool = True
    limits: Limits = DEFAULTS
    only: int | None = None


class _OutOfOrder(Exception):
    def __init__(self, layers: tuple[LayerBlob, ...]) -> None:
        super().__init__()
        self.layers = layers


def in_right_order(
    layers: tuple[LayerBlob, ...],
    strict: bool,
    attempt: Callable[[Plan, Notices], _T],
    *,
    verify: bool = True,
    limits: Limits = DEFAULTS,
    only: int | None = None,
) -> _T:
    """Carry out an attempt, and again when it turns out that it must go another way.

    Args:
        layers: the layers in the manifest's order.
        strict: whether a breach of the specification is an error.
        attempt: builds what is to be built by calling :func:`merge`, from nothing each time.
        verify: whether plain layers are read whole, for their digests, or their headers alone.
        limits: what the layers may ask for.
        only: the number of the one layer that is looked at alone.

    Returns:
        What the attempt returned that went through.
    """
    plan = Plan(layers, verify=verify, limits=limits, only=only)
    while True:
        notices = Notices(strict)
        try:
            if plan.reordered:
                notices.add("layer-order")
            return attempt(plan, notices)
        except WhiteoutsFirst:
            plan = msgspec.structs.replace(plan, whiteouts_first=True)
        except _OutOfOrder as found:
            plan = msgspec.structs.replace(plan, layers=found.layers, reordered=True)


def merge(
    plan: Plan,
    operations: Operations,
    notices: Notices,
    progress: ProgressCallback | None = None,
    after_layer: Callable[[Tree, LayerBlob], None] | None = None,
) -> tuple[Tree, tuple[LayerReport, ...]]:
    """Apply layers, verifying each, to an empty tree.

    Args:
        plan: which, and how.
        operations: what carries out the tree's decisions.
        notices: told of what is odd.
        progress: called now and then, from this thread.
        after_layer: called with the tree as each layer leaves it.

    Returns:
        The merged tree, and what was applied.

    Raises:
        MalformedImage: a layer breaks a rule of its format.
        VerificationError: a digest, a size or a diff_id is not what it should be.
        Unsupported: a layer uses what ociroot does not do.
    """
    layers, limits = plan.layers, plan.limits
    whiteouts = _whiteouts(layers, limits) if plan.whiteouts_first else None
    tree = Tree(operations, notices, limits)
    if plan.only is not None:
        # Nodes have the number that their layer has in the image.
        for _ in layers[: plan.only - 1]:
            tree.apply((), ChunkStream(iter(())))
        layers, whiteouts = layers[plan.only - 1 : plan.only], [[]]
    reports: list[LayerReport] = []
    in_place: set[int] = set()
    if not plan.verify:
        # Unread, a plain layer is taken for the one of its diff_id, which its digest must agree
        # with (a docker-archive has none): else it may stand in another's place.
        in_place = {
            layer.number
            for layer in layers
            if layer.digest in (None, layer.diff_id) and compression_of(layer) == "none"
        }
    flowing = [layer for layer in layers if layer.number not in in_place]
    total = sum(layer.blob.size for layer in flowing)
    with tuned(), Pipeline(flowing, limits) as pipeline:
        for number, layer in enumerate(layers, 1):

            def report_progress(number: int = number) -> None:
                if progress is not None:
                    progress(Progress(pipeline.bytes_read, total, number, len(layers)))

            def changes_in(stream: Stream) -> Iterator[Change]:
                found = changes(entries(stream, limits), notices)
                return found if plan.only is None else _additions(found, tree, notices)

            known = whiteouts[number - 1] if whiteouts is not None else None
            try:
                if layer.number in in_place:
                    blob = layer.blob
                    with blob.opened() as fd:
                        place = FileStream(fd, blob.size, blob.offset)
                        count = tree.apply(changes_in(place), place, whiteouts=known)
                    content = LayerContent(layer, layer.diff_id, "none", blob.size)
                else:
                    stream = ChunkStream(pipeline.chunks(report_progress))
                    count = tree.apply(changes_in(stream), stream, whiteouts=known)
                    # What follows the end marker counts for the diff_id all the same.
                    stream.drain()
                    content = pipeline.finish()
                if not content.as_declared:
                    notices.add("compression", f"layer {layer.label}: {content.compression}")
            except OcirootError as error:
                blamed = blame(layer, error)
                if isinstance(blamed, MalformedImage) and not plan.reordered:
                    # What cannot be applied may be right in its own place.
                    with suppress(OcirootError):
                        _check_order(plan.layers, limits)
                raise blamed from error
            _check_diff_id(plan, content)
            reports.append(_reported(content, count))
            report_progress()
            if after_layer is not None:
                after_layer(tree, layer)
    return tree, tuple(reports)


def verified(plan: Plan, number: int) -> LayerBlob:
    """Read a layer to its end, and verify that it is the one that is applied as the number-th.

    Args:
        plan: the layers.
        number: from 1.

    Returns:
        The layer.

    Raises:
        OcirootError: as :func:`merge`.
    """
    layer = plan.layers[number - 1]
    with tuned(), Pipeline([layer], plan.limits) as pipeline:
        try:
            for _ in pipeline.chunks():
                pass
            content = pipeline.finish()
        except OcirootError as error:
            raise blame(layer, error) from error
    _check_diff_id(plan, content)
    return layer


def _additions(found: Iterable[Change], tree: Tree, notices: Notices) -> Iterator[Change]:
    """Leave out of the changes of a layer what is about the layers below it."""
    for change in found:
        if change.action != "add":
            continue
        target = change.entry.target
        if change.entry.kind == "link" and tree.find(target, follow=False) is None:
            notices.add("links-below", change.entry.name)
            continue
        yield change


def _check_diff_id(plan: Plan, content: LayerContent) -> None:
    """Refuse a layer that is another than its diff_id says."""
    layer = content.layer
    if content.diff_id == layer.diff_id:
        return
    if not plan.reordered and content.diff_id in {each.diff_id for each in plan.layers}:
        _check_order(plan.layers, plan.limits)
    raise VerificationError(
        f"the diff_id is {content.diff_id}, not {layer.diff_id}", layer=layer.label
    )


def _reported(content: LayerContent, count: int) -> LayerReport:
    layer = content.layer
    return LayerReport(
        digest=str(layer.digest) if layer.digest is not None else None,
        diff_id=str(content.diff_id),
        media_type=layer.media_type,
        compression=content.compression,
        size=layer.blob.size,
        unpacked_size=content.unpacked_size,
        entries=count,
    )


def _check_order(layers: Sequence[LayerBlob], limits: Limits) -> None:
    """Find out whether the layers are those of the diff_ids in another order.

    As the seed crate did, layers are matched with ``rootfs.diff_ids`` by content. config.md,
    "rootfs": the diff_ids are "in order from first to last".

    Raises:
        _OutOfOrder: they are.
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
        raise _OutOfOrder(tuple(ordered))


def _whiteouts(layers: Sequence[LayerBlob], limits: Limits) -> list[list[Change]]:
    """Gather the whiteouts of each layer, in an extra pass over all of them."""
    gathered: list[list[Change]] = []
    quiet = Notices()
    count = 0
    with tuned(), Pipeline(layers, limits) as pipeline:
        for layer in layers:
            try:
                stream = ChunkStream(pipeline.chunks())
                gathered.append([])
                for change in changes(entries(stream, limits), quiet):
                    if change.action != "add":
                        # Only where it stands is wanted of the entry.
                        change.entry.xattrs = change.entry.segments = None
                        gathered[-1].append(change)
                        count += 1
                        limits.check("memory", count * WEIGHT)
                stream.drain()
                pipeline.finish()
            except OcirootError as error:
                raise blame(layer, error) from error
    return gathered
