"""The public class of an image: extract it, export it, or merge its layers in memory.

More than 400 lines, since it is one class, most of it the documentation of its methods.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakSet

import msgspec

from ..errors import Unsupported, UsageError, located, printable
from ..images.found import ChosenImage
from ..images.layers import LayerBlob, resolve_layers
from ..notices import ImageWarning, Notices
from ..progress import ProgressCallback
from ..sources.source import Source
from ..spec.config import Config
from ..spec.digest import Digest
from ..spec.manifest import Manifest
from ..spec.platform import Platform
from ..tar.names import as_bytes, as_text
from .layer import Layer
from .options import ExportOptions, ExtractOptions, options_or_default

# What reads layers is imported when layers are read: to inspect an image takes none of it.
if TYPE_CHECKING:
    from ..layers.reading import Plan
    from ..outputs.stream.output import Writable
    from ..rootfs.compare import Snapshot
    from ..rootfs.contents import ContentCache
    from ..rootfs.operations import Operations
    from ..rootfs.search import LayerEvent
    from ..rootfs.tree import Tree
    from ..rootfs.usage import Usage
    from .exporting import ExportReport
    from .extraction import Report
    from .filesystem import FileSystem
    from .merged import Merged
    from .merged_layers import MergedLayers

__all__ = ["Image"]

# The maximum number of characters of a name in a ``repr``.
_SHOWN = 200


class Image:
    """An image whose documents have been verified.

    Attributes:
        digest: the digest of the manifest; of a docker-archive, which has none, the image ID.
        image_id: the digest of the configuration.
        names: its names.
        manifest: the manifest; None in a docker-archive.
        config: the image configuration.
        platform: its platform.
        layers: its layers in the manifest's order, base first.
        warnings: the warnings from its selection.
    """

    def __init__(
        self,
        source: Source,
        found: ChosenImage,
        warnings: tuple[ImageWarning, ...],
        tmpdir: str | os.PathLike[str] | None = None,
        filesystems: WeakSet[MergedLayers] | None = None,
    ) -> None:
        self._source = source
        self._filesystems = filesystems
        self._tmpdir = os.fspath(tmpdir) if tmpdir is not None else None
        self._found = found
        self._blobs = resolve_layers(source, found)
        self.digest: Digest = found.digest
        self.image_id: Digest = found.image_id
        self.names: tuple[str, ...] = found.names
        self.manifest: Manifest | None = found.manifest
        self.config: Config = found.config
        self.platform: Platform = found.config.platform
        self.layers: tuple[Layer, ...] = tuple(map(self._layer, self._blobs))
        self.warnings = warnings

    def _layer(self, blob: LayerBlob) -> Layer:
        return Layer(self._source, blob)

    def __repr__(self) -> str:
        names = "".join(f" {printable(name[:_SHOWN])}" for name in self.names[:1])
        return f"<Image{names} {self.platform} {self.digest.short} layers={len(self.layers)}>"

    def _check(self) -> None:
        """Check that the image can be merged, and that its source is open."""
        self._source.check_open()
        if self.config.os == "windows":
            raise Unsupported(
                "this is a Windows image, whose layers are no root file system of Linux",
                source=self._source.name,
            )

    def extract(
        self,
        destination: str | os.PathLike[str],
        options: ExtractOptions | None = None,
        *,
        progress: ProgressCallback | None = None,
    ) -> Report:
        """Write the root file system to a directory, in one atomic step.

        Args:
            destination: a new path, an empty directory or an empty mount point.
            options: what may be replaced, and how the files are written; None: nothing is replaced.
            progress: called from time to time, in this thread.

        Returns:
            A report, which includes the image's configuration.

        Raises:
            MalformedImage: the image violates its format.
            VerificationError: content does not match its digest, size or diff_id.
            Unsupported: the image uses a feature that ociroot does not support.
            LimitExceeded: the image exceeds a limit.
            DestinationError: the destination cannot be used or written.
        """
        from .extraction import Extracted, extract

        self._check()
        return extract(
            Extracted(self._source, self._found, self._blobs, self.warnings),
            destination,
            options_or_default(options, ExtractOptions),
            progress,
        )

    def export(
        self,
        destination: str | os.PathLike[str] | Writable,
        options: ExportOptions | None = None,
        *,
        progress: ProgressCallback | None = None,
    ) -> ExportReport:
        """Write the root file system, or the image again, to a file or a stream.

        Args:
            destination: the path of a file or, for a layout, of a directory, which appears whole
                or not at all; or a binary file object, which gets nothing before all layers have
                been verified.
            options: the format, the compression and more; None: by the name of the file.
            progress: called now and then, from this thread, with how far it is.

        Returns:
            What was done, the image's config with it.

        Raises:
            UsageError: there is no such format or compression.
            OcirootError: as :meth:`extract`.
        """
        from ..outputs.formats import IMAGE_FORMATS
        from .exporting import export
        from .extraction import Extracted

        self._check()
        options = options_or_default(options, ExportOptions)
        if options.tmpdir is None:
            options = msgspec.structs.replace(options, tmpdir=self._tmpdir)
        image = Extracted(self._source, self._found, self._blobs, self.warnings)
        if options.format in IMAGE_FORMATS:
            from .exporting_image import export_image  # other formats do without

            return export_image(image, destination, options, progress)
        return export(image, destination, options, progress)

    def merged(
        self,
        *,
        strict: bool = False,
        verify: bool = True,
        layer: int | None = None,
        operations: Callable[[], Operations] | None = None,
        after_layer: Callable[[Tree, Layer], None] | None = None,
        keep: Iterable[str | bytes] = (),
        progress: ProgressCallback | None = None,
    ) -> Merged:
        """Merge the layers in memory; nothing is written.

        Args:
            strict: whether violations of the specification are errors instead of warnings.
            verify: whether everything is verified as for :meth:`extract`; otherwise only the
                headers of plain layers are read, which is fast but does not verify them.
            layer: the number, from 1 in the order of application, of the only layer to merge: its
                files, even if a later layer removes them. Its whiteouts then have no effect, and
                hard links to files of lower layers are skipped with a warning.
            operations: creates the receiver of the tree's operations and file contents; called
                before the first layer, and again if the work restarts.
            after_layer: called with the tree after each layer.
            keep: paths of files that will be read: their contents are kept while the layers are
                read, so that a layer need not be read again. Not together with ``operations``.
            progress: called from time to time, in this thread.

        Returns:
            The merged file system, from which files can be read.

        Raises:
            UsageError: there is no such layer.
            OcirootError: as :meth:`extract`, but for the destination.
        """
        from ..rootfs.merge import apply_with_retry, merge
        from ..rootfs.operations import NoOperations
        from .merged import Merged

        self._check()
        if layer is not None:
            self._check_number(layer)
        names = {as_bytes(path).rstrip(b"/").rpartition(b"/")[2] for path in keep}
        if names and operations is not None:
            raise ValueError("files are kept only by merged() itself, without operations")

        def look(tree: Tree, blob: LayerBlob) -> None:
            if after_layer is not None:
                after_layer(tree, self._layer(blob))

        def attempt(plan: Plan, notices: Notices) -> Merged:
            cache = self._cache(names) if names else None
            does = cache or (operations() if operations is not None else NoOperations())
            merged = merge(plan, does, notices, progress, look)
            warnings = self.warnings + notices.warnings()
            return Merged(self._source, plan, merged, warnings, cache=cache, tmpdir=self._tmpdir)

        with located(source=self._source.name):
            return apply_with_retry(
                self._blobs, strict, attempt, verify=verify, limits=self._source.limits, only=layer
            )

    def filesystem(
        self,
        *,
        layer: int | None = None,
        strict: bool = False,
        tmpdir: str | os.PathLike[str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> FileSystem:
        """Return the root file system, with an interface like that of Python's files.

        Args:
            layer: the number, from 1, of the only layer to read, as for :meth:`merged`.
            strict: whether violations of the specification are errors instead of warnings.
            tmpdir: the directory for decompressed layers; None: the one that the source was opened
                with, or the system's default.
            progress: called from time to time while the layers are read and merged.

        Returns:
            The file system; a context manager. Nothing is read before it is used.

        Raises:
            UsageError: there is no such layer.
            Unsupported: it is an image for Windows.
        """
        from .filesystem import FileSystem  # not needed for extraction
        from .merged_layers import MergedLayers, MergeOptions

        self._check()
        if layer is not None:
            self._check_number(layer)
        options = MergeOptions(layer, strict, tmpdir or self._tmpdir, progress)
        layers = MergedLayers(self._source, self._blobs, options)
        if self._filesystems is not None:
            self._filesystems.add(layers)
        return FileSystem(layers, self.warnings)

    def _cache(self, names: Iterable[bytes]) -> ContentCache:
        from ..rootfs.contents import ContentCache

        return ContentCache(names, self._tmpdir)

    def usage(self, *, progress: ProgressCallback | None = None) -> Usage:
        """Return the disk usage of the image: by directory, by layer, and what is wasted.

        Compressed layers are verified; of plain ones in an archive only the headers are read.

        Args:
            progress: called now and then, from this thread.

        Raises:
            OcirootError: as :meth:`merged`.
        """
        from ..rootfs.usage import LayerUsage, Usage, Waste, kept_by_layer

        wastes: list[Waste] = []

        def start() -> Waste:
            wastes.append(Waste())
            return wastes[-1]

        merged = self.merged(verify=False, operations=start, progress=progress)
        root = merged.tree.root
        kept, wasted, made_by = kept_by_layer(root), wastes[-1].by_layer, self.config.created_by()
        layers = tuple(
            LayerUsage(
                each.layer,
                each.digest or each.diff_id,
                kept[each.layer],
                wasted[each.layer],
                made_by.get(each.layer, ""),
            )
            for each in merged.layers
        )
        return Usage(root, layers, self._source.limits)

    def layer_events(
        self,
        path: str | bytes | None = None,
        *,
        show: Callable[[bytes], str] = as_text,
        progress: ProgressCallback | None = None,
    ) -> Iterator[LayerEvent]:
        """Return which layers add, change and remove a path, and what created them.

        The layers are read by the call itself, as :meth:`usage` reads them; the iterator reads
        nothing.

        Args:
            path: a path from the root, or a pattern with ``*``, ``?`` and ``[…]``; None: all paths.
                Links in its parents are followed, in a pattern only before its first such
                character; a link in the final component is not.
            show: converts a name to text; see :func:`~ociroot.printable`.
            progress: called from time to time, in this thread.

        Returns:
            The events in the order of the layers, those of a layer sorted by path.

        Raises:
            LimitExceeded: the paths exceed the limit ``listing``.
            OcirootError: as :meth:`merged`.
        """
        from ..rootfs.search import layer_events, search_for

        limits = self._source.limits
        search = search_for(as_bytes(path) if path is not None else None, limits)
        merged = self.merged(
            verify=False,
            operations=search.start,
            after_layer=lambda tree, _: search.look(tree),
            progress=progress,
        )
        return layer_events(search, merged.layers, self.config.created_by(), show, limits)

    def snapshot(self, *, progress: ProgressCallback | None = None) -> Snapshot:
        """Return the merged file system with the digests of its files, for comparison.

        Everything is verified, as for :meth:`extract`. The source may be closed afterwards.

        Args:
            progress: called now and then, from this thread.

        Raises:
            OcirootError: as :meth:`merged`.
        """
        return self.snapshots(len(self.layers), progress=progress)[0]

    def snapshots(
        self, *layers: int, progress: ProgressCallback | None = None
    ) -> tuple[Snapshot, ...]:
        """Return the file system after each of some layers, in one pass over all layers.

        Args:
            layers: the numbers of the layers, from 1 in the order of application; 0 is before the
                first one.
            progress: called now and then, from this thread.

        Returns:
            A snapshot for each of them.

        Raises:
            UsageError: there is no such layer.
            OcirootError: as :meth:`merged`.
        """
        from ..rootfs.compare import Snapshots

        for number in layers:
            if number:
                self._check_number(number)
        snapshots = Snapshots(layers, len(self.layers), self._source.limits)
        self.merged(
            operations=snapshots.start,
            after_layer=lambda tree, _: snapshots.look(tree),
            progress=progress,
        )
        return tuple(snapshots.taken[number] for number in layers)

    def verified_layer(self, number: int) -> Layer:
        """Read a layer to its end and verify it.

        Args:
            number: its number, from 1 in the order of application: that of the config's diff_ids,
                which is nearly always the manifest's.

        Returns:
            The layer.

        Raises:
            UsageError: there is no such layer.
            OcirootError: it cannot be read, or does not match its digest or diff_id.
        """
        from ..rootfs.merge import apply_with_retry, verified

        self._source.check_open()
        self._check_number(number)

        def attempt(plan: Plan, notices: Notices) -> Layer:
            return self._layer(verified(plan, number))

        with located(source=self._source.name):
            return apply_with_retry(self._blobs, False, attempt, limits=self._source.limits)

    def _check_number(self, number: int) -> None:
        if not 1 <= number <= len(self._blobs):
            count = len(self._blobs)
            raise UsageError(f"there is no layer {number}, only {count}").locate(
                source=self._source.name
            )

    def tree(self, *, strict: bool = False, progress: ProgressCallback | None = None) -> Tree:
        """Return the merged file system, verified, without the contents of its files.

        Args:
            strict: whether violations of the specification are errors instead of warnings.
            progress: called from time to time, in this thread.

        Raises:
            OcirootError: as :meth:`extract`, but for the destination.
        """
        return self.merged(strict=strict, progress=progress).tree
