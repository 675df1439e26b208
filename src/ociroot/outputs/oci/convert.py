"""An image written again: its blobs copied or compressed anew, each verified on the way.

A blob that stays the same is copied, and verified by reading the copy. One that is compressed anew
is verified while it is decompressed. In both cases each layer is decompressed once, so that its
diff_id is known to be right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from ...compression import CHUNK
from ...errors import UsageError, quoted
from ...images.layers import LayerBlob
from ...images.names import full_name
from ...layers.reading import LayerReader, Plan
from ...notices import Notices
from ...progress import Progress, ProgressCallback
from ...sources.blob import LocalBlob
from ...spec.digest import Digest
from ...spec.platform import Platform
from ...tar.stream import ChunkStream, Stream
from ..compress import Compression, Compressor, parse_compression
from ..stream.options import Write
from .documents import (
    CONFIG,
    LAYOUT,
    Written,
    WrittenLayer,
    docker_manifest,
    index,
    is_tagged,
    layer_type,
    manifest,
    squashed_config,
)
from .store import BlobFile, Store

__all__ = [
    "ImageFormat",
    "ImageOptions",
    "SourceDocuments",
    "WriteTree",
    "WrittenImage",
    "written_image",
]

#: Writes the merged tree as one tar archive.
WriteTree = Callable[[Write], None]
ImageFormat = Literal["oci-archive", "oci", "docker-archive"]

_UNNAMED = "latest"
_NAME, _REF_NAME = "io.containerd.image.name", "org.opencontainers.image.ref.name"


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an image is written again.

    Attributes:
        format: ``oci-archive``, ``oci`` (a directory) or ``docker-archive``.
        recompress: how layers are compressed anew; ``none``: not at all; None: they stay as they
            are, and what is written anew is compressed with gzip:6.
        annotations: those that are added to the manifest.
    """

    format: ImageFormat
    recompress: str | None = None
    annotations: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: they contradict each other, or a compression that layers do not have.
        """
        if self.recompress is not None and self.recompress.partition(":")[0] == "xz":
            raise UsageError("layers are compressed with gzip or zstd, or not at all: not with xz")
        self.compression()
        for text in (part for pair in self.annotations.items() for part in pair):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UsageError(f"the annotation {quoted(text)} is not UTF-8") from None
        if self.format == "docker-archive":
            if self.recompress not in (None, "none"):
                raise UsageError("the layers of a docker-archive are not compressed")
            if self.annotations:
                raise UsageError("a docker-archive has no annotations")

    def compression(self) -> Compression | None:
        """Return how a layer that is written anew is compressed; None: it is not."""
        if self.format == "docker-archive":
            return None
        return parse_compression(self.recompress or "gzip:6")

    def rewrites(self, layer: LayerBlob) -> bool:
        """Say whether a layer is written anew."""
        if self.format == "docker-archive" or self.recompress == "none":
            return layer.compression != "none"
        return self.recompress is not None


class SourceDocuments(msgspec.Struct, frozen=True):
    """The documents of the image as the source has them.

    Attributes:
        config: the bytes of the configuration.
        config_digest: its digest.
        manifest: the bytes of the manifest; None: it has none.
        manifest_digest: its digest.
        platform: what the image runs on.
        tags: what it is called.
    """

    config: bytes
    config_digest: Digest
    manifest: bytes | None
    manifest_digest: Digest | None
    platform: Platform
    tags: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """The annotations with the names of the image.

        There is one entry in the index, with one ref name: skopeo takes no other without a choice.
        In a layout it comes after the full name, which containerd reads; of the tags of a
        docker-archive it is the first.
        """
        last = -1 if self.manifest is not None else 0
        names = {_REF_NAME: self.tags[last] if self.tags else _UNNAMED}
        if self.tags and is_tagged(self.tags[0]):
            names = {_NAME: full_name(self.tags[0]), **names}
        return names


class WrittenImage(msgspec.Struct, frozen=True):
    """What was written.

    Attributes:
        manifest: the digest of the manifest; None in a docker-archive, which has none.
        image_id: the digest of the configuration.
        config: the configuration.
        layers: the layers, base first.
    """

    manifest: Digest | None
    image_id: Digest
    config: bytes
    layers: tuple[WrittenLayer, ...]


class _NewBlob:
    """A blob that is written: compressed, and hashed on its way to its file."""

    def __init__(self, file: BlobFile, compression: Compression | None) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self._size = 0
        self.method = compression.method if compression is not None else "none"
        self._compressor = Compressor(self._store, compression) if compression is not None else None

    def _store(self, data: bytes | bytearray | memoryview) -> None:
        self._hasher.update(data)
        self._size += len(data)
        self._file.write(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next bytes, before compression."""
        (self._compressor.write if self._compressor is not None else self._store)(data)

    def finish(self, name: str | None = None) -> tuple[Digest, LocalBlob]:
        """Write the end; the file is named by its digest unless it has a name."""
        if self._compressor is not None:
            self._compressor.finish()
        digest = Digest("sha256", self._hasher.hexdigest())
        return digest, self._file.finish(name or _blob_name(digest))

    def close(self) -> None:
        """Stop the threads."""
        if self._compressor is not None:
            self._compressor.close()


