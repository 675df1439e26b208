"""Extraction: an image's merged tree, written to a directory that appears whole or not at all."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

import msgspec

from ..errors import located
from ..images.found import ChosenImage
from ..images.layers import LayerBlob
from ..layers.reading import Plan
from ..notices import ImageWarning, Notices
from ..outputs.directory.writer import DirectoryWriter
from ..progress import ProgressCallback
from ..publish.directory import PublishOptions, staged
from ..rootfs.merge import LayerReport, apply_with_retry, merge
from ..rootfs.tree import Tree
from ..sources.source import Source
from ..space import SpaceBudget
from ..spec.config import Config
from .options import ExtractOptions

__all__ = ["Extracted", "Report", "extract"]

# Bytes of layers from which on a second process pays.
WORTH_A_PROCESS = 8 << 20


class Report(msgspec.Struct, frozen=True):
    """What an extraction did.

    Attributes:
        source: where the image lies.
        destination: where its root file system is now.
        manifest: the digest of the manifest; None in a docker-archive, which has none.
        image_id: the digest of the configuration, which is the image's ID.
        platform: what the image runs on.
        config: the image's configuration.
        layers: the layers in the order in which they were applied.
        warnings: what was odd.
        seconds: how long it took.
    """

    source: str
    destination: str
    manifest: str | None
    image_id: str
    platform: str
    config: Config
    layers: tuple[LayerReport, ...]
    warnings: tuple[ImageWarning, ...]
    seconds: float


class Extracted(NamedTuple):
    """What is extracted.

    Attributes:
        source: where the image lies.
        image: the image.
        blobs: its layers.
        warnings: what came up while it was chosen.
    """

    source: Source
    image: ChosenImage
    blobs: tuple[LayerBlob, ...]
    warnings: tuple[ImageWarning, ...]


def extract(
    what: Extracted,
    destination: str | os.PathLike[str],
    options: ExtractOptions,
    progress: ProgressCallback | None,
) -> Report:
    """Write an image's root file system to a directory; see ``Image.extract``.

    Args:
        what: the image.
        destination: an absent path, an empty directory or an empty mount point.
        options: how.
        progress: called now and then, from this thread.

    Returns:
        What was done.

    Raises:
        OcirootError: it could not be done; then nothing has changed at the destination.
    """
    start = time.monotonic()
    source, image, blobs, before = what
    limits = source.limits
    publishing = PublishOptions(
        replace=options.replace,
        replace_anything=options.replace_anything,
        discard_volumes=options.discard_volumes,
        parents=options.parents,
        sync=options.sync,
        volumes=tuple(image.config.config.volumes),
        sources=source.source_paths,
    )

    def attempt(plan: Plan, notices: Notices) -> tuple[tuple[LayerReport, ...], Notices]:
        with staged(destination, notices, publishing) as staging:
            if limits.size is None:
                _check_space(staging.fd, blobs)
            writer = DirectoryWriter(staging.fd, notices, spare=limits.size is None)
            tree, layers = _write(plan, writer, notices, progress, options.writer_process)
            staging.publish(lambda fd: writer.finish_root(fd, tree.root))
        return layers, notices

    with located(source=source.name):
        layers, notices = apply_with_retry(blobs, options.strict, attempt, limits=limits)
    return Report(
        source=source.name,
        destination=os.fspath(destination),
        manifest=image.descriptor.digest if image.descriptor is not None else None,
        image_id=str(image.image_id),
        platform=str(image.config.platform),
        config=image.config,
        layers=layers,
        warnings=before + notices.warnings(),
        seconds=time.monotonic() - start,
    )


def _write(
    plan: Plan,
    writer: DirectoryWriter,
    notices: Notices,
    progress: ProgressCallback | None,
    writer_process: bool,
) -> tuple[Tree, tuple[LayerReport, ...]]:
    """Write the merged tree, in another process where there may be one, and it pays."""
    if writer_process and sum(layer.blob.size for layer in plan.layers) >= WORTH_A_PROCESS:
        from ..outputs.directory.forked.start import (  # a small image does without
            NoProcess,
            writing,
        )

        with suppress(NoProcess), writing(writer, notices, plan.layers) as process:
            tree, layers = merge(plan, process, notices, progress, process.end_layer)
            process.finish(tree.root)
            return tree, layers
    try:
        tree, layers = merge(plan, writer, notices, progress)
        writer.finish(tree.root)
    finally:
        writer.close()
    return tree, layers


def _check_space(fd: int, blobs: tuple[LayerBlob, ...]) -> None:
    """Refuse what cannot fit before anything is written: layers do not shrink when unpacked."""
    need = sum(blob.blob.size for blob in blobs)
    budget = SpaceBudget(fd, remedy="--max-size, of what the image may take, skips this check")
    budget.require(need, f"no space: the layers have {need} bytes as they are")
