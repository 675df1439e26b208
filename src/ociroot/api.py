"""What a caller holds: an opened source and the image chosen in it.

with ociroot.open("image.tar") as source:
    report = source.image(platform="linux/arm64").extract("rootfs")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from .catalog import Catalog
from .errors import OcirootError, SourceError, Unsupported, UsageError, printable, quoted
from .extract import Report, extract
from .image import LayerBlob, Wanted, find, pair
from .layer.stream import Pipeline, blame, compression_of
from .limits import DEFAULTS, Limits
from .listing import ChosenImage, FoundImage, Listing, Other
from .merge import LayerReport, ProgressCallback, in_right_order, merge, verified
from .nodes import Node, NoOperations, Operations
from .notices import Notices, Warning
from .publish.directory import PublishOptions
from .reading import Plan
from .sources import Source
from .sources.forms import open_source
from .sources.transports import Name, parse, remedy_for_absent
from .spec.config import Config
from .spec.digest import Digest
from .spec.manifest import Manifest
from .spec.platform import Platform
from .tar.entry import Entry
from .tar.reader import entries
from .tar.stream import ChunkStream, Stream
from .tree import Tree

__all__ = ["Image", "Layer", "Merged", "OpenedSource", "open"]


class Layer:
    """A layer of an image."""

    def __init__(self, source_name: str, blob: LayerBlob, limits: Limits) -> None:
        self._source_name = source_name
        self._blob = blob
        self._limits = limits

    @property
    def digest(self) -> Digest | None:
        """The digest of the blob; None in a docker-archive, which has none."""
        return self._blob.digest

    @property
    def diff_id(self) -> Digest:
        """The digest that its uncompressed content should have."""
        return self._blob.diff_id

    @property
    def media_type(self) -> str:
        """Its media type; empty in a docker-archive."""
        return self._blob.media_type

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self._blob.blob.size

    @property
    def compression(self) -> str:
        """What its first bytes say: ``gzip``, ``zstd``, ``none``, or one that is refused."""
        return compression_of(self._blob)

    def entries(self) -> Iterator[Entry]:
        """Read the layer's tar entries, whiteouts as such, in the order of the archive.

        The digest (in a docker-archive, which has none, the diff_id) is verified by the end of the
        iteration: what came before is not to be trusted until then.

        Yields:
            Each entry, as the archive has it.

        Raises:
            OcirootError: the layer cannot be read, or is not what it should be.
        """
        with Pipeline([self._blob], self._limits) as pipeline:
            try:
                stream = ChunkStream(pipeline.chunks())
                yield from entries(stream, self._limits)
                stream.drain()
                content = pipeline.finish()
                if self.digest is None:
                    content.verify()
            except OcirootError as error:
                raise blame(self._blob, error).locate(source=self._source_name) from error


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

    def __init__(self, source: Source, found: ChosenImage, warnings: tuple[Warning, ...]) -> None:
        self._source_name = source.name
        self._limits = source.limits
        self._places = source.places
        self._found = found
        self._blobs = pair(source, found)
        self.digest: Digest = found.digest
        self.image_id: Digest = found.image_id
        self.names: tuple[str, ...] = found.names
        self.manifest: Manifest | None = found.manifest
        self.config: Config = found.config
        self.platform: Platform = found.config.platform
        self.layers: tuple[Layer, ...] = tuple(map(self._layer, self._blobs))
        self.warnings = warnings

    def _layer(self, blob: LayerBlob) -> Layer:
        return Layer(self._source_name, blob, self._limits)

    def _refuse_windows(self) -> None:
        if self.config.os == "windows":
            raise Unsupported(
                "this is a Windows image, whose layers are no root file system of Linux",
                source=self._source_name,
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
        self._refuse_windows()
        return extract(
            self._source_name,
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
                sources=self._places,
            ),
            writer_process=writer_process,
            limits=self._limits,
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
        self._refuse_windows()
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
            return Merged(self._source_name, tree, plan, layers, warnings)

        try:
            return in_right_order(
                self._blobs, strict, attempt, verify=verify, limits=self._limits, only=layer
            )
        except OcirootError as error:
            raise error.locate(source=self._source_name) from error.__cause__

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
        self._check_number(number)

        def attempt(plan: Plan, notices: Notices) -> Layer:
            return self._layer(verified(plan, number))

        try:
            return in_right_order(self._blobs, False, attempt, limits=self._limits)
        except OcirootError as error:
            raise error.locate(source=self._source_name) from error.__cause__

    def _check_number(self, number: int) -> None:
        if not 1 <= number <= len(self._blobs):
            count = len(self._blobs)
            raise UsageError(f"there is no layer {number}, only {count}").locate(
                source=self._source_name
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


class Merged:
    """An image's merged file system, and the way to the contents of its files.

    Attributes:
        tree: the file system.
        layers: what was applied, in this order; ``Node.layer`` counts from 0 in it.
        warnings: what was odd.
    """

    def __init__(
        self,
        source_name: str,
        tree: Tree,
        plan: Plan,
        layers: tuple[LayerReport, ...],
        warnings: tuple[Warning, ...],
    ) -> None:
        self._source_name = source_name
        self._plan = plan
        first = plan.only - 1 if plan.only is not None else 0
        self._plain = {n for n, layer in enumerate(layers, first) if layer.compression == "none"}
        self.tree = tree
        self.layers = layers
        self.warnings = warnings

    def files(
        self, nodes: Iterable[Node], *, verify: bool = False
    ) -> Iterator[tuple[Node, Stream]]:
        """Go to the contents of regular files, in the order in which the layers hold them.

        Each layer is read at most once. A compressed one is read to its end and verified then:
        what came of it is not to be trusted before the iteration has gone on to a file of another
        layer, or has ended, without an error. Of a plain one only the files are read, in place.
        When the layers were merged they were verified, unless with ``verify=False``; whoever can
        write to the image may have changed them since.

        Args:
            nodes: regular files of the tree; one that is given twice comes once.
            verify: whether plain layers are read to their end and verified, too.

        Yields:
            Each of them, with a stream at its data: ``node.stored`` bytes can be read from it, and
            no more.

        Raises:
            VerificationError: a layer is not what it was when the layers were merged.
            OcirootError: a layer cannot be read.
        """
        from .contents import streams  # extraction does without

        try:
            in_place = self._plain if not verify else ()
            yield from streams(self._plan.layers, in_place, nodes, self._plan.limits)
        except OcirootError as error:
            raise error.locate(source=self._source_name) from error.__cause__

    def read(self, node: Node) -> Iterator[memoryview]:
        """Yield the content of a regular file, the holes of a sparse one as zeros.

        It is not to be trusted before the iteration has ended without an error; see :meth:`files`.

        Args:
            node: a regular file of the tree.

        Raises:
            VerificationError: its layer is not what it was when the layers were merged.
            OcirootError: its layer cannot be read.
        """
        from .contents import pieces

        for found, stream in self.files([node]):
            yield from pieces(found, stream)


class OpenedSource:
    """A source of images; a context manager that closes it."""

    def __init__(self, source: Source, ref: str = "") -> None:
        self._source = source
        self._ref = ref
        self._catalog = Catalog(source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files behind it; its images cannot be read any more."""
        self._source.close()

    @property
    def form(self) -> str:
        """What it is: ``oci-archive``, ``oci-layout`` or ``docker-archive``."""
        return self._source.form

    @property
    def ref(self) -> str:
        """The name of an image that it was opened with, as in ``oci:DIR:NAME``; empty: none."""
        return self._ref

    def listing(self) -> Listing:
        """Return what is in it: its images, and what is no image.

        Raises:
            MalformedImage: a document that leads to the others breaks a rule of the specification,
                or two of them contradict each other. What concerns one image alone is no error but
                listed among the others, as ``unreadable``.
            LimitExceeded: there is more to read than may be.
        """
        try:
            return self._catalog.listing()
        except OcirootError as error:
            raise error.locate(source=self._source.name) from error.__cause__

    def load(self, found: FoundImage | Other) -> Image:
        """Return an image of the listing.

        Args:
            found: the image, or what is none.

        Raises:
            OcirootError: one of its layers is not there, or of an unknown type; or it is no image,
                and why.
        """
        if isinstance(found, FoundImage):
            return self._load(found, ())
        error = found.error or Unsupported(f"this is no image but {printable(found.kind[:200])}")
        raise error.locate(source=self._source.name)

    def _load(self, found: FoundImage, warnings: tuple[Warning, ...]) -> Image:
        try:
            return Image(self._source, self._catalog.load(found), warnings)
        except OcirootError as error:
            raise error.locate(source=self._source.name) from error.__cause__

    def image(
        self,
        platform: str | Platform | None = None,
        *,
        ref: str = "",
        digest: str = "",
        strict: bool = False,
    ) -> Image:
        """Choose an image and verify its documents.

        Args:
            platform: what it must run on, as in ``linux/arm/v7`` or ``arm64``; None for this
                machine, or for any when there is but one image.
            ref: a name of the image, full or short; empty: the one that the source was opened with,
                or any.
            digest: the digest of its manifest or its image ID, or the beginning of one.
            strict: whether a warning that is a breach of the specification is an error.

        Returns:
            The image.

        Raises:
            UsageError: no image is what was asked for, or more than one is.
            MalformedImage: a document breaks a rule of the specification.
            VerificationError: a document is not what its descriptor says.
            Unsupported: there is no image, only something else.
        """
        if self._ref and ref not in ("", self._ref):
            raise UsageError(
                f"two names are given, {quoted(self._ref)} with the source and {quoted(ref)}"
            ).locate(source=self._source.name)
        notices = Notices(strict)
        wanted = Platform.parse(platform) if isinstance(platform, str) else platform
        try:
            found = find(self._catalog, Wanted(wanted, ref or self._ref, digest), notices)
        except OcirootError as error:
            raise error.locate(source=self._source.name) from error.__cause__
        return self._load(found, notices.warnings())


