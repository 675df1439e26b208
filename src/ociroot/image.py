"""Which image: chosen by name, digest and platform; its layers paired with its diff_ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from .errors import (
    MalformedImage,
    OcirootError,
    Unsupported,
    UsageError,
    printable,
    quoted,
)
from .listing import FoundImage, Listing, check_size
from .notices import Notices
from .sources import Blob, Source
from .spec.descriptor import LAYER_TYPES, Descriptor
from .spec.digest import Digest
from .spec.platform import Platform

__all__ = ["LayerBlob", "Wanted", "choose", "pair"]


class LayerBlob(msgspec.Struct, frozen=True):
    """A layer as the documents describe it.

    Attributes:
        number: its place in the manifest, from 1.
        count: how many layers the manifest has.
        digest: the digest of the blob; None in a docker-archive, which has none.
        media_type: its media type; empty in a docker-archive.
        blob: where its bytes lie.
        diff_id: the digest that its uncompressed content should have.
    """

    number: int
    count: int
    digest: Digest | None
    media_type: str
    blob: Blob
    diff_id: Digest

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.number}/{self.count} {self.digest or self.diff_id}"


class Wanted(msgspec.Struct, frozen=True):
    """What to choose an image by.

    Attributes:
        platform: what it must run on; None: this machine, or any when there is but one image.
        ref: a name of it, full or short; empty: any.
        digest: the beginning of its manifest's digest or of its image ID; empty: any.
    """

    platform: Platform | None = None
    ref: str = ""
    digest: str = ""


def choose(listing: Listing, wanted: Wanted, notices: Notices) -> FoundImage:
    """Choose an image.

    Args:
        listing: what is there.
        wanted: what to choose by.
        notices: told when the only image is for another platform.

    Returns:
        The image.

    Raises:
        UsageError: no image is what is wanted, or more than one is; with the choices.
        Unsupported: there is no image at all.
    """
    if not listing.images:
        what = ", ".join(sorted({printable(other.kind) for other in listing.others})[:5])
        raise Unsupported(f"there is no container image in it, only {what or 'nothing'}")
    images = [image for image in listing.images if _is_called(image, wanted.ref)]
    images = [image for image in images if _has_digest(image, wanted.digest)]
    if not images:
        asked = [f"named {wanted.ref!r}"] if wanted.ref else []
        asked += [f"with the digest {wanted.digest!r}"] if wanted.digest else []
        raise _no_choice(f"there is no image {printable(' and '.join(asked))}", listing.images)
    here = wanted.platform or Platform.of_this_machine()
    if wanted.platform is None and len({image.digest for image in images}) == 1:
        if images[0].platform.rank_for(here) is None:
            notices.add("platform", f"{images[0].platform}, this machine is {here}")
        return images[0]
    ranked = [(rank, i) for i in images if (rank := i.platform.rank_for(here)) is not None]
    if not ranked:
        raise _no_choice(f"there is no image for {here}", images)
    best = min(rank for rank, _ in ranked)
    fitting = [image for rank, image in ranked if rank == best]
    # image-index.md: "If multiple manifests match a client or runtime's requirements, the first
    # matching entry SHOULD be used" - but images of different names are different images.
    if len({image.digest for image in fitting}) > 1 and len({i.names for i in fitting}) > 1:
        raise _no_choice(f"there are several images for {here}", fitting)
    return fitting[0]


def _is_called(image: FoundImage, ref: str) -> bool:
    """Say whether an image has a name, as users shorten it."""
    return not ref or any(ref in short_names(name) for name in image.names)


def short_names(name: str) -> list[str]:
    """Return a name and what users shorten it to, as in ``docker.io/library/alpine:latest``."""
    hosts = ("docker.io/library/", "docker.io/", "localhost/")
    names = [name] + [name.removeprefix(host) for host in hosts if name.startswith(host)]
    last = names[-1].rpartition("/")[2].partition("@")[0]
    names += [last] if last not in names else []
    return names + [n.removesuffix(":latest") for n in names if n.endswith(":latest")]


def _has_digest(image: FoundImage, prefix: str) -> bool:
    if not prefix:
        return True
    if not re.fullmatch(r"(?:sha(?:256|512):)?[0-9a-f]+", prefix):
        raise UsageError(f"{quoted(prefix)} is no digest, nor the beginning of one")
    own = (image.digest, image.image_id)
    return any(str(d).startswith(prefix) or d.encoded.startswith(prefix) for d in own)


def _no_choice(problem: str, images: list[FoundImage] | tuple[FoundImage, ...]) -> UsageError:
    """Say what can be chosen, and by which option."""
    choices = tuple(_choice(image, images) for image in images)
    shown = ", ".join(f"{platform} {name}".rstrip() for platform, name, _ in choices[:20])
    more = f" and {len(choices) - 20} more" if len(choices) > 20 else ""
    return UsageError(f"{problem}; there is {shown}{more}", choices=choices)


def _choice(
    image: FoundImage, images: list[FoundImage] | tuple[FoundImage, ...]
) -> tuple[str, str, str]:
    """Return an image's platform, its name, and the option that chooses it and no other."""
    name = image.names[0] if image.names else ""
    if name and [i for i in images if name in i.names] == [image]:
        option = f"--ref {printable(name)}"
    elif [i for i in images if i.platform == image.platform] == [image]:
        option = f"--platform {image.platform}"
    else:
        option = f"--digest {image.digest}"
    return str(image.platform), printable(name), option


def pair(source: Source, image: FoundImage) -> tuple[LayerBlob, ...]:
    """Pair the layers with the diff_ids, and check of the layers what can be checked unread.

    Args:
        source: where they lie.
        image: the image.

    Returns:
        The layers in the manifest's order, base first.

    Raises:
        MalformedImage: the numbers differ, or a layer is not there.
        VerificationError: a layer has another size than its descriptor says.
        Unsupported: a layer of an unknown type.
        LimitExceeded: too many layers.
    """
    diff_ids = image.config.rootfs.checked
    places: Sequence[Descriptor | str] = image.members
    if image.manifest is not None:
        places = image.manifest.layers
    if len(places) != len(diff_ids):
        raise MalformedImage(
            f"the manifest has {len(places)} layers, the config {len(diff_ids)} diff_ids",
            source=source.name,
        )
    if len(places) > source.limits.layers:
        raise source.limits.exceeded("layers", len(places)).locate(source=source.name)
    layers: list[LayerBlob] = []
    for number, (place, diff_id) in enumerate(zip(places, diff_ids, strict=True), 1):
        digest, media_type = None, ""
        label = f"{number}/{len(places)} {diff_id}"
        try:
            if isinstance(place, str):
                blob = source.member(place)
                missing = f"the member {printable(place)}"
            else:
                digest, media_type = place.checked, place.media_type
                label = f"{number}/{len(places)} {digest}"
                _check_type(media_type)
                blob = source.blob(digest)
                missing = f"the blob {digest}"
            if blob is None:
                raise MalformedImage(f"{missing} is not there")
            if not isinstance(place, str):
                check_size(blob, place)
        except OcirootError as error:
            raise error.locate(source=source.name, layer=label) from None
        layers.append(LayerBlob(number, len(places), digest, media_type, blob, diff_id))
    return tuple(layers)


def _check_type(media_type: str) -> None:
    if media_type not in LAYER_TYPES:
        encrypted = "+encrypted" in media_type
        raise Unsupported(
            f"the media type {quoted(media_type)}",
            remedy="decrypt the image first" if encrypted else None,
        )
