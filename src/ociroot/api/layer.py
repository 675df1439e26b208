"""The public class of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import OcirootError
from ..images.layers import LayerBlob
from ..sources.source import Source
from ..spec.digest import Digest
from ..tar.entry import Entry

# What reads the content is imported when it is read, as in the module of the image.
if TYPE_CHECKING:
    from ..layers.changeset import LayerChange

__all__ = ["Layer"]


class Layer:
    """A layer of an image."""

    def __init__(self, source: Source, blob: LayerBlob) -> None:
        self._source = source
        self._blob = blob

    def __repr__(self) -> str:
        blob = self._blob
        name = blob.digest or blob.diff_id
        return f"<Layer {blob.number}/{blob.count} {name.short} size={self.size}>"

    @property
    def number(self) -> int:
        """Its number, from 1 and in the manifest's order."""
        return self._blob.number

    @property
    def digest(self) -> Digest | None:
        """The digest of the blob; None in a docker-archive, which has none."""
        return self._blob.digest

    @property
    def diff_id(self) -> Digest:
        """The expected digest of its uncompressed content."""
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
        """The detected compression: ``gzip``, ``zstd``, ``none``, or an unsupported one."""
        self._source.check_open()
        return self._blob.compression

    def entries(self) -> Iterator[Entry]:
        """Read the layer's tar entries, including whiteouts, in the order of the archive.

        The digest (in a docker-archive, which has none, the diff_id) is verified at the end of the
        iteration: earlier entries must not be trusted until then.

        Yields:
            Each entry of the archive.

        Raises:
            OcirootError: the layer cannot be read, or does not match its digest or diff_id.
        """
        from ..layers.diagnosis import diagnose
        from ..layers.pipeline import Pipeline
        from ..tar.reader import entries
        from ..tar.stream import ChunkStream

        self._source.check_open()
        with Pipeline([self._blob], self._source.limits) as pipeline:
            try:
                stream = ChunkStream(pipeline.chunks())
                yield from entries(stream, self._source.limits)
                stream.drain()
                content = pipeline.finish()
                if self.digest is None:
                    content.verify()
            except OcirootError as error:
                raise diagnose(self._blob, error, pipeline).locate(
                    source=self._source.name
                ) from error

    def changes(self) -> Iterator[LayerChange]:
        """Read the changes that the entries describe, in the order of the archive.

        Yields:
            Each entry, with whether it is an addition or a whiteout, and of which path.

        Raises:
            OcirootError: as :meth:`entries`.
        """
        from ..layers.changeset import meaning

        return map(meaning, self.entries())
