"""Which image, and is it what its documents say: from ``index.json`` to a verified config.

The steps, in their order: read the index; follow it, and the indexes it lists, to manifests;
leave out what is no image (attestations, artifacts); choose by platform; verify manifest and
config against the descriptors that name them; pair the layers with the config's diff_ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import msgspec

from .errors import (
    LimitExceeded,
    MalformedImage,
    OcirootError,
    Unsupported,
    UsageError,
    VerificationError,
    printable,
)
from .notices import Notices
from .sources import Blob, Source
from .spec.config import Config
from .spec.descriptor import CONFIG_TYPES, INDEX_TYPES, LAYER_TYPES, MANIFEST_TYPES, Descriptor
from .spec.digest import Digest
from .spec.document import MAX_DOCUMENT_SIZE, decode
from .spec.index import Index
from .spec.manifest import Manifest
from .spec.platform import Platform

__all__ = ["Chosen", "LayerBlob", "choose"]

#: Descriptors that are looked at while following indexes; one that lists itself ends here.
MAX_DESCRIPTORS = 10_000
#: How deep indexes may list indexes.
MAX_DEPTH = 8

_Document = TypeVar("_Document", Index, Manifest, Config)


class LayerBlob(msgspec.Struct, frozen=True):
    """A layer as the documents describe it.

    Attributes:
        number: its place in the manifest, from 1.
        count: how many layers the manifest has.
        descriptor: its descriptor in the manifest.
        blob: where its bytes lie.
        diff_id: the digest that its uncompressed content should have.
    """

    number: int
    count: int
    descriptor: Descriptor
    blob: Blob
    diff_id: Digest

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.number}/{self.count} {self.descriptor.digest}"


class Chosen(NamedTuple):
    """An image whose documents have been verified.

    Attributes:
        descriptor: the manifest's descriptor, with the annotations of the index.
        manifest: the manifest.
        config: the image configuration.
        layers: the layers in the manifest's order, base first.
    """

    descriptor: Descriptor
    manifest: Manifest
    config: Config
    layers: tuple[LayerBlob, ...]


class _Candidate(NamedTuple):
    descriptor: Descriptor
    manifest: Manifest
    config: Config
    platform: Platform


def choose(source: Source, platform: Platform | None, notices: Notices) -> Chosen:
    """Choose and verify an image of a source.

    Args:
        source: where it lies.
        platform: what it must run on; None for this machine, or for any when there is but one.
        notices: told when the only image is for another platform.

    Returns:
        The image.

    Raises:
        UsageError: no image is for the platform, or the choice is not unique; with the list.
        MalformedImage: a document breaks a rule of the specification.
        VerificationError: a document's digest or size is not that of its descriptor.
        Unsupported: the source holds no image, or one with an unknown type of layer.
        LimitExceeded: too many descriptors, indexes nested too deeply, a document too large.
    """
    try:
        candidates, others = _candidates(source)
        candidate = _pick(candidates, others, platform, notices)
        layers = _pair(source, candidate)
    except OcirootError as error:
        raise error.locate(source=source.name) from error.__cause__
    return Chosen(candidate.descriptor, candidate.manifest, candidate.config, layers)


def _document(source: Source, descriptor: Descriptor, kind: type[_Document]) -> _Document:
    """Read a document and hold it against its descriptor.

    descriptor.md, "Properties": content "SHOULD be verified against this digest", and "If the
    length of the retrieved content does not match the specified length, the content SHOULD NOT be
    trusted". Nothing is parsed before that.
    """
    name = f"{kind.__name__.lower()} {descriptor.checked.short}"
    try:
        if descriptor.size > MAX_DOCUMENT_SIZE:
            raise LimitExceeded(
                f"{descriptor.size} bytes; a document has at most {MAX_DOCUMENT_SIZE}"
            )
        blob = source.blob(descriptor.checked)
        check_size(blob, descriptor)
        content = b"".join(blob.chunks())
        found = Digest.of(content, descriptor.checked.algorithm)
        if found != descriptor.checked:
            raise VerificationError(f"the digest is {found}, not {descriptor.digest}")
        document = decode(content, kind)
        media_type = getattr(document, "media_type", "")
        if media_type and media_type != descriptor.media_type:
            raise MalformedImage(
                f"mediaType is {printable(media_type)!r}, "
                f"its descriptor says {printable(descriptor.media_type)!r}"
            )
    except OcirootError as error:
        raise error.locate(member=name) from error.__cause__
    return document


def check_size(blob: Blob, descriptor: Descriptor) -> None:
    """Refuse a blob of another size than its descriptor says."""
    if blob.size != descriptor.size:
        raise VerificationError(
            f"the blob has {blob.size} bytes, its descriptor says {descriptor.size}"
        )


def _manifests(source: Source) -> Iterator[Descriptor]:
    """Follow the indexes and yield each descriptor of something that is not an index, once."""
    try:
        top = decode(source.index(), Index)
        if top.media_type and top.media_type not in INDEX_TYPES:
            raise MalformedImage(f"mediaType is {printable(top.media_type)!r}, not an index's")
    except OcirootError as error:
        raise error.locate(member="index.json") from error.__cause__
    seen: set[str] = set()
    todo = [(descriptor, 1) for descriptor in reversed(top.manifests)]
    while todo:
        descriptor, depth = todo.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if len(seen) > MAX_DESCRIPTORS:
            raise LimitExceeded(f"more than {MAX_DESCRIPTORS} descriptors in the indexes")
        if descriptor.media_type not in INDEX_TYPES or not _present(source, descriptor):
            yield descriptor
            continue
        if depth == MAX_DEPTH:
            raise LimitExceeded(f"indexes nested more than {MAX_DEPTH} deep")
        index = _document(source, descriptor, Index)
        todo += [(_inherit(child, descriptor), depth + 1) for child in reversed(index.manifests)]


def _present(source: Source, descriptor: Descriptor) -> bool:
    """Say whether the source has a document.

    image-layout.md, "Blobs": "The blobs directory MAY be missing referenced blobs": what was saved
    of a multi-platform image for one platform lists the others all the same.
    """
    try:
        source.blob(descriptor.checked)
    except MalformedImage:
        return False
    return True


def _inherit(child: Descriptor, parent: Descriptor) -> Descriptor:
    """Give an image of a nested index the annotations, such as its name, of that index's entry."""
    if not parent.annotations:
        return child
    return msgspec.structs.replace(child, annotations={**parent.annotations, **child.annotations})


