"""Export of an image as an image: an OCI image layout, or a docker-archive."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from ..errors import UsageError, located
from ..images.documents import Documents
from ..layers.reading import Plan
from ..linux import CREATE_FILE_TO_READ
from ..notices import Notices
from ..outputs.formats import FORMATS, ChosenFormat
from ..outputs.oci.archive import ArchiveStore
from ..outputs.oci.convert import (
    ImageFormat,
    ImageOptions,
    SourceDocuments,
    WrittenImage,
    written_image,
)
from ..outputs.oci.directory import DirectoryStore
from ..outputs.oci.store import Store
from ..outputs.oci.writing import writing
from ..outputs.stream.options import Write
from ..outputs.stream.output import StreamOutput, Writable
from ..progress import ProgressCallback
from ..publish.directory import PublishOptions
from ..rootfs.merge import apply_with_retry
from ..spec.config import Config
from ..spec.document import decode
from .copying import staged_directory
from .exporting import ExportReport, staged_output, write_tree
from .extraction import Extracted
from .merged_layers import MergedState
from .options import ExportOptions

__all__ = ["export_image"]

_COPY = 1 << 20
Publish = Callable[[], None]


def export_image(
    exported: Extracted,
    destination: str | os.PathLike[str] | Writable,
    options: ExportOptions,
    progress: ProgressCallback | None = None,
) -> ExportReport:
    """Write an image to an archive, a directory or a stream.

    Args:
        exported: the image.
        destination: a path, or a binary file object.
        options: how.
        progress: called now and then, from this thread.

    Returns:
        What was done.

    Raises:
        OcirootError: it could not be done; then there is nothing.
    """
    start = time.monotonic()
    source = exported.source
    _check_options(options)
    how = ImageOptions(
        format=cast("ImageFormat", options.format),
        recompress=options.recompress,
        annotations=options.annotations,
    )
    documents = _documents(exported)
    merged: list[MergedState] = []

    def attempt(plan: Plan, notices: Notices) -> tuple[WrittenImage, int, Notices]:
        merged.clear()

        def tree(write: Write) -> None:
            tar = ChosenFormat("tar", FORMATS["tar"], None)
            output = StreamOutput(_Writer(write))
            merged.append(write_tree(exported, options, tar, output, notices, progress))

        with _store(exported, destination, options, notices) as (store, publish):
            with located(source=source.name):
                made = written_image(
                    plan,
                    documents,
                    store,
                    how,
                    notices,
                    tree=tree if options.squash else None,
                    progress=progress,
                )
            publish()
            return made, store.size, notices

    made, size, notices = apply_with_retry(
        exported.blobs, options.strict, attempt, limits=source.limits
    )
    with located(source=source.name):
        config = decode(made.config, Config, source.limits)
    return ExportReport(
        source=source.name,
        destination=os.fspath(destination) if isinstance(destination, str | os.PathLike) else None,
        format=how.format,
        compression=str(how.compression()) if options.recompress not in (None, "none") else None,
        size=size,
        manifest=str(made.manifest) if made.manifest is not None else None,
        image_id=str(made.image_id),
        platform=str(exported.image.config.platform),
        config=config,
        layers=tuple(report for state in merged for report in state.reports),
        warnings=exported.warnings
        + tuple(warning for state in merged for warning in state.warnings)
        + notices.warnings(),
        seconds=time.monotonic() - start,
        written=made.layers,
    )


def _check_options(options: ExportOptions) -> None:
    """Refuse options that are not for an image.

    Raises:
        UsageError: there is one.
    """
    if options.compress is not None:
        raise UsageError("the layers of an image are compressed, and not the whole: --recompress")
    if options.tool is not None or options.tool_options:
        raise UsageError("no program is run for an image, so there are no options for one")
    if options.squash:
        return
    if options.newest is not None:
        raise UsageError("times are changed only in a merged tree: --squash")
    if options.filter or not options.policy.is_plain:
        raise UsageError("owners, attributes and paths are chosen only in a merged tree: --squash")


class _Writer:
    """What writes, as a file object."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def write(self, data: memoryview, /) -> int:
        self._write(data)
        return len(data)


def _documents(exported: Extracted) -> SourceDocuments:
    """Read the bytes of the documents again, and verify them."""
    source, image = exported.source, exported.image
    documents = Documents(source)
    with located(source=source.name):
        manifest = None
        if image.descriptor is not None and image.manifest is not None:
            manifest = documents.verified(image.descriptor, "manifest")
            config = documents.verified(image.manifest.config, "config")
        else:
            config = documents.archived(image.config_name, image.image_id)
    return SourceDocuments(
        config=config,
        config_digest=image.image_id,
        manifest=manifest,
        manifest_digest=image.descriptor.parsed_digest if image.descriptor is not None else None,
        platform=image.platform,
        tags=image.names,
    )


@contextmanager
def _store(
    exported: Extracted,
    destination: str | os.PathLike[str] | Writable,
    options: ExportOptions,
    notices: Notices,
) -> Iterator[tuple[Store, Publish]]:
    """Begin what the image is written to; give it with what makes it visible."""
    reserved = exported.source.limits.size is None
    with ExitStack() as stack:
        if not isinstance(destination, str | os.PathLike):
            if options.format == "oci":
                raise UsageError("a layout is a directory, and cannot be written to a stream")
            # Nothing is written to a stream before all has been verified.
            spool = stack.enter_context(tempfile.TemporaryFile(dir=options.tmpdir))
            output = StreamOutput(destination)

            def copy() -> None:
                spool.seek(0)
                while data := spool.read(_COPY):
                    output.write(data)

            spooled = ArchiveStore(spool.fileno(), reserved=reserved)
            stack.callback(spooled.close)
            yield spooled, copy
            return
        if options.format == "oci":
            staging = stack.enter_context(
                staged_directory(destination, notices, PublishOptions(sync=options.sync))
            )
            layout = DirectoryStore(staging.fd, reserved=reserved)
            stack.callback(layout.close)
            yield layout, lambda: staging.publish(lambda fd: os.fchmod(fd, 0o755))
            return
        file = stack.enter_context(staged_output(destination, exported.source, notices, options))
        with writing():
            fd = os.open(file.name, CREATE_FILE_TO_READ, 0o666, dir_fd=file.fd)
        archive = stack.enter_context(os.fdopen(fd, "r+b", buffering=0))

        store = ArchiveStore(fd, reserved=reserved)
        stack.callback(store.close)

        def publish() -> None:
            store.close()
            with writing():
                archive.close()
            file.publish()

        yield store, publish
