"""The layers of an image: the blobs of its manifest with the diff_ids of its configuration."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..compression import sniff
from ..errors import MalformedImage, Unsupported, located, printable, quoted
from ..sources.blob import Blob, head
from ..sources.source import Source
from ..spec.descriptor import LAYER_TYPES, Descriptor
from ..spec.digest import Digest
from .documents import check_size
from .found import ChosenImage

__all__ = ["LayerBlob", "resolve_layers"]

# The maximum number of characters of a name in a message.
_SHOWN = 200


class LayerBlob(msgspec.Struct, frozen=True):
    """A layer as the documents describe it.

    Attributes:
        number: its position in the manifest, from 1.
        count: the number of layers in the manifest.
        digest: the digest of the blob; None in a docker-archive, which has none.
        media_type: its media type; empty in a docker-archive.
        blob: the blob.
        diff_id: the expected digest of its uncompressed content.
        stored_size: stored bytes of all layers of the image: each blob is counted once, and at most
            the size of an archive that is compressed as a whole.
    """

    number: int
    count: int
    digest: Digest | None
    media_type: str
    blob: Blob
    diff_id: Digest
    stored_size: int

    @property
    def label(self) -> str:
        """The layer in the form of messages."""
        return f"{self.number}/{self.count} {self.digest or self.diff_id}"

    @property
    def compression(self) -> str:
        """What its first bytes say: ``gzip``, ``zstd``, ``none``, or one that is refused."""
        return sniff(head(self.blob, 8))


def resolve_layers(source: Source, image: ChosenImage) -> tuple[LayerBlob, ...]:
    """Match the layers with the diff_ids, and check the layers without reading them.

    Args:
        source: the source of the image.
        image: the image.

    Returns:
        The layers in the manifest's order, base first.

    Raises:
        MalformedImage: the numbers of layers and diff_ids differ, or a layer is missing.
        VerificationError: the size of a layer differs from its descriptor's.
        Unsupported: a layer has an unknown media type.
        LimitExceeded: too many layers.
    """
    diff_ids = image.config.rootfs.parsed_diff_ids
    # The manifests of Docker 25.0's first releases have no layers; `manifest.json` has them.
    places: Sequence[Descriptor | str] = image.members
    if image.manifest is not None and not image.members:
        places = image.manifest.layers
    if len(places) != len(diff_ids):
        raise MalformedImage(
            f"the manifest has {len(places)} layers, but the config has {len(diff_ids)} diff_ids",
            source=source.name,
        )
    if len(places) > source.limits.layers:
        raise source.limits.exceeded("layers", len(places)).locate(source=source.name)
    layers: list[LayerBlob] = []
    for number, (place, diff_id) in enumerate(zip(places, diff_ids, strict=True), 1):
        digest, media_type = None, ""
        if not isinstance(place, str):
            digest, media_type = place.parsed_digest, place.media_type
        label = f"{number}/{len(places)} {digest or diff_id}"
        with located(source=source.name, layer=label):
            blob = _member(source, place) if isinstance(place, str) else _blob(source, place)
        layers.append(LayerBlob(number, len(places), digest, media_type, blob, diff_id, 0))
    stored = source.stored_size(layer.blob for layer in layers)
    return tuple(msgspec.structs.replace(layer, stored_size=stored) for layer in layers)


def _member(source: Source, name: str) -> Blob:
    """Return a layer of a docker-archive."""
    blob = source.member(name)
    if blob is None:
        raise MalformedImage(f"the member {printable(name[:_SHOWN])} is missing")
    return blob


def _blob(source: Source, descriptor: Descriptor) -> Blob:
    """Return the layer of a descriptor."""
    media_type = descriptor.media_type
    if media_type not in LAYER_TYPES:
        encrypted = "+encrypted" in media_type
        raise Unsupported(
            f"media type {quoted(media_type[:_SHOWN])} is not supported",
            remedy="decrypt the image first" if encrypted else None,
        )
    blob = source.blob(descriptor)
    if blob is None:
        raise source.missing(descriptor.parsed_digest)
    check_size(blob, descriptor)
    return blob
