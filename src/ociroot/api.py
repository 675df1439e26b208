"""What a caller holds: an opened source and the image chosen in it.

with ociroot.open("image.tar") as source:
    report = source.image(platform="linux/arm64").extract("rootfs")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from .errors import OcirootError
from .extract import Report, extract
from .image import Chosen, LayerBlob, choose
from .layer.stream import Pipeline, blame
from .merge import Plan, ProgressCallback, in_right_order, merge
from .nodes import NoOperations
from .notices import Notices, Warning
from .sources import Source, open_source
from .spec.config import Config
from .spec.digest import Digest
from .spec.manifest import Manifest
from .spec.platform import Platform
from .tar.reader import Entry, entries
from .tar.stream import ChunkStream
from .tree import Tree

__all__ = ["Image", "Layer", "OpenedSource", "open"]


class Layer:
    """A layer of an image."""

    def __init__(self, source_name: str, blob: LayerBlob) -> None:
        self._source_name = source_name
        self._blob = blob

    @property
    def digest(self) -> Digest:
        """The digest of the blob."""
        return self._blob.descriptor.checked

    @property
    def diff_id(self) -> Digest:
        """The digest that its uncompressed content should have."""
        return self._blob.diff_id

    @property
    def media_type(self) -> str:
        """Its media type."""
        return self._blob.descriptor.media_type

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self._blob.descriptor.size

    def entries(self) -> Iterator[Entry]:
        """Read the layer's tar entries, whiteouts as such, in the order of the archive.

        The digest is verified by the end of the iteration: what came before is not to be trusted
        until then.

        Yields:
            Each entry, as the archive has it.

        Raises:
            OcirootError: the layer cannot be read, or is not what it should be.
        """
        with Pipeline([self._blob]) as pipeline:
            try:
                stream = ChunkStream(pipeline.chunks())
                yield from entries(stream)
                stream.drain()
                pipeline.finish()
            except OcirootError as error:
                raise blame(self._blob, error).locate(source=self._source_name) from error


class Image:
    """An image whose documents have been verified.

    Attributes:
        digest: the digest of the manifest.
        image_id: the digest of the configuration.
        manifest: the manifest.
        config: the image configuration.
        platform: what it runs on.
        layers: its layers in the manifest's order, base first.
        warnings: what came up while it was chosen.
    """

    def __init__(self, source_name: str, chosen: Chosen, warnings: tuple[Warning, ...]) -> None:
        self._source_name = source_name
        self._chosen = chosen
        self.digest: Digest = chosen.descriptor.checked
        self.image_id: Digest = chosen.manifest.config.checked
        self.manifest: Manifest = chosen.manifest
        self.config: Config = chosen.config
        self.platform: Platform = chosen.config.platform
        self.layers: tuple[Layer, ...] = tuple(Layer(source_name, blob) for blob in chosen.layers)
        self.warnings = warnings

    def extract(
        self,
        destination: str | os.PathLike[str],
        *,
        strict: bool = False,
        replace: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Report:
        """Write the root file system to a directory, which appears whole or not at all.

        Args:
            destination: an absent path, an empty directory or an empty mount point.
            strict: whether a warning that is a breach of the specification is an error.
            replace: whether a destination that holds something is exchanged for the result.
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
        return extract(
            self._source_name,
            self._chosen,
            destination,
            strict=strict,
            replace=replace,
            progress=progress,
            before=self.warnings,
        )

    def tree(self, *, strict: bool = False, progress: ProgressCallback | None = None) -> Tree:
        """Merge the layers in memory, verifying each; nothing is written.

        Args:
            strict: whether a warning that is a breach of the specification is an error.
            progress: called now and then, from this thread, with how far it is.

        Returns:
            The merged file system, without the contents of its files.

        Raises:
            OcirootError: as :meth:`extract`, but for the destination.
        """

        def attempt(plan: Plan, notices: Notices) -> Tree:
            return merge(plan, NoOperations(), notices, progress)[0]

        try:
            return in_right_order(self._chosen.layers, strict, attempt)
        except OcirootError as error:
            raise error.locate(source=self._source_name) from error.__cause__


class OpenedSource:
    """A source of images; a context manager that closes it."""

    def __init__(self, source: Source) -> None:
        self._source = source

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

    def image(self, platform: str | Platform | None = None, *, strict: bool = False) -> Image:
        """Choose an image and verify its documents.

        Args:
            platform: what it must run on, as in ``linux/arm/v7``; None for this machine, or for any
                when there is but one image.
            strict: whether a warning that is a breach of the specification is an error.

        Returns:
            The image.

        Raises:
            UsageError: no image is for the platform, or the choice is not unique.
            MalformedImage: a document breaks a rule of the specification.
            VerificationError: a document is not what its descriptor says.
            Unsupported: there is no image, only something else.
        """
        wanted = Platform.parse(platform) if isinstance(platform, str) else platform
        notices = Notices(strict)
        chosen = choose(self._source, wanted, notices)
        return Image(self._source.name, chosen, notices.warnings())


def open(path: str | os.PathLike[str]) -> OpenedSource:
    """Open what holds images.

    Args:
        path: an oci-archive: an uncompressed tar archive that holds an OCI image layout.

    Returns:
        The source, to be closed after use: a context manager.

    Raises:
        SourceError: there is nothing that can be read.
        MalformedImage: it is not an OCI image layout.
        Unsupported: it is another form of image.
    """
    return OpenedSource(open_source(path))
