"""From an image's layers to its merged tree: the pipeline, the changes and the tree put together.

Two things are known only when layers have been read, and then the work starts over, once for each:
that the manifest lists its layers in another order than the config's diff_ids, and that a layer's
whiteouts must be known before its other entries (:class:`~ociroot.rootfs.tree.WhiteoutsFirst`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from ..images.layers import LayerBlob
from ..layers.changeset import Change
from ..layers.pipeline import LayerContent
from ..layers.reading import LayerReader, OutOfOrder, Plan
from ..limits import DEFAULTS, Limits
from ..notices import Notices
from ..progress import Progress, ProgressCallback
from ..tar.names import clean
from ..tar.stream import ChunkStream, Stream
from .lookup import find
from .nodes import WEIGHT
from .operations import Operations
from .tree import Tree, WhiteoutsFirst

__all__ = ["LayerReport", "apply_with_retry", "merge", "verified"]

_T = TypeVar("_T")


class LayerReport(msgspec.Struct, frozen=True):
    """What was applied.

    Attributes:
        layer: its number, from 1 and in the order in which the layers are applied.
        digest: the digest of the blob; None in a docker-archive, which has none.
        diff_id: the digest of the uncompressed layer.
        media_type: as the manifest says; empty in a docker-archive.
        compression: what the bytes are: ``gzip``, ``zstd`` or ``none``.
        size: bytes of the blob.
        unpacked_size: bytes of the uncompressed layer.
        entries: how many entries of the layer were applied, whiteouts among them.
    """

    layer: int
    digest: str | None
    diff_id: str
    media_type: str
    compression: str
    size: int
    unpacked_size: int
    entries: int


def apply_with_retry(
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
        except OutOfOrder as found:
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
    whiteouts = _whiteouts(plan) if plan.whiteouts_first else None
    tree = Tree(operations, notices, plan.limits)
    layers = plan.layers
    if plan.only is not None:
        # Nodes have the number that their layer has in the image.
        for _ in layers[: plan.only - 1]:
            tree.apply((), ChunkStream(iter(())))
        layers, whiteouts = layers[plan.only - 1 : plan.only], [[]]
    reports: list[LayerReport] = []
    with LayerReader(plan, layers, notices) as reader:
        for number, layer in enumerate(layers, 1):

            def report_progress(number: int = number) -> None:
                if progress is not None:
                    progress(Progress("layers", reader.done, reader.total, number, len(layers)))

            known = whiteouts[number - 1] if whiteouts is not None else None

            def apply(
                found: Iterator[Change], data: Stream, known: list[Change] | None = known
            ) -> int:
                if plan.only is not None:
                    found = _additions(found, tree, notices)
                return tree.apply(found, data, whiteouts=known)

            count, content = reader.read(layer, apply, report_progress)
            reports.append(_reported(number + (plan.only or 1) - 1, content, count))
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
    with LayerReader(plan, [layer], Notices()) as reader:
        reader.read(layer, lambda _, __: None)
    return layer


def _additions(found: Iterable[Change], tree: Tree, notices: Notices) -> Iterator[Change]:
    """Leave out of the changes of a layer what is about the layers below it."""
    for change in found:
        if change.action != "add":
            continue
        target = clean(change.entry.target)
        if change.entry.kind == "link" and find(tree.lookup, target, follow=False) is None:
            notices.add("links-below", change.entry.name)
            continue
        yield change


def _reported(number: int, content: LayerContent, count: int) -> LayerReport:
    layer = content.layer
    return LayerReport(
        layer=number,
        digest=str(layer.digest) if layer.digest is not None else None,
        diff_id=str(content.diff_id),
        media_type=layer.media_type,
        compression=content.compression,
        size=layer.blob.size,
        unpacked_size=content.unpacked_size,
        entries=count,
    )


def _whiteouts(plan: Plan) -> list[list[Change]]:
    """Gather the whiteouts of each layer, in an extra pass over all of them."""
    gathered: list[list[Change]] = []
    limits = plan.limits
    count = memory = 0

    def gather(found: Iterator[Change], _: Stream) -> None:
        nonlocal count, memory
        kept: list[Change] = []
        for change in found:
            count += 1
            if count > limits.entries:
                raise limits.exceeded("entries")
            if change.action != "add":
                # Only where it stands is wanted of the entry.
                change.entry.xattrs = change.entry.segments = None
                change.entry.target = b""
                kept.append(change)
                memory += WEIGHT + len(change.parent) + len(change.name) + len(change.entry.name)
                limits.check("memory", memory)
        gathered.append(kept)

    with LayerReader(plan, plan.layers, Notices()) as reader:
        for layer in plan.layers:
            reader.read(layer, gather)
    return gathered
