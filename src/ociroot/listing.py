"""What is in a source: its images, and what is no image, each document verified as it is read.

The steps: read ``index.json``; follow it, and the indexes it lists, to manifests; leave out what
is no image (attestations, artifacts); read each image's configuration. Or read the
``manifest.json`` of a docker-archive, whose images are named by files. Where an archive has both,
the OCI side counts, and the two must not contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from .errors import (
    MalformedImage,
    OcirootError,
    VerificationError,
    printable,
    quoted,
)
from .sources import Blob, Source
from .spec.config import Config
from .spec.descriptor import CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES, Descriptor
from .spec.digest import Digest
from .spec.docker import ArchivedImage, decode_manifest
from .spec.document import decode
from .spec.index import Index
from .spec.manifest import Manifest
from .spec.platform import Platform

__all__ = ["FoundImage", "Listing", "Other", "check_size", "list_images"]

_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
# What names an image: the annotation of the image-spec, and those of containerd and of Docker.
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_SUBJECT = "vnd.docker.reference.digest"

_Document = TypeVar("_Document", Index, Manifest, Config)


class FoundImage(msgspec.Struct, frozen=True):
    """An image of a source, with its verified documents.

    Attributes:
        names: what it is called: its ref name, its full name, its tags.
        platform: what it runs on.
        image_id: the digest of its configuration.
        config: the configuration.
        descriptor: the manifest's descriptor; None in a docker-archive, which has no manifest.
        manifest: the manifest; None in a docker-archive.
        members: the names of the layers' files, in a docker-archive.
        size: bytes of the layers as they lie there.
    """

    names: tuple[str, ...]
    platform: Platform
    image_id: Digest
    config: Config
    descriptor: Descriptor | None = None
    manifest: Manifest | None = None
    members: tuple[str, ...] = ()
    size: int = 0

    @property
    def digest(self) -> Digest:
        """What it is chosen by: the digest of its manifest, or else its image ID."""
        return self.descriptor.checked if self.descriptor is not None else self.image_id


class Other(msgspec.Struct, frozen=True):
    """Something in a source that is no image.

    Attributes:
        kind: what it is: ``attestation``, ``missing``, or its artifact or media type.
        digest: its digest.
        size: its size in bytes.
        subject: the digest of the image that an attestation is about; empty: of none.
    """

    kind: str
    digest: str
    size: int
    subject: str = ""


class Listing(msgspec.Struct, frozen=True):
    """What is in a source, in its order."""

    images: tuple[FoundImage, ...]
    others: tuple[Other, ...]


def list_images(source: Source) -> Listing:
    """Return what is in a source.

    Raises:
        MalformedImage: a document breaks a rule of the specification.
        VerificationError: a document's digest or size is not that of its descriptor.
        LimitExceeded: too many descriptors, indexes nested too deeply, a document too large.
    """
    try:
        if source.form == "docker-archive":
            return Listing(tuple(_archived(source)), ())
        listing = _laid_out(source)
        _check_hybrid(source, listing)
    except OcirootError as error:
        raise error.locate(source=source.name) from error.__cause__
    return listing


def check_size(blob: Blob, descriptor: Descriptor) -> None:
    """Refuse a blob of another size than its descriptor says."""
    if blob.size != descriptor.size:
        raise VerificationError(
            f"the blob has {blob.size} bytes, its descriptor says {descriptor.size}"
        )


# An OCI image layout.


def _laid_out(source: Source) -> Listing:
    """Read the images of a layout.

    image-layout.md, "index.json file": "An encountered `mediaType` that is unknown MUST NOT
    generate an error."
    """
    images: list[FoundImage] = []
    others: list[Other] = []
    read = _Reader(source)
    for descriptor in _manifests(read):
        if descriptor.is_attestation:
            subject = descriptor.annotations.get(_SUBJECT, "")
            others.append(Other("attestation", descriptor.digest, descriptor.size, subject))
            continue
        if descriptor.media_type not in MANIFEST_TYPES:
            others.append(Other(descriptor.media_type, descriptor.digest, descriptor.size))
            continue
        if source.blob(descriptor.checked) is None:
            # image-layout.md, "Blobs": "The blobs directory MAY be missing referenced blobs": what
            # was saved of a multi-platform image for one platform lists the others all the same.
            others.append(Other("missing", descriptor.digest, descriptor.size))
            continue
        manifest = read.document(descriptor, Manifest)
        kind = manifest.artifact_type or descriptor.artifact_type
        if kind or manifest.config.media_type not in CONFIG_TYPES:
            kind = kind or manifest.config.media_type
            others.append(Other(kind, descriptor.digest, descriptor.size))
            continue
        config = read.document(manifest.config, Config)
        names = (descriptor.annotations.get(annotation, "") for annotation in _NAMES)
        images.append(
            FoundImage(
                tuple(dict.fromkeys(filter(None, names))),
                descriptor.platform or config.platform,
                manifest.config.checked,
                config,
                descriptor,
                manifest,
                size=sum(layer.size for layer in manifest.layers),
            )
        )
    return Listing(tuple(images), tuple(others))


def _manifests(read: _Reader) -> Iterator[Descriptor]:
    """Follow the indexes and yield each descriptor of something that is not an index, once."""
    source = read.source
    try:
        top = decode(source.document("index.json") or b"", Index, source.limits)
        if top.media_type and top.media_type not in INDEX_TYPES:
            raise MalformedImage(f"mediaType is {quoted(top.media_type)}, not an index's")
    except OcirootError as error:
        raise error.locate(member="index.json") from error.__cause__
    seen: set[tuple[str, str]] = set()
    todo = [(descriptor, 1) for descriptor in reversed(top.manifests)]
    while todo:
        descriptor, depth = todo.pop()
        # One image may be listed under several names.
        key = (descriptor.digest, "\0".join(descriptor.annotations.get(n, "") for n in _NAMES))
        if key in seen:
            continue
        seen.add(key)
        source.limits.check("descriptors", len(seen))
        missing = source.blob(descriptor.checked) is None
        if descriptor.media_type not in INDEX_TYPES or missing:
            yield descriptor
            continue
        source.limits.check("index_depth", depth + 1)
        index = read.document(descriptor, Index)
        todo += [(_inherit(child, descriptor), depth + 1) for child in reversed(index.manifests)]


def _inherit(child: Descriptor, parent: Descriptor) -> Descriptor:
    """Give an image of a nested index the annotations, such as its name, of that index's entry."""
    if not parent.annotations:
        return child
    return msgspec.structs.replace(child, annotations={**parent.annotations, **child.annotations})


