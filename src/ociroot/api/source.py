"""What a caller holds: an opened source and the image chosen in it.

with ociroot.open("image.tar") as source:
    report = source.image(platform="linux/arm64").extract("rootfs")
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from ..errors import SourceError, Unsupported, UsageError, located, printable, quoted
from ..images.catalog import Catalog
from ..images.found import FoundImage, Listing, NonImage
from ..images.select import ImageSelector, select
from ..limits import DEFAULTS, Limits
from ..notices import ImageWarning, Notices
from ..progress import ProgressCallback
from ..sources.detect import open_source
from ..sources.source import Source
from ..sources.transports import Name, parse, remedy_for_absent
from ..spec.platform import Platform
from .image import Image

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

    def __repr__(self) -> str:
        return f"<OpenedSource {printable(self._source.name)} {self.form}>"

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
        self._source.check_open()
        with located(source=self._source.name):
            return self._catalog.listing()

    def load(self, found: FoundImage | NonImage) -> Image:
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

    def _load(self, found: FoundImage, warnings: tuple[ImageWarning, ...]) -> Image:
        self._source.check_open()
        with located(source=self._source.name):
            return Image(self._source, self._catalog.load(found), warnings, self._tmpdir)

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
        self._source.check_open()
        if self._ref and ref not in ("", self._ref):
            raise UsageError(
                f"two names are given, {quoted(self._ref)} with the source and {quoted(ref)}"
            ).locate(source=self._source.name)
        notices = Notices(strict)
        wanted = Platform.parse(platform) if isinstance(platform, str) else platform
        with located(source=self._source.name):
            found = select(self._catalog, ImageSelector(wanted, ref or self._ref, digest), notices)
        return self._load(found, notices.warnings())


def open(
    path: str | os.PathLike[str],
    *,
    shared_blobs: str | os.PathLike[str] | None = None,
    tmpdir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    limits: Limits = DEFAULTS,
) -> OpenedSource:
    """Open what holds images: an oci-archive, a docker-archive, or an OCI layout directory.

    Args:
        path: a file or a directory, told apart by content; ``-`` is standard input. Text may be
            one of skopeo's transports, too: ``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]`` or
            ``docker-archive:FILE[:REF]``, unless something of just that name is there.
        shared_blobs: where the blobs of a layout directory lie, when several share them.
        tmpdir: where a compressed archive is decompressed to, and compressed layers by
            :meth:`Image.filesystem`; None: the system's place.
        progress: called while an archive is decompressed or copied.
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
    return OpenedSource(source, ref, tmpdir)