class _Layers:
    """Writes the layers of an image."""

    def __init__(self, plan: Plan, store: Store, options: ImageOptions, notices: Notices) -> None:
        self._plan = plan
        self._store = store
        self._options = options
        self._notices = notices

    def write(self, progress: ProgressCallback | None) -> tuple[Written, ...]:
        """Write each layer once, all of them verified; return them, base first."""
        # The same blob may be there twice, and the same content in two compressions: one file. Of
        # those each blob is read, with each diff_id that it should have.
        files: dict[object, LayerBlob] = {}
        claims: dict[object, LayerBlob] = {}
        for layer in self._plan.layers:
            files.setdefault(self._key(layer), layer)
            claims.setdefault((layer.digest or layer.blob, layer.diff_id), layer)
        copies = {
            layer.number: self._copied(layer)
            for layer in files.values()
            if not self._options.rewrites(layer)
        }
        read = [copies.get(layer.number, layer) for layer in claims.values()]
        written: dict[object, Written] = {}
        with LayerReader(self._plan, read, self._notices) as reader:
            for number, (claimed, layer) in enumerate(zip(claims.values(), read, strict=True), 1):

                def tick(number: int = number) -> None:
                    if progress is not None:
                        progress(Progress("layers", reader.done, reader.total, number, len(read)))

                key = self._key(claimed)
                if key in written:
                    reader.read(layer, _nothing, tick)
                else:
                    write = self._verified if layer.number in copies else self._rewritten
                    written[key] = write(reader, layer, tick)
                tick()
        return tuple(written[self._key(layer)] for layer in self._plan.layers)

    def _key(self, layer: LayerBlob) -> object:
        """Return what two layers have in common that are written to one file."""
        if self._options.format == "docker-archive" or self._options.recompress is not None:
            return layer.diff_id
        return layer.digest or layer.blob

    def _copied(self, layer: LayerBlob) -> LayerBlob:
        """Copy a blob; return the layer as it lies in the store."""
        digest = layer.digest
        if digest is None and layer.compression == "none":
            digest = layer.diff_id  # what it must be: the copy is refused if it is not
        if digest is None:
            blob = _NewBlob(self._store.create(), None)
            for chunk in layer.blob.chunks(CHUNK):
                blob.write(chunk)
            digest, copy = blob.finish()
        else:
            copy = self._store.copy(self._name(layer) or _blob_name(digest), layer.blob)
        return msgspec.structs.replace(layer, digest=digest, blob=copy)

    def _name(self, layer: LayerBlob) -> str | None:
        """Return the name of a layer's file; None: that depends on its digest."""
        is_archive = self._options.format == "docker-archive"
        return layer_file(layer.diff_id) if is_archive else None

    def _verified(self, reader: LayerReader, layer: LayerBlob, tick: Callable[[], None]) -> Written:
        """Read what was copied to its end."""
        _, content = reader.read(layer, _nothing, tick)
        assert layer.digest is not None  # noqa: S101
        media_type = layer_type(layer.media_type, content.compression)
        return Written(layer.digest, layer.blob.size, media_type)

    def _rewritten(
        self, reader: LayerReader, layer: LayerBlob, tick: Callable[[], None]
    ) -> Written:
        """Write a layer anew while it is read."""
        blob = _NewBlob(self._store.create(), self._options.compression())

        def store(_: object, stream: Stream) -> None:
            assert isinstance(stream, ChunkStream)  # noqa: S101
            for piece in stream.rest():
                blob.write(piece)

        try:
            reader.read(layer, store, tick)
            digest, made = blob.finish(self._name(layer))
        finally:
            blob.close()
        media_type = layer_type(layer.media_type, blob.method)
        return Written(digest, made.size, media_type, is_copy=False)


