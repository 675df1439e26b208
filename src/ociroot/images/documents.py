"""The JSON documents of a source: read, held against what vouches for them, and counted."""

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
    """Reads documents; nothing of them is kept here.

    Attributes:
        source: where they lie.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._bytes = 0

    @property
    def exhausted(self) -> bool:
        """Whether there have been more of them than may be."""
        return self._bytes > self.source.limits.documents

    def count(self, size: int) -> None:
        """Count some bytes of documents, or of what is shown of them.

        Raises:
            LimitExceeded: there are too many, and then nothing more can be read.
        """
        self._bytes += size
        self.source.limits.check("documents", self._bytes)

    def read(self, descriptor: Descriptor, kind: type[_Document]) -> _Document:
        """Read a document and hold it against its descriptor.

        descriptor.md, "Properties": content "SHOULD be verified against this digest", and "If the
        length of the retrieved content does not match the specified length, the content SHOULD NOT
        be trusted". Nothing is parsed before that.

        Raises:
            OcirootError: it is not there, or not what it should be.
        """
        name = f"{kind.__name__.lower()} {descriptor.parsed_digest.short}"
        source = self.source
        with located(member=name):
            source.limits.check("document", descriptor.size)
            blob = source.blob(descriptor.parsed_digest)
            if blob is None:
                raise source.missing(descriptor.parsed_digest)
            check_size(blob, descriptor)
            self.count(descriptor.size)
            content = b"".join(blob.chunks())
            found = Digest.of(content, descriptor.parsed_digest.algorithm)
            if found != descriptor.parsed_digest:
                raise VerificationError(f"the digest is {found}, not {descriptor.digest}")
            document = decode(content, kind, source.limits)
            media_type = getattr(document, "media_type", "")
            if media_type and media_type != descriptor.media_type:
                raise MalformedImage(
                    f"mediaType is {quoted(media_type[:200])}, "
                    f"its descriptor says {quoted(descriptor.media_type[:200])}"
                )
        return document

    def content(self, name: str) -> bytes | None:
        """Return the content of a file that no descriptor vouches for; None: it is not there."""
        content = self.source.document(name)
        if content is not None:
            self.count(len(content))
        return content

    def read_archived(self, name: str) -> tuple[Digest, Config]:
        """Read a configuration of a docker-archive, and hold it against its name.

        Returns:
            The image ID, which is its digest; and the configuration.
        """
        with located(member=name):
            content = self.content(name)
            if content is None:
                raise MalformedImage("the configuration is not there")
            image_id = Digest.of(content)
            # The file's name is the image ID, however the tool spells it; a tool that names it
            # otherwise (bazel's config.json) promises nothing.
            stem = name.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
            if (
                len(stem) == 64
                and set(stem) <= set("0123456789abcdef")
                and stem != image_id.encoded
            ):
                raise VerificationError(f"the digest is {image_id}, not that of its name")
            return image_id, decode(content, Config, self.source.limits)


def check_size(blob: Blob, descriptor: Descriptor) -> None:
    """Refuse a blob of another size than its descriptor says."""
    if blob.size != descriptor.size:
        raise VerificationError(
            f"the blob has {blob.size} bytes, its descriptor says {descriptor.size}"
        )
