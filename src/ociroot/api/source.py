"""The public class of an opened source, and ``open``.

with ociroot.open("image.tar") as source:
    report = source.image(platform="linux/arm64").extract("rootfs")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

import msgspec

from ..errors import SourceError, Unsupported, UsageError, located, printable, quoted
from ..images.catalog import Catalog
from ..images.found import FoundImage, Listing, NonImage
from ..images.select import ImageSelector, select
from ..notices import ImageWarning, Notices
from ..progress import ProgressCallback
from ..sources.detect import open_source
from ..sources.source import Source
from ..sources.transports import Name, parse, remedy_for_absent
from ..spec.platform import Platform
from .image import Image
from .options import SourceOptions, options_or_default

if TYPE_CHECKING:
    from .merged_layers import MergedLayers

__all__ = ["OpenedSource", "open"]


class OpenedSource:
    """A source of images; a context manager that closes it."""

    def __init__(
        self, source: Source, ref: str = "", tmpdir: str | os.PathLike[str] | None = None
    ) -> None:
        self._source = source
        self._ref = ref
        self._tmpdir = tmpdir
        self._catalog = Catalog(source)
        self._filesystems: WeakSet[MergedLayers] = WeakSet()
        self._closed = False

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<OpenedSource {printable(self._source.name)} {self.form}{state}>"

    def __enter__(self) -> Self:
        self._source.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files, and its images' file systems; they can no longer be read."""
        self._closed = True
        # First, so that no file system waits for layers to be read to their ends.
        self._source.close()
        for layers in list(self._filesystems):
            layers.close()

    @property
    def form(self) -> str:
        """The form: ``oci-archive``, ``oci-layout`` or ``docker-archive``."""
        return self._source.form

    @property
    def ref(self) -> str:
        """The image name that it was opened with, as in ``oci:DIR:NAME``, or empty."""
        return self._ref

    def listing(self) -> Listing:
        """Return its images, and its other items.

        Raises:
            MalformedImage: a root document violates the specification, or two of them contradict
                each other. An error of a single image is not raised; the image is listed among the
                others as ``unreadable``.
            LimitExceeded: a limit on documents is exceeded.
        """
        self._source.check_open()
        with located(source=self._source.name):
            return self._catalog.listing()

    def load(self, found: FoundImage | NonImage) -> Image:
        """Return an image of the listing.

        Args:
            found: the image, or another item.

        Raises:
            OcirootError: one of its layers is missing or of an unknown type, or the item is not an
                image.
        """
        if isinstance(found, FoundImage):
            return self._load(found, ())
        error = found.error or Unsupported(f"this is no image but {printable(found.kind[:200])}")
        raise error.locate(source=self._source.name)

    def _load(self, found: FoundImage, warnings: tuple[ImageWarning, ...]) -> Image:
        self._source.check_open()
        with located(source=self._source.name):
            chosen = self._catalog.load(found)
            return Image(self._source, chosen, warnings, self._tmpdir, self._filesystems)

    def image(
        self,
        selector: ImageSelector | None = None,
        *,
        platform: str | Platform | None = None,
        ref: str = "",
        digest: str = "",
        strict: bool = False,
    ) -> Image:
        """Choose an image and verify its documents.

        Args:
            selector: the selection; the next three are its fields, as alternatives to it.
            platform: see :class:`ImageSelector`.
            ref: see :class:`ImageSelector`.
            digest: see :class:`ImageSelector`.
            strict: whether violations of the specification are errors instead of warnings.

        Returns:
            The image.

        Raises:
            UsageError: no image matches, or the selection is ambiguous.
            MalformedImage: a document violates the specification.
            VerificationError: a document does not match its descriptor.
            Unsupported: the source contains no image.
        """
        if selector is None:
            selector = ImageSelector(platform=platform, ref=ref, digest=digest)
        elif platform is not None or ref or digest:
            raise TypeError("image() takes a selector, or its fields, and not both")
        elif not isinstance(selector, ImageSelector):
            raise TypeError(
                f"image() takes an ociroot.ImageSelector, not {selector!r}; "
                "or image(platform=…), image(ref=…), image(digest=…)"
            )
        self._source.check_open()
        if self._ref and selector.ref not in ("", self._ref):
            raise UsageError(
                f"two names are given, {quoted(self._ref)} with the source and "
                f"{quoted(selector.ref)}"
            ).locate(source=self._source.name)
        notices = Notices(strict)
        wanted = msgspec.structs.replace(
            selector, platform=selector.parsed_platform, ref=selector.ref or self._ref
        )
        with located(source=self._source.name):
            found = select(self._catalog, wanted, notices)
        return self._load(found, notices.warnings())


def open(
    path: str | os.PathLike[str],
    options: SourceOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
) -> OpenedSource:
    """Open a source of images: an oci-archive, a docker-archive, or an OCI layout directory.

    Args:
        path: a file or a directory, whose form is detected by content; ``-`` is standard input.
            Text may also be a transport of skopeo: ``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]`` or
            ``docker-archive:FILE[:REF]``, unless a file of exactly that name exists.
        options: the limits, and the directories to use; None: the defaults.
        progress: called while an archive is decompressed or copied, in this thread.

    Returns:
        The source, which is a context manager that closes it.

    Raises:
        SourceError: it does not exist or cannot be read.
        MalformedImage: it is not an image.
        Unsupported: it has another known format.
        DestinationError: there is no space to decompress it.
        UsageError: a transport without a path.
    """
    options = options_or_default(options, SourceOptions)
    path, ref = parse(path) if isinstance(path, str) else Name(os.fspath(path))
    try:
        source = open_source(
            path,
            shared_blobs=options.shared_blobs,
            tmpdir=options.tmpdir,
            progress=progress,
            limits=options.limits,
        )
    except SourceError as error:
        if isinstance(path, str):
            error.remedy = error.remedy or remedy_for_absent(path)
        raise
    return OpenedSource(source, ref, options.tmpdir)
