"""Read, verify and count the JSON documents of a source."""

from __future__ import annotations

from typing import TypeVar

from ..errors import MalformedImage, VerificationError, located, quoted
from ..sources.blob import Blob
from ..sources.source import Source
from ..spec.config import Config
from ..spec.descriptor import Descriptor
from ..spec.digest import Digest
from ..spec.document import decode
from ..spec.index import Index
from ..spec.manifest import Manifest

__all__ = ["Documents", "check_size"]

_Document = TypeVar("_Document", Index, Manifest, Config)


class Documents:
    """Reads and verifies documents, without caching them.

    Attributes:
        source: the source of the documents.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._bytes = 0

    @property
    def exhausted(self) -> bool:
        """Whether the limit ``documents`` has been exceeded."""
        return self._bytes > self.source.limits.documents

    def count(self, size: int) -> None:
        """Count bytes of documents, or of descriptors that are listed.

        Raises:
            LimitExceeded: the limit ``documents`` is exceeded; no further document can be read.
        """
        self._bytes += size
        self.source.limits.check("documents", self._bytes)

    def verified(self, descriptor: Descriptor, what: str) -> bytes:
        """Read a document and verify it against its descriptor.

        descriptor.md, "Properties": content "SHOULD be verified against this digest", and "If the
        length of the retrieved content does not match the specified length, the content SHOULD NOT
        be trusted".

        Args:
            descriptor: its descriptor.
            what: what kind of document it is, for messages.

        Raises:
            OcirootError: it is missing, or does not match its descriptor.
        """
        source = self.source
        with located(member=f"{what} {descriptor.parsed_digest.short}"):
            source.limits.check("document", descriptor.size)
            blob = source.blob(descriptor)
            if blob is None:
                raise source.missing(descriptor.parsed_digest)
            check_size(blob, descriptor)
            self.count(descriptor.size)
            content = b"".join(blob.chunks())
            found = Digest.of(content, descriptor.parsed_digest.algorithm)
            if found != descriptor.parsed_digest:
                raise VerificationError(f"the digest is {found}, not {descriptor.digest}")
        return content

    def read(self, descriptor: Descriptor, kind: type[_Document]) -> _Document:
        """Read a document, and decode it when it has been verified.

        Raises:
            OcirootError: as :meth:`verified`, or it is malformed.
        """
        what = kind.__name__.lower()
        content = self.verified(descriptor, what)
        with located(member=f"{what} {descriptor.parsed_digest.short}"):
            document = decode(content, kind, self.source.limits)
            media_type = getattr(document, "media_type", "")
            if media_type and media_type != descriptor.media_type:
                raise MalformedImage(
                    f"mediaType is {quoted(media_type[:200])}, "
                    f"but its descriptor has {quoted(descriptor.media_type[:200])}"
                )
        return document

    def archived(self, name: str, image_id: Digest) -> bytes:
        """Read a configuration of a docker-archive that has been read before.

        Args:
            name: the name of its file.
            image_id: the digest that it had.

        Raises:
            VerificationError: it is another one now.
        """
        content = self.content(name)
        if content is None or Digest.of(content) != image_id:
            raise VerificationError("it changes while it is read", member=name)
        return content

    def content(self, name: str) -> bytes | None:
        """Return the content of a file without a descriptor; None if it does not exist."""
        content = self.source.document(name)
        if content is not None:
            self.count(len(content))
        return content

    def read_archived(self, name: str) -> tuple[Digest, Config]:
        """Read a configuration of a docker-archive, and verify it against its file name.

        Returns:
            The image ID, which is the digest of the configuration; and the configuration.
        """
        with located(member=name):
            content = self.content(name)
            if content is None:
                raise MalformedImage("the configuration is missing")
            image_id = Digest.of(content)
            # Tools name the file by the image ID, in several spellings; any other name (bazel's
            # config.json) has no digest to check.
            stem = name.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
            if (
                len(stem) == 64
                and set(stem) <= set("0123456789abcdef")
                and stem != image_id.encoded
            ):
                raise VerificationError(f"the digest is {image_id}, not that of the file name")
            return image_id, decode(content, Config, self.source.limits)


def check_size(blob: Blob, descriptor: Descriptor) -> None:
    """Refuse a blob whose size differs from its descriptor's."""
    if blob.size != descriptor.size:
        raise VerificationError(
            f"the blob has {blob.size} bytes, but its descriptor says {descriptor.size}"
        )