class _Reader:
    """Reads documents, each once, however many names an image has."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._read: dict[tuple[str, str, int, type[object]], object] = {}

    def document(self, descriptor: Descriptor, kind: type[_Document]) -> _Document:
        """Return a document, as :func:`_document` does."""
        key = (descriptor.digest, descriptor.media_type, descriptor.size, kind)
        if key not in self._read:
            self._read[key] = _document(self.source, descriptor, kind)
        found = self._read[key]
        assert isinstance(found, kind)  # noqa: S101
        return found


def _document(source: Source, descriptor: Descriptor, kind: type[_Document]) -> _Document:
    """Read a document and hold it against its descriptor.

    descriptor.md, "Properties": content "SHOULD be verified against this digest", and "If the
    length of the retrieved content does not match the specified length, the content SHOULD NOT be
    trusted". Nothing is parsed before that.
    """
    name = f"{kind.__name__.lower()} {descriptor.checked.short}"
    try:
        source.limits.check("document", descriptor.size)
        blob = source.blob(descriptor.checked)
        if blob is None:
            raise MalformedImage(f"the blob {descriptor.digest} is not there")
        check_size(blob, descriptor)
        content = b"".join(blob.chunks())
        found = Digest.of(content, descriptor.checked.algorithm)
        if found != descriptor.checked:
            raise VerificationError(f"the digest is {found}, not {descriptor.digest}")
        document = decode(content, kind, source.limits)
        media_type = getattr(document, "media_type", "")
        if media_type and media_type != descriptor.media_type:
            raise MalformedImage(
                f"mediaType is {quoted(media_type)}, "
                f"its descriptor says {quoted(descriptor.media_type)}"
            )
    except OcirootError as error:
        raise error.locate(member=name) from error.__cause__
    return document


# A docker-archive.


def _archived(source: Source) -> Iterator[FoundImage]:
    """Read the images of a docker-archive."""
    configs: dict[str, tuple[Digest, Config]] = {}
    for item in _items(source):
        if item.config not in configs:
            try:
                configs[item.config] = _archived_config(source, item.config)
            except OcirootError as error:
                raise error.locate(member=item.config) from error.__cause__
        image_id, config = configs[item.config]
        blobs = [source.member(name) for name in item.layers]
        yield FoundImage(
            item.repo_tags,
            config.platform,
            image_id,
            config,
            members=item.layers,
            size=sum(blob.size for blob in blobs if blob is not None),
        )


def _archived_config(source: Source, name: str) -> tuple[Digest, Config]:
    """Read a configuration, and hold it against its name."""
    content = source.document(name)
    if content is None:
        raise MalformedImage("the configuration is not in the archive")
    image_id = Digest.of(content)
    # The file's name is the image ID, however the tool spells it; a tool that names it otherwise
    # (bazel's config.json) promises nothing.
    stem = name.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
    if len(stem) == 64 and set(stem) <= set("0123456789abcdef") and stem != image_id.encoded:
        raise VerificationError(f"the digest is {image_id}, not that of its name")
    return image_id, decode(content, Config, source.limits)


def _items(source: Source) -> tuple[ArchivedImage, ...]:
    try:
        items = decode_manifest(source.document("manifest.json") or b"", source.limits)
        source.limits.check("descriptors", len(items))
    except OcirootError as error:
        raise error.locate(member="manifest.json") from error.__cause__
    return items


def _check_hybrid(source: Source, listing: Listing) -> None:
    """Hold the ``manifest.json`` of an archive that is both forms against the OCI side.

    Whoever loads it by the one must get the same image as whoever loads it by the other.
    """
    if source.form != "oci-archive" or source.member("manifest.json") is None:
        return
    layers: dict[Blob | None, list[list[Blob | None]]] = {}
    for image in listing.images:
        assert image.manifest is not None  # noqa: S101
        places = [source.blob(layer.checked) for layer in image.manifest.layers]
        layers.setdefault(source.blob(image.image_id), []).append(places)
    for item in _items(source):
        config = source.member(item.config)
        if config is None or config not in layers:
            raise MalformedImage(
                f"its image {printable(item.config)} is none of those of index.json",
                member="manifest.json",
            )
        if [source.member(name) for name in item.layers] not in layers[config]:
            raise MalformedImage(
                f"its layers of {printable(item.config)} are not those of index.json",
                member="manifest.json",
            )
