"""A source that counts which documents and blobs of another one are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ociroot.errors import MalformedImage
from ociroot.limits import Limits
from ociroot.sources.blob import STEP, Blob
from ociroot.sources.source import Roots, Source
from ociroot.spec.descriptor import Descriptor
from ociroot.spec.digest import Digest


class CountedSource:
    """Another source, with what is read of it.

    Attributes:
        reads: how many times each document and each blob was begun to be read, by the name or the
            digest that it was asked for by.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.reads: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def form(self) -> str:
        return self._source.form

    @property
    def limits(self) -> Limits:
        return self._source.limits

    @property
    def source_paths(self) -> tuple[str, ...]:
        return self._source.source_paths

    def roots(self) -> Roots:
        return self._source.roots()

    def document(self, name: str) -> bytes | None:
        self.reads[name] += 1
        return self._source.document(name)

    def member(self, name: str) -> Blob | None:
        found = self._source.member(name)
        return CountedBlob(self.reads, name, found) if found is not None else None

    def blob(self, descriptor: Descriptor) -> Blob | None:
        found = self._source.blob(descriptor)
        return CountedBlob(self.reads, descriptor.digest, found) if found is not None else None

    def missing(self, digest: Digest) -> MalformedImage:
        return self._source.missing(digest)

    def stored_size(self, blobs: Iterable[Blob]) -> int:
        return self._source.stored_size(blobs)

    def check_open(self) -> None:
        self._source.check_open()

    def close(self) -> None:
        self._source.close()


class CountedBlob:
    """A blob that counts how often it is read."""

    def __init__(self, reads: Counter[str], name: str, blob: Blob) -> None:
        self._reads = reads
        self._name = name
        self._blob = blob

    @property
    def size(self) -> int:
        return self._blob.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CountedBlob) and other._blob == self._blob

    def __hash__(self) -> int:
        return hash(self._blob)

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        self._reads[self._name] += 1
        return self._blob.chunks(step)
