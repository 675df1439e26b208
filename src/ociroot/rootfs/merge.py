"""Merge an image's layers into a tree, by combining the pipeline, the changes and the tree.

Two conditions are detected only while layers are read, and restart the work, each at most once: the
manifest lists its layers in another order than the config's diff_ids, or a layer's whiteouts must
be known before its other entries (:class:`~ociroot.rootfs.tree.WhiteoutsFirst`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from ..images.layers import LayerBlob
from ..layers.changeset import Change
from ..layers.pipeline import LayerContent
from ..layers.reading import LayerReader, OutOfOrder, Plan
from ..limits import Limits
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
    """A report of a layer that was applied.

    Attributes:
        layer: its number, from 1, in the order of application.
        digest: the digest of the blob; None in a docker-archive, which has none.
        diff_id: the digest of the uncompressed layer.
        media_type: the media type in the manifest; empty in a docker-archive.
        compression: the detected compression: ``gzip``, ``zstd`` or ``none``.
        size: bytes of the blob.
        unpacked_size: bytes of the uncompressed layer.
        entries: the number of entries that were applied, including whiteouts.
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
    limits: Limits,
    only: int | None = None,
) -> _T:
    """Run an attempt, and restart it with a changed plan if necessary.

    Args:
        layers: the layers in the manifest's order.
        strict: whether violations of the specification are errors.
        attempt: builds the result by calling :func:`merge`; each call starts from nothing.
        verify: whether plain layers are read completely to verify their digests, or only their
            headers.
        limits: bound the layers.
        only: the number of the only layer to read; None: all.

    Returns:
        The result of the successful attempt.
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
        plan: the layers and how to read them.
        operations: receives the changes of the tree.
        notices: collects warnings.
        progress: called from time to time, in this thread.
        after_layer: called with the tree after each layer.

    Returns:
        The merged tree, and a report of each layer.

    Raises:
        MalformedImage: a layer violates its format.
        VerificationError: a layer does not match its digest, size or diff_id.
        Unsupported: a layer uses a feature that ociroot does not support.
    """
    whiteouts = _whiteouts(plan) if plan.whiteouts_first else None
    tree = Tree(operations, notices, plan.limits)
    layers = plan.layers
    if plan.only is not None:
        # Nodes have the number of their layer in the image.
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
    """Read the layer with this number to its end and verify it.

    Args:
        plan: the layers.
        number: the number of the layer, from 1.

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
    """Yield the changes of a layer that do not refer to the layers below it."""
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
    """Gather the whiteouts of each layer in an extra pass."""
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
                # Only the entry's name and offset are needed.
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