def open(
    path: str | os.PathLike[str],
    *,
    shared_blobs: str | os.PathLike[str] | None = None,
    tmpdir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULTS,
) -> OpenedSource:
    """Open what holds images: an oci-archive, a docker-archive, or an OCI layout directory.

    Args:
        path: a file or a directory, told apart by content; ``-`` is standard input. Text may be
            one of skopeo's transports, too: ``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]`` or
            ``docker-archive:FILE[:REF]``, unless something of just that name is there.
        shared_blobs: where the blobs of a layout directory lie, when several share them.
        tmpdir: where a compressed archive is decompressed to; None: the system's place.
        progress: called while an archive is decompressed or copied, with the bytes read and, where
            it is known, how many there are (else 0).
        limits: what the image may ask for; whatever is done with it is held against them.

    Returns:
        The source, to be closed after use: a context manager.

    Raises:
        SourceError: there is nothing that can be read.
        MalformedImage: it is no form of an image.
        Unsupported: it is something else, with what.
        DestinationError: there is no space for decompressing it.
        UsageError: a transport without a path.
    """
    path, ref = parse(path) if isinstance(path, str) else Name(os.fspath(path))
    try:
        source = open_source(
            path, shared_blobs=shared_blobs, tmpdir=tmpdir, progress=progress, limits=limits
        )
    except SourceError as error:
        error.remedy = error.remedy or remedy_for_absent(path)
        raise
    return OpenedSource(source, ref)