def written_image(
    plan: Plan,
    documents: SourceDocuments,
    store: Store,
    options: ImageOptions,
    notices: Notices,
    *,
    tree: WriteTree | None = None,
    progress: ProgressCallback | None = None,
) -> WrittenImage:
    """Write an image to a store.

    Args:
        plan: its layers, in their order.
        documents: its documents.
        store: where it is written to.
        options: how.
        notices: told what is odd about the layers.
        tree: writes the merged tree, which becomes the only layer; None: there are the layers.
        progress: called now and then.

    Returns:
        What was written; all of it has been verified.

    Raises:
        OcirootError: a layer is not what it should be, or the store cannot be written.
    """
    is_archive = options.format == "docker-archive"
    if not is_archive:
        store.directory("blobs")
        for algorithm in sorted(_algorithms(plan.layers, documents)):
            store.directory(f"blobs/{algorithm}")
    config = documents.config
    if tree is not None:
        layer, diff_id = _squashed(tree, store, options)
        layers: tuple[Written, ...] = (layer,)
        diff_ids = [diff_id]
        config = squashed_config(config, diff_id)
    else:
        layers = _Layers(plan, store, options, notices).write(progress)
        diff_ids = [each.diff_id for each in plan.layers]
    algorithm = documents.config_digest.algorithm if config is documents.config else "sha256"
    if is_archive:
        image_id = Digest.of(config)
        names = [layer_file(each) for each in diff_ids]
        store.add(f"{image_id.encoded}.json", config)
        tags = documents.tags
        store.add("manifest.json", docker_manifest(f"{image_id.encoded}.json", tags, names))
        manifest_digest = None
    else:
        image_id = Digest.of(config, algorithm)
        store.add(_blob_name(image_id), config)
        made = manifest(
            documents.manifest,
            Written(image_id, len(config), CONFIG),
            layers,
            options.annotations,
        )
        kept = made is documents.manifest and documents.manifest_digest is not None
        manifest_digest = documents.manifest_digest if kept else Digest.of(made)
        assert manifest_digest is not None  # noqa: S101
        store.add(_blob_name(manifest_digest), made)
        store.add(
            "index.json", index(manifest_digest, len(made), documents.platform, documents.names)
        )
        store.add("oci-layout", LAYOUT)
    store.finish()
    reports = tuple(
        WrittenLayer(
            None if is_archive else str(layer.digest),
            str(diff_id),
            "" if is_archive else layer.media_type,
            layer.size,
            layer.is_copy,
        )
        for layer, diff_id in zip(layers, diff_ids, strict=True)
    )
    return WrittenImage(manifest_digest, image_id, config, reports)


def _nothing(_: object, __: Stream) -> None:
    """Do nothing with a layer, which is read and verified nevertheless."""


def _squashed(tree: WriteTree, store: Store, options: ImageOptions) -> tuple[Written, Digest]:
    """Write the merged tree as a layer; return it, and its diff_id."""
    hasher = hashlib.sha256()
    # In a docker-archive a layer is named by its diff_id, which is the digest of what is written.
    blob = _NewBlob(store.create(), options.compression())

    def write(data: bytes | bytearray | memoryview) -> None:
        hasher.update(data)
        blob.write(data)

    try:
        tree(write)
        diff_id = Digest("sha256", hasher.hexdigest())
        is_archive = options.format == "docker-archive"
        digest, made = blob.finish(layer_file(diff_id) if is_archive else None)
    finally:
        blob.close()
    return Written(digest, made.size, layer_type("", blob.method), is_copy=False), diff_id


def _algorithms(layers: Iterable[LayerBlob], documents: SourceDocuments) -> set[str]:
    """Return the algorithms of the digests by which blobs may be named."""
    digests = [documents.config_digest, documents.manifest_digest]
    digests += [layer.digest or layer.diff_id for layer in layers]
    return {"sha256", *(each.algorithm for each in digests if each is not None)}


def layer_file(diff_id: Digest) -> str:
    """Return the name of a layer's file in a docker-archive."""
    return f"{diff_id.encoded}.tar"


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"
