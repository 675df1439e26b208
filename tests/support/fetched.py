"""A source whose blobs lie in no local file, as a registry's, and which counts what is read."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ociroot.errors import ClosedSource, MalformedImage, SourceError
from ociroot.limits import DEFAULTS, Limits
from ociroot.sources.blob import STEP, Blob
from ociroot.sources.source import Roots
from ociroot.spec.descriptor import Descriptor
from ociroot.spec.digest import Digest

INDEX = "registry.test/app:1"
# Lengths of the chunks that arrive, one after the other and then again from the first.
_CHUNKS = (1, 511, 3, 64 << 10, 7, 4096, 100_000, 513)


class FetchedSource:
    """The blobs of an oci-archive, in memory.

    Attributes:
        blobs: their bytes, by digest.
        reads: how many times each of them was begun to be read, and each other document.
        fetched: how many bytes of each of them were handed out.
    """

    form = "remote"
    source_paths: tuple[str, ...] = ()

    def __init__(self, archive: Path, limits: Limits = DEFAULTS) -> None:
        self.name = "docker://" + INDEX
        self.limits = limits
        self.blobs: dict[str, bytes] = {}
        self.reads: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()
        self.closed = False
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member)
                data = content.read() if content is not None else b""
                if member.name == "index.json":
                    self.index = data
                elif content is not None:
                    self.blobs[member.name.removeprefix("blobs/").replace("/", ":")] = data

    @property
    def layers(self) -> list[str]:
        """The digests of the layers of its first image, base first."""
        return [layer["digest"] for layer in self._manifest()["layers"]]

    @property
    def documents(self) -> Counter[str]:
        """How many times each document was read, and nothing of the layers."""
        layers = set(self.layers)
        return Counter({name: n for name, n in self.reads.items() if name not in layers})

    def layer_reads(self) -> list[int]:
        """How many times each layer of its first image was read, base first."""
        return [self.reads[digest] for digest in self.layers]

    def _manifest(self) -> dict[str, list[dict[str, str]]]:
        digest = json.loads(self.index)["manifests"][0]["digest"]
        manifest: dict[str, list[dict[str, str]]] = json.loads(self.blobs[digest])
        return manifest

    def roots(self) -> Roots:
        return Roots(INDEX, None)

    def document(self, name: str) -> bytes | None:
        assert name == INDEX
        self.reads[name] += 1
        return self.index

    def member(self, name: str) -> Blob | None:
        raise AssertionError(f"only a docker-archive has names for layers: {name}")

    def blob(self, descriptor: Descriptor) -> Blob | None:
        # As a registry would: whether it is there shows when it is fetched.
        return FetchedBlob(self, descriptor.digest, descriptor.size)

    def missing(self, digest: Digest) -> MalformedImage:
        return MalformedImage(f"the registry has no {digest}")

    def stored_size(self, blobs: Iterable[Blob]) -> int:
        return sum(blob.size for blob in set(blobs))

    def check_open(self) -> None:
        if self.closed:
            raise ClosedSource("the source is closed", source=self.name)

    def close(self) -> None:
        self.closed = True


class FetchedBlob:
    """A blob that arrives in odd chunks."""

    def __init__(self, source: FetchedSource, digest: str, size: int) -> None:
        self._source = source
        self.digest = digest
        self.size = size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FetchedBlob) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        source, at, number = self._source, 0, 0
        source.reads[self.digest] += 1
        if self.digest not in source.blobs:
            raise source.missing(Digest.parse(self.digest))
        while at < self.size:
            source.check_open()
            length = min(step, _CHUNKS[number % len(_CHUNKS)], self.size - at)
            data = source.blobs[self.digest][at : at + length]
            if not data:
                raise SourceError(f"the blob ends {self.size - at} bytes early")
            at, number = at + len(data), number + 1
            source.fetched[self.digest] += len(data)
            yield data
