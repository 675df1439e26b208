"""Export: an image's merged tree as one file or stream, in one of several formats."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain

import msgspec

from ..errors import DestinationError, UsageError, located
from ..limits import Limits
from ..notices import ImageWarning, Notices
from ..outputs.compress import Compressor
from ..outputs.formats import ChosenFormat, chosen_format
from ..outputs.oci.documents import WrittenLayer
from ..outputs.shape import find_subtree
from ..outputs.sink import Sink, feed
from ..outputs.squashfs import SquashfsSink
from ..outputs.stream.options import SinkOptions, Write
from ..outputs.stream.output import FileOutput, StreamOutput, Writable
from ..outputs.stream.serial import one_stream
from ..outputs.tool import ToolOutput
from ..progress import Progress, ProgressCallback
from ..publish.file import StagedFile, staged_file
from ..rootfs.contents import streams
from ..rootfs.filter import pruned
from ..rootfs.layer_data import LayerData
from ..rootfs.merge import LayerReport
from ..rootfs.nodes import Directory, Node
from ..sources.source import Source
from ..sources.unchanged import FileStates
from ..spec.config import Config
from ..tar.stream import BLOCK, Data, Stream
from .extraction import Extracted
from .merged_layers import MergedLayers, MergedState, MergeOptions
from .options import ExportOptions

__all__ = ["ExportReport", "export", "staged_output", "write_tree"]


class ExportReport(msgspec.Struct, frozen=True):
    """What an export did.

    Attributes:
        source: where the image lies.
        destination: the file; None: a stream.
        format: the format.
        compression: the compression with its level; None: none.
        size: bytes that were written.
        manifest: the digest of the manifest, of an image that was written the new one; None in a
            docker-archive, which has none.
        image_id: the digest of the configuration, which is the image's ID; likewise.
        platform: what the image runs on.
        config: the image's configuration.
        layers: the layers in the order in which they were applied; empty where an image was
            written without merging them.
        warnings: what came up.
        seconds: how long it took.
        written: the layers of the image that was written; empty for any other format.
    """

    source: str
    destination: str | None
    format: str
    compression: str | None
    size: int
    manifest: str | None
    image_id: str
    platform: str
    config: Config
    layers: tuple[LayerReport, ...]
    warnings: tuple[ImageWarning, ...]
    seconds: float
    written: tuple[WrittenLayer, ...] = ()


def export(
    exported: Extracted,
    destination: str | os.PathLike[str] | Writable,
    options: ExportOptions,
    progress: ProgressCallback | None = None,
) -> ExportReport:
    """Write an image's root file system to a file or a stream.

    Args:
        exported: the image.
        destination: a path, or a binary file object.
        options: how.
        progress: called now and then, from this thread.

    Returns:
        What was done.

    Raises:
        OcirootError: it could not be done; then there is no file.
    """
    start = time.monotonic()
    path = os.fspath(destination) if isinstance(destination, str | os.PathLike) else None
    _check_options(options)
    chosen = chosen_format(
        path, options.format, options.compress, options.tool, options.tool_options
    )
    source, notices = exported.source, Notices(options.strict)
    with ExitStack() as stack:
        output: FileOutput | StreamOutput | ToolOutput
        staged: StagedFile | None = None
        if isinstance(destination, str | os.PathLike):
            staged = stack.enter_context(staged_output(destination, source, notices, options))
            kind = FileOutput if chosen.tool is None else ToolOutput
            output = kind(staged.fd, staged.name, reserved=source.limits.size is None)
            stack.callback(output.abandon)
        else:
            output = StreamOutput(destination)
        with located(source=source.name):
            state = write_tree(exported, options, chosen, output, notices, progress)
        if isinstance(output, FileOutput):
            output.close()
        if staged is not None:
            staged.publish()
    image = exported.image
    return ExportReport(
        source=source.name,
        destination=path,
        format=chosen.name,
        compression=_compression(chosen),
        size=output.size,
        manifest=image.descriptor.digest if image.descriptor is not None else None,
        image_id=str(image.image_id),
        platform=str(image.config.platform),
        config=image.config,
        layers=state.reports,
        warnings=exported.warnings + state.warnings + notices.warnings(),
        seconds=time.monotonic() - start,
    )


def _check_options(options: ExportOptions) -> None:
    """Refuse options that are not for the format.

    Raises:
        UsageError: there is one.
    """
    if options.squash or options.recompress is not None or options.annotations:
        raise UsageError(
            "layers and annotations are of an image: --format oci-archive, oci or docker-archive"
        )


def _compression(chosen: ChosenFormat) -> str | None:
    if chosen.tool is not None:
        return chosen.tool.compression
    return str(chosen.compression) if chosen.compression is not None else None


@contextmanager
def staged_output(
    destination: str | os.PathLike[str], source: Source, notices: Notices, options: ExportOptions
) -> Iterator[StagedFile]:
    """Make a staging directory for a file, where there may be one."""
    path = os.fspath(destination)
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DestinationError("it is a directory", source=path)
        if not options.force:
            raise DestinationError("it exists", source=path, remedy="--force replaces it")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise DestinationError(
                "it is not a regular file", source=path, remedy="`-` writes to standard output"
            )
        if any(os.path.samestat(status, os.lstat(each)) for each in source.source_paths):
            raise DestinationError("it is the image that is read", source=path)
    try:
        with staged_file(path, notices, force=options.force, sync=options.sync) as staged:
            yield staged
    except DestinationError as error:
        if (error.remedy or "").startswith("--parents"):
            error.remedy = None  # which extraction has, and this has not
        raise


def write_tree(
    exported: Extracted,
    options: ExportOptions,
    chosen: ChosenFormat,
    output: FileOutput | StreamOutput | ToolOutput,
    notices: Notices,
    progress: ProgressCallback | None,
) -> MergedState:
    """Merge the layers, and write the tree to an output."""
    source = exported.source
    states = FileStates(layer.blob for layer in exported.blobs)
    in_tree_order = options.order == "tree"
    merging = MergeOptions(None, options.strict, options.tmpdir, progress)
    with ExitStack() as stack:
        layers = MergedLayers(source, exported.blobs, merging)
        stack.callback(layers.close)
        state = layers.merged(spool=in_tree_order)
        to_file = isinstance(output, FileOutput | ToolOutput)
        root = _shaped(state.tree.root, options, source.limits, notices)
        total = _size(root, to_file)
        write: Write = output.write
        if chosen.compression is not None:
            make = one_stream if chosen.format.one_stream else Compressor
            compressor = make(output.write, chosen.compression)
            stack.callback(compressor.close)
            write = compressor.write
        elif isinstance(output, FileOutput):
            output.require(total)
        sink_options = SinkOptions(
            policy=options.policy,
            limits=source.limits,
            notices=notices,
            unpacked=sum(report.unpacked_size for report in state.reports),
            in_tree_order=in_tree_order,
            to_file=to_file,
            newest=None if options.newest is None else options.newest * 10**9,
        )
        write = _counted(write, total, progress)
        sink: Sink
        if isinstance(output, ToolOutput):
            assert chosen.tool is not None  # noqa: S101
            sink = SquashfsSink(write, sink_options, output, chosen.tool)
        else:
            assert chosen.format.sink is not None  # noqa: S101
            sink = chosen.format.sink(write, sink_options)

        def files(nodes: Iterable[Node]) -> Iterator[tuple[Node, Stream]]:
            return streams(state.layers, state.plain, nodes, source.limits)

        def data(node: Node) -> Data:
            return LayerData(layers.bytes_of(node.layer), node.offset)

        feed(root, sink, files, data)
        if chosen.compression is not None:
            compressor.finish()
        # What is in place was read after it had been verified.
        for number in state.plain:
            layer = state.layers[number - 1]
            with located(layer=layer.label):
                states.check(layer.blob)
    return state


def _shaped(root: Directory, options: ExportOptions, limits: Limits, notices: Notices) -> Directory:
    """Return what is written of a tree.

    What is refused is refused here: a stream cannot be taken back.

    Raises:
        Unsupported: there is a device, or an owner that the map does not cover.
        OcirootError: there is no such subtree.
    """
    policy = options.policy
    if options.filter:
        root = pruned(find_subtree(root, options.filter.subtree, limits), options.filter)
    if policy.is_plain:
        return root
    counted: set[Node] = set()
    for parent, name, node in chain([(root, b"", root)], list(root.walk())):
        with located(member=parent.path_of(name)):
            if not policy.writes(node):
                del parent.entries[name]
            else:
                policy.final(node)  # refuses an owner that the map does not cover
                if (code := policy.dropped(node)) is not None and node not in counted:
                    if node.links > 1:
                        counted.add(node)
                    notices.add(code, parent.path_of(name))
    return root


def _size(root: Directory, sparse: bool) -> int:
    """Return how many bytes an archive will have at least, without extended headers."""
    size = BLOCK
    seen: set[Node] = set()
    for _, _, node in root.walk():
        size += BLOCK
        if node.kind == "file" and node not in seen:
            content = node.stored_size if sparse else node.size
            size += content + -content % BLOCK
            if node.links > 1:
                seen.add(node)
    return size


def _counted(write: Write, total: int, progress: ProgressCallback | None) -> Write:
    """Return what tells of the progress, and writes."""
    if progress is None:
        return write
    done = 0

    def counting(data: bytes | bytearray | memoryview) -> None:
        nonlocal done
        write(data)
        done += len(data)
        progress(Progress("export", min(done, total), total))

    return counting