def _candidates(source: Source) -> tuple[list[_Candidate], list[str]]:
    """Return the images of a source, and of what type the rest is.

    image-layout.md, "index.json file": "An encountered `mediaType` that is unknown MUST NOT
    generate an error."
    """
    images: list[_Candidate] = []
    others: list[str] = []
    for descriptor in _manifests(source):
        if descriptor.media_type not in MANIFEST_TYPES:
            others.append(descriptor.media_type)
            continue
        if descriptor.is_attestation:
            others.append("an attestation")
            continue
        if not _present(source, descriptor):
            others.append(f"a reference to {descriptor.digest}, which it does not hold")
            continue
        manifest = _document(source, descriptor, Manifest)
        kind = manifest.artifact_type or descriptor.artifact_type
        if kind or manifest.config.media_type not in CONFIG_TYPES:
            others.append(kind or manifest.config.media_type)
            continue
        config = _document(source, manifest.config, Config)
        images.append(
            _Candidate(descriptor, manifest, config, descriptor.platform or config.platform)
        )
    return images, others


def _pick(
    candidates: list[_Candidate], others: list[str], wanted: Platform | None, notices: Notices
) -> _Candidate:
    if not candidates:
        what = ", ".join(sorted({printable(kind) for kind in others})[:5]) or "nothing"
        raise Unsupported(f"there is no container image in it, only {what}")
    if wanted is None and len(candidates) == 1:
        only = candidates[0]
        here = Platform.of_this_machine()
        if only.platform.rank_for(here) is None:
            notices.add("platform", f"{only.platform}, this machine is {here}")
        return only
    here = wanted or Platform.of_this_machine()
    ranked = [(rank, c) for c in candidates if (rank := c.platform.rank_for(here)) is not None]
    if not ranked:
        raise UsageError(f"there is no image for {here}; there is {_listed(candidates)}")
    best = min(rank for rank, _ in ranked)
    fitting = [c for rank, c in ranked if rank == best]
    # image-index.md: "If multiple manifests match a client or runtime's requirements, the first
    # matching entry SHOULD be used" - but images of different names are different images.
    if len({c.descriptor.annotations.get(_REF_NAME) for c in fitting}) > 1:
        raise UsageError(f"there are several images for {here}: {_listed(fitting)}")
    return fitting[0]


_REF_NAME = "org.opencontainers.image.ref.name"


def _listed(candidates: list[_Candidate]) -> str:
    names = [
        f"{c.platform} {printable(c.descriptor.annotations.get(_REF_NAME, ''))}".rstrip()
        for c in candidates
    ]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _pair(source: Source, candidate: _Candidate) -> tuple[LayerBlob, ...]:
    """Pair the layers with the diff_ids, and check of the layers what can be checked unread."""
    descriptors = candidate.manifest.layers
    diff_ids = candidate.config.rootfs.checked
    if len(descriptors) != len(diff_ids):
        raise MalformedImage(
            f"the manifest has {len(descriptors)} layers, the config {len(diff_ids)} diff_ids"
        )
    layers: list[LayerBlob] = []
    for number, (descriptor, diff_id) in enumerate(zip(descriptors, diff_ids, strict=True), 1):
        label = f"{number}/{len(descriptors)} {descriptor.digest}"
        try:
            if descriptor.media_type not in LAYER_TYPES:
                encrypted = "+encrypted" in descriptor.media_type
                raise Unsupported(
                    f"the media type {printable(descriptor.media_type)!r}",
                    remedy="decrypt the image first" if encrypted else None,
                )
            blob = source.blob(descriptor.checked)
            check_size(blob, descriptor)
        except OcirootError as error:
            raise error.locate(layer=label) from None
        layers.append(LayerBlob(number, len(descriptors), descriptor, blob, diff_id))
    return tuple(layers)
