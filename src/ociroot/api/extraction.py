"""Extraction of an image's merged tree to a directory, in one atomic step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from ..errors import UsageError, located
from ..images.found import ChosenImage
from ..images.layers import LayerBlob
from ..layers.reading import Plan
from ..notices import ImageWarning, Notices
from ..outputs.directory.writer import DirectoryWriter
from ..outputs.policy import OutputPolicy
from ..progress import ProgressCallback
from ..publish.directory import PublishOptions, staged
from ..rootfs.merge import LayerReport, apply_with_retry, merge
from ..rootfs.nodes import Directory
from ..rootfs.operations import Operations
from ..rootfs.tree import Tree
from ..sources.source import Source
from ..space import SpaceBudget
from ..spec.config import Config
from .options import ExtractOptions

if TYPE_CHECKING:
    from .shaping import Shaping

__all__ = ["Extracted", "Report", "extract"]

# The minimum bytes of layers for which a second process is faster.
WORTH_A_PROCESS = 8 << 20

_T = TypeVar("_T")


class Report(msgspec.Struct, frozen=True):
    """The report of an extraction.

    Attributes:
        source: the path of the image.
        destination: the path of the root file system.
        manifest: the digest of the manifest; None in a docker-archive, which has none.
        image_id: the digest of the configuration, which is the image's ID.
        platform: the platform of the image.
        config: the image's configuration.
        layers: the layers in the order of application.
        warnings: the warnings.
        seconds: the duration.
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
    """The image to extract.

    Attributes:
        source: the source of the image.
        image: the image.
        blobs: its layers.
        warnings: the warnings from its selection.
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
        destination: a new path, an empty directory or an empty mount point.
        options: how the image is extracted.
        progress: called from time to time, in this thread.

    Returns:
        The report.

    Raises:
        OcirootError: the extraction failed; then the destination is unchanged.
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

    def attempt(
        shaping: Shaping | None, plan: Plan, notices: Notices
    ) -> tuple[tuple[LayerReport, ...], Notices]:
        with staged(destination, notices, publishing) as staging, ExitStack() as stack:
            spare = limits.size is None
            if spare and shaping is None:
                _check_space(staging.fd, blobs)
            policy = options.policy
            if shaping is not None:
                # The nodes are final when they come to the writer.
                policy = OutputPolicy(devices=policy.devices)
            writer = DirectoryWriter(staging.fd, notices, policy, spare=spare)
            job = _Job(plan, notices, progress, shaping)
            record = None
            if shaping is not None:
                record = stack.enter_context(shaping.recording(staging.fd, notices))
            tree, root, layers = _write(job, writer, options.writer_process)
            if record is not None:
                record.write(tree.root, limits)
            staging.publish(lambda fd: writer.finish_root(fd, root))
            if record is not None:
                record.publish()
        return layers, notices

    with located(source=source.name):
        layers, notices = _with_subtree(
            _shaping(os.fspath(destination), options),
            lambda shaping: apply_with_retry(
                blobs, options.strict, partial(attempt, shaping), limits=limits
            ),
        )
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


def _shaping(destination: str, options: ExtractOptions) -> Shaping | None:
    """Return what becomes of the tree on its way; None: it is written as it is."""
    if options.policy.is_plain and not (options.filter or options.record):
        return None
    if options.policy.owners is not None and os.geteuid() != 0 and not options.record:
        raise UsageError(
            "only root can give files to mapped owners: as an ordinary user --userns does it, and "
            "--record-owners records them"
        )
    from ..outputs.shape import Shape
    from .shaping import Shaping, record_path

    shape = Shape(policy=options.policy, filter=options.filter, record=options.record)
    path = record_path(destination) if options.record == "mtree" else ""
    replace = options.replace or options.replace_anything
    return Shaping(shape, path, replace=replace, sync=options.sync)


def _with_subtree(shaping: Shaping | None, work: Callable[[Shaping | None], _T]) -> _T:
    """Do something, and again when a symbolic link leads to the subtree."""
    if shaping is None:
        return work(None)
    from ..outputs.shape import MovedSubtree

    try:
        return work(shaping)
    except MovedSubtree as moved:
        return work(shaping.moved(moved.path))


class _Job(NamedTuple):
    """What is written: the layers, and what becomes of them.

    Attributes:
        plan: the layers.
        notices: receives the warnings.
        progress: called now and then, from this thread.
        shaping: what becomes of the tree; None: it is written as it is.
    """

    plan: Plan
    notices: Notices
    progress: ProgressCallback | None
    shaping: Shaping | None


_Written = tuple[Tree, Directory, tuple[LayerReport, ...]]


def _write(job: _Job, writer: DirectoryWriter, writer_process: bool) -> _Written:
    """Write the merged tree, in another process where there may be one, and it pays.

    Returns:
        The tree, the root that was written, and what was applied.
    """
    layers = job.plan.layers
    if writer_process and sum(layer.blob.size for layer in layers) >= WORTH_A_PROCESS:
        from ..outputs.directory.forked.start import (  # not needed for small images
            NoProcess,
            writing,
        )

        with suppress(NoProcess), writing(writer, job.notices, layers) as process:
            return _merged(job, process, process.end_layer)
    try:
        return _merged(job, writer, None)
    finally:
        writer.close()


def _merged(
    job: _Job, output: Operations, after_layer: Callable[[Tree, LayerBlob], None] | None
) -> _Written:
    plan, notices, progress, shaping = job
    if shaping is None:
        tree, layers = merge(plan, output, notices, progress, after_layer)
        output.finish(tree.root)
        return tree, tree.root, layers
    operations = shaping.operations(output, plan, notices)
    tree, layers = merge(plan, operations, notices, progress, after_layer)
    operations.finish(tree.root)
    return tree, operations.root, layers


def _check_space(fd: int, blobs: tuple[LayerBlob, ...]) -> None:
    """Check the space before anything is written: unpacked layers are not smaller than blobs."""
    need = sum(blob.blob.size for blob in blobs)
    budget = SpaceBudget(fd, remedy="--max-size, of what the image may take, skips this check")
    budget.require(need, f"no space: the layers have {need} bytes as they are")
