"""An image, as a caller holds it: extract it, or merge its layers in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import Unsupported, UsageError, located, printable
from ..images.found import ChosenImage
from ..images.layers import LayerBlob, resolve_layers
from ..layers.reading import Plan
from ..notices import ImageWarning, Notices
from ..progress import ProgressCallback
from ..publish.directory import PublishOptions
from ..rootfs.merge import apply_with_retry, merge, verified
from ..rootfs.operations import NoOperations, Operations
from ..rootfs.tree import Tree
from ..sources.source import Source
from ..spec.config import Config
from ..spec.digest import Digest
from ..spec.manifest import Manifest
from ..spec.platform import Platform
from .extraction import Report, extract
from .layer import Layer
from .merged import Merged

if TYPE_CHECKING:
    from .filesystem import FileSystem

__all__ = ["Image"]

# Characters of a name that its representation shows.
_SHOWN = 200


class Image:
    """An image whose documents have been verified.

    Attributes:
        digest: the digest of the manifest; of a docker-archive, which has none, the image ID.
        image_id: the digest of the configuration.
        names: what it is called.
        manifest: the manifest; None in a docker-archive.
        config: the image configuration.
        platform: what it runs on.
        layers: its layers in the manifest's order, base first.
        warnings: what came up while it was chosen.
    """

    def __init__(
        self,
        source: Source,
        found: ChosenImage,
        warnings: tuple[ImageWarning, ...],
        tmpdir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._source = source
        self._tmpdir = tmpdir
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
        """Refuse what cannot be merged, or read any more."""
        self._source.check_open()
        if self.config.os == "windows":
            raise Unsupported(
                "this is a Windows image, whose layers are no root file system of Linux",
                source=self._source.name,
            )

    def extract(
        self,
        destination: str | os.PathLike[str],
        *,
        strict: bool = False,
        replace: bool = False,
        replace_anything: bool = False,
        discard_volumes: bool = False,
        parents: bool = False,
        sync: bool = False,
        writer_process: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Report:
        """Write the root file system to a directory, which appears whole or not at all.

        Args:
            destination: an absent path, an empty directory or an empty mount point.
            strict: whether a warning that is a breach of the specification is an error.
            replace: whether a root file system that is there is exchanged for the result.
            replace_anything: whether any other directory is, too.
            discard_volumes: whether files in volumes of the image's config, such as a database, are
                removed with what is replaced.
            parents: whether missing parent directories are made, with mode 0755.
            sync: whether the result is on the disk before it becomes visible, and its name after.
            writer_process: whether a forked process may write the files, while this one reads, as
                the command has it; there is none where it does not pay, or where this process has
                other threads.
            progress: called now and then, from this thread, with how far it is.

        Returns:
            What was done, the image's config with it.

        Raises:
            MalformedImage: the image breaks a rule of its format.
            VerificationError: a digest, a size or a diff_id is not what it should be.
            Unsupported: the image uses what ociroot does not do.
            LimitExceeded: the image asks for more than it may.
            DestinationError: the destination may not be used, or not be written.
        """
        self._check()
        return extract(
            self._source.name,
            self._found,
            self._blobs,
            destination,
            strict=strict,
            publishing=PublishOptions(
                replace=replace,
                replace_anything=replace_anything,
                discard_volumes=discard_volumes,
                parents=parents,
                sync=sync,
                volumes=tuple(self.config.config.volumes),
                sources=self._source.source_paths,
            ),
            writer_process=writer_process,
            limits=self._source.limits,
            progress=progress,
            before=self.warnings,
        )

    def merged(
        self,
        *,
        strict: bool = False,
        verify: bool = True,
        layer: int | None = None,
        operations: Callable[[], Operations] = NoOperations,
        after_layer: Callable[[Tree, Layer], None] | None = None,
        before_merge: Callable[[], None] | None = None,
        progress: ProgressCallback | None = None,
    ) -> Merged:
        """Merge the layers in memory; nothing is written.

        Args:
            strict: whether a warning that is a breach of the specification is an error.
            verify: whether all is verified as for :meth:`extract`; otherwise of plain layers only
                the headers are read, which is quick and vouches for nothing.
            layer: the number, from 1 and in the order in which they are applied, of a layer that is
                looked at alone: what it brought, also where a later one removes it. Its whiteouts
                have nothing to hide then; hard links to files that only lower layers have are left
                out, with a warning.
            operations: makes what is told what the tree does, file contents and all.
            after_layer: called with the tree as each layer leaves it.
            before_merge: called before the first layer, and again when the work starts over.
            progress: called now and then, from this thread, with how far it is.

        Returns:
            The merged file system, from which files can be read.

        Raises:
            UsageError: there is no such layer.
            OcirootError: as :meth:`extract`, but for the destination.
        """
        self._check()
        if layer is not None:
            self._check_number(layer)

        def look(tree: Tree, blob: LayerBlob) -> None:
            if after_layer is not None:
                after_layer(tree, self._layer(blob))

        def attempt(plan: Plan, notices: Notices) -> Merged:
            if before_merge is not None:
                before_merge()
            tree, layers = merge(plan, operations(), notices, progress, look)
            warnings = self.warnings + notices.warnings()
            return Merged(self._source, tree, plan, layers, warnings)

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
        """Return the root file system, to be read as Python reads files.

        Args:
            layer: the number, from 1, of a layer that is looked at alone, as for :meth:`merged`.
            strict: whether a warning that is a breach of the specification is an error.
            tmpdir: where compressed layers are decompressed to; None: where the source was opened
                with, or the system's place.
            progress: called now and then while the layers are read and merged.

        Returns:
            The file system; a context manager. Nothing is read before it is used.

        Raises:
            UsageError: there is no such layer.
            Unsupported: it is an image for Windows.
        """
        from .filesystem import FileSystem  # extraction does without
        from .merged_layers import MergedLayers, MergeOptions

        self._check()
        if layer is not None:
            self._check_number(layer)
        options = MergeOptions(layer, strict, tmpdir or self._tmpdir, progress)
        return FileSystem(MergedLayers(self._source, self._blobs, options))

    def verified_layer(self, number: int) -> Layer:
        """Read a layer to its end and verify it.

        Args:
            number: its number, from 1 and in the order in which they are applied: nearly always the
                manifest's, and otherwise that of the config's diff_ids.

        Returns:
            The layer.

        Raises:
            UsageError: there is no such layer.
            OcirootError: it cannot be read, or is not what it should be.
        """
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
            strict: whether a warning that is a breach of the specification is an error.
            progress: called now and then, from this thread, with how far it is.

        Raises:
            OcirootError: as :meth:`extract`, but for the destination.
        """
        return self.merged(strict=strict, progress=progress).tree
