"""The oci-archive: an OCI image layout (image-spec, image-layout.md) inside an uncompressed tar.

``skopeo copy … oci-archive:FILE``, ``podman save --format oci-archive`` and ``buildah push`` write
it. The archive is indexed by offset, once, when it is opened; nothing is unpacked.
"""

from __future__ import annotations

import os
import stat

from ..errors import MalformedImage, OcirootError, SourceError, Unsupported
from ..spec.digest import Digest
from ..spec.document import MAX_DOCUMENT_SIZE
from ..spec.index import check_layout
from ..tar.reader import entries
from ..tar.stream import FileStream
from . import Blob

__all__ = ["OCIArchive"]

# What a file begins with that is not an uncompressed tar, for a message that helps.
_MAGIC = (
    (b"\x1f\x8b", "a gzip-compressed file", "decompress it first: gunzip -k FILE"),
    (b"\x28\xb5\x2f\xfd", "a zstd-compressed file", "decompress it first: unzstd -k FILE"),
    (b"\xfd7zXZ\0", "an xz-compressed file", "decompress it first: unxz -k FILE"),
    (b"BZh", "a bzip2-compressed file", "decompress it first: bunzip2 -k FILE"),
    (b"hsqs", "a squashfs file system", None),
    (b"PK\x03\x04", "a zip archive", None),
    (b"{", "a JSON document", None),
)


class OCIArchive:
    """An oci-archive, indexed by offset."""

    def __init__(self, path: str) -> None:
        """Open and index an archive.

        Args:
            path: the file.

        Raises:
            SourceError: it cannot be opened, or is not a regular file.
            MalformedImage: it is not a tar archive, or not one of an OCI image layout.
        """
        self.name = path
        try:
            # Not to wait for the writer of a FIFO; a regular file does not care.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(
                f"cannot open: {os.strerror(error.errno or 0)}", source=path
            ) from error
        try:
            self._blobs = self._scan()
            check = self._document("oci-layout")
            try:
                check_layout(check)
            except OcirootError as error:
                raise error.locate(member="oci-layout") from None
            if "index.json" not in self._blobs:
                raise MalformedImage("index.json is missing")
        except OcirootError as error:
            os.close(self._fd)
            raise error.locate(source=path) from error.__cause__
        except BaseException:
            os.close(self._fd)
            raise

    def _scan(self) -> dict[str, Blob]:
        """Find the members of the layout; the last of a name counts, as tar has it."""
        status = os.fstat(self._fd)
        if stat.S_ISDIR(status.st_mode):
            raise SourceError("this is a directory, not an oci-archive")
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("this is not a regular file")
        head = os.pread(self._fd, 8, 0)
        if not head:
            raise MalformedImage("the file is empty")
        for magic, what, remedy in _MAGIC:
            if head.startswith(magic):
                raise Unsupported(f"this is {what}, not an oci-archive", remedy=remedy)

        blobs: dict[str, Blob] = {}
        seen: list[bytes] = []
        stream = FileStream(self._fd, status.st_size)
        try:
            for entry in entries(stream):
                name = _layout_name(entry.name)
                if len(seen) < 10:
                    seen.append(name)
                if entry.kind == "file" and entry.segments is None and _of_layout(name):
                    blobs[name.decode("ascii")] = Blob(self._fd, stream.position, entry.stored)
        except MalformedImage as error:
            if not seen:
                raise MalformedImage("this is not a tar archive") from error
            raise
        if "oci-layout" not in blobs:
            if b"manifest.json" in seen or b"repositories" in seen:
                raise Unsupported(
                    "this is a docker-archive, not an oci-archive",
                    remedy="convert it: skopeo copy docker-archive:FILE oci-archive:image.tar",
                )
            raise MalformedImage("this is not an oci-archive: it has no oci-layout file")
        return blobs

    def _document(self, name: str) -> bytes:
        blob = self._blobs[name]
        # One byte more than allowed, so that whoever reads the document sees that it is too long.
        return b"".join(blob._replace(size=min(blob.size, MAX_DOCUMENT_SIZE + 1)).chunks())

    def index(self) -> bytes:
        """See :class:`~ociroot.sources.Source`."""
        return self._document("index.json")

    def blob(self, digest: Digest) -> Blob:
        """See :class:`~ociroot.sources.Source`."""
        # image-layout.md, "Blobs": "The content of `blobs/<alg>/<encoded>` MUST match the digest
        # `<alg>:<encoded>`". A Digest's parts are checked, so they may stand in a name.
        try:
            return self._blobs[f"blobs/{digest.algorithm}/{digest.encoded}"]
        except KeyError:
            raise MalformedImage(f"the blob {digest} is not in the archive") from None

    def close(self) -> None:
        """See :class:`~ociroot.sources.Source`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _layout_name(name: bytes) -> bytes:
    """Return a member's name without the ``./`` and ``/`` that archivers put before it."""
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def _of_layout(name: bytes) -> bool:
    """Say whether a name is one that a layout has: the others need not be remembered."""
    if name in (b"oci-layout", b"index.json"):
        return True
    return name.startswith(b"blobs/") and name.count(b"/") == 2 and name.isascii()
