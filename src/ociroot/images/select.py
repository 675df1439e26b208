"""Which image is meant: chosen by name, digest and platform."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress

import msgspec

from ..errors import MalformedImage, OcirootError, Unsupported, UsageError, printable, quoted
from ..notices import Notices
from ..spec.descriptor import MANIFEST_TYPES, Descriptor
from ..spec.platform import Platform
from .catalog import Catalog, Entry
from .found import FoundImage, Listing, NonImage
from .names import short_names

__all__ = ["ImageSelector", "select"]

# Characters of a name that a message shows.
_SHOWN = 200


class ImageSelector(msgspec.Struct, frozen=True, kw_only=True):
    """Which image of a source is meant.

    Attributes:
        platform: what it must run on, as in ``linux/arm/v7`` or ``arm64``; None: this machine, or
            any platform when there is but one image.
        ref: a name of it, full or short; empty: the one that the source was opened with, or any.
        digest: the digest of its manifest or its image ID, or the beginning of one; empty: any.
    """

    platform: Platform | str | None = None
    ref: str = ""
    digest: str = ""

    @property
    def parsed_platform(self) -> Platform | None:
        """The platform, where there is one.

        Raises:
            UsageError: the text names none.
        """
        platform = self.platform
        return Platform.parse(platform) if isinstance(platform, str) else platform


def select(catalog: Catalog, wanted: ImageSelector, notices: Notices) -> FoundImage:
    """Choose an image, and read for that no more of the source than it takes.

    Args:
        catalog: what is there.
        wanted: what to choose by.
        notices: receives the warnings about the choice.

    Returns:
        The image.

    Raises:
        OcirootError: as :func:`select_listed`, or what leads to the images cannot be read.
    """
    likely = _likely(catalog, wanted)
    if likely:
        # Where that gives nothing, all that is there says why.
        with suppress(OcirootError):
            listing = catalog.listing_of(likely)
            if listing is not None:
                return select_listed(listing, wanted, notices)
    return select_listed(catalog.listing(), wanted, notices)


def _likely(catalog: Catalog, wanted: ImageSelector) -> list[Entry]:
    """Return what must be meant, as far as the indexes alone tell; empty: they do not."""
    entries = [
        entry
        for entry in catalog.entries
        if entry.subject is None
        and (entry.error is not None or _may_be_image(entry.descriptor))
        and _is_called(entry.names, wanted.ref)
    ]
    whole = [entry for entry in entries if _is_digest_of(wanted.digest, entry.descriptor)]
    entries = whole or entries
    platforms = [e.descriptor.platform if e.descriptor is not None else None for e in entries]
    if all(platforms):
        here = wanted.parsed_platform or Platform.of_this_machine()
        fitting = [e for e, each in zip(entries, platforms, strict=True) if _fits(each, here)]
        entries = fitting or entries
    return entries if len(entries) < len(catalog.entries) else []


def _is_digest_of(text: str, descriptor: Descriptor | None) -> bool:
    """Say whether a digest is all of a descriptor's, with its algorithm or without."""
    return descriptor is not None and text in (descriptor.digest, descriptor.parsed_digest.encoded)


def _may_be_image(descriptor: Descriptor | None) -> bool:
    if descriptor is None:
        return False
    media_type = descriptor.media_type
    return not media_type or (media_type in MANIFEST_TYPES and not descriptor.artifact_type)


def select_listed(listing: Listing, wanted: ImageSelector, notices: Notices) -> FoundImage:
    """Choose an image.

    Args:
        listing: what is there.
        wanted: what to choose by.
        notices: told when the only image is for another platform, and when another one was to be
            had by the same name.

    Returns:
        The image.

    Raises:
        UsageError: no image is what is wanted, or more than one is; with the choices.
        Unsupported: there is no image at all.
        OcirootError: what is wanted cannot be read.
    """
    chosen = _choose(listing, wanted, notices)
    _check_first(listing, chosen, wanted)
    return chosen


def _choose(listing: Listing, wanted: ImageSelector, notices: Notices) -> FoundImage:
    """Choose one of those that can be read."""
    here = wanted.parsed_platform or Platform.of_this_machine()
    images = [image for image in listing.images if _is_asked_for(image, wanted)]
    if images and wanted.parsed_platform is None and len({image.digest for image in images}) == 1:
        if images[0].platform.rank_for(here) is None:
            notices.add("platform", f"{images[0].platform}, this machine is {here}")
        return images[0]
    ranked = [(rank, i) for i in images if (rank := i.platform.rank_for(here)) is not None]
    if not ranked:
        raise _no_image(listing, images, wanted, here)
    best = min(rank for rank, _ in ranked)
    return _first([image for rank, image in ranked if rank == best], here, notices)


def _first(images: list[FoundImage], here: Platform, notices: Notices) -> FoundImage:
    """Choose between the images that fit best.

    image-index.md: "If multiple manifests match a client or runtime's requirements, the first
    matching entry SHOULD be used" - but images of different names are different images, and so are
    those of a docker-archive, of which that is not said.
    """
    first = images[0]
    is_one = len({image.names for image in images}) == 1 and all(i.descriptor for i in images)
    if len({image.digest for image in images}) > 1 and not is_one:
        raise _no_choice(f"there are several images for {here}", images)
    # Containerd and skopeo take those whose descriptor names no platform last.
    first = next((i for i in images if i.descriptor and i.descriptor.platform), first)
    # One image may be there twice, as with its layers in gzip and in zstd.
    if any(i.image_id != first.image_id and _is_same(i.platform, first.platform) for i in images):
        notices.add("same-name", " ".join([*first.names[:1], str(first.digest)]))
    return first


def _check_first(listing: Listing, chosen: FoundImage, wanted: ImageSelector) -> None:
    """Refuse an image where another one comes first, which we cannot read and others may.

    Only what its descriptor says of that one is known: that it has the same names, and that its
    platform fits as well or better.
    """
    here = wanted.parsed_platform or Platform.of_this_machine()
    place = listing.images.index(chosen)
    rank = chosen.platform.rank_for(here)
    said = chosen.descriptor is not None and chosen.descriptor.platform is not None
    for other in listing.others:
        if not other.is_unreadable or other.names != chosen.names or other.platform is None:
            continue
        its = other.platform.rank_for(here)
        if its is None or not _has_digest((other.digest,), wanted.digest):
            continue
        if rank is None or its < rank or (its == rank and (other.place <= place or not said)):
            raise other.error or MalformedImage(other.kind)


def _is_same(one: Platform, other: Platform) -> bool:
    """Say whether two platforms that fit equally well are one."""
    return (one.os_version, one.os_features) == (other.os_version, other.os_features)


def _no_image(
    listing: Listing, images: list[FoundImage], wanted: ImageSelector, here: Platform
) -> OcirootError:
    """Return what to raise when none of the images is what is wanted.

    Args:
        listing: what is there.
        images: those of another platform, and otherwise what is wanted.
        wanted: what to choose by.
        here: the platform that is wanted.
    """
    named = [other for other in listing.others if other.error and _is_asked_for(other, wanted)]
    # What it is for nobody knows, where no descriptor says so.
    known = [other for other in named if _fits(other.platform, here)]
    if not images:
        known += [o for o in named if o.platform is None or wanted.parsed_platform is None]
    broken = next((other.error for other in known if other.is_unreadable), None)
    if broken is None and not images and known and (wanted.ref or wanted.digest):
        broken = known[0].error  # that it is missing
    if broken is not None:
        return broken
    if images:
        problem = f"there is no image for {here}"
        if known:
            problem = f"the image for {here}, {known[0].digest}, is missing"
        return _no_choice(problem, images)
    if not listing.images:
        return _nothing(listing)
    asked = [f"named {wanted.ref!r}"] if wanted.ref else []
    asked += [f"with the digest {wanted.digest!r}"] if wanted.digest else []
    problem = f"there is no image {printable(' and '.join(asked))}"
    # What is called so is something else.
    kinds = [other.kind for other in listing.others if _is_asked_for(other, wanted)]
    problem += f", only {printable(kinds[0][:_SHOWN])}" if kinds else ""
    return _no_choice(problem, listing.images)


def _nothing(listing: Listing) -> Unsupported:
    """Say what there is when there is no image."""
    kinds = {printable(o.kind[:200]) for o in listing.others if o.kind != "missing"}
    missing = [other for other in listing.others if other.kind == "missing"]
    found = [f"only {', '.join(sorted(kinds)[:5])}"] if kinds else []
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        found.append(f"the blob {missing[0].digest} is missing{more}")
    problem = "there is no container image in it: " + ("; ".join(found) or "its list is empty")
    remedy = missing[0].error.remedy if missing and missing[0].error is not None else None
    return Unsupported(problem, remedy=remedy)


def _fits(platform: Platform | None, wanted: Platform) -> bool:
    return platform is not None and platform.rank_for(wanted) is not None


def _is_asked_for(what: FoundImage | NonImage, wanted: ImageSelector) -> bool:
    """Say whether something has the name and the digest that are asked for."""
    own = (str(what.digest), str(what.image_id) if isinstance(what, FoundImage) else "")
    return _is_called(what.names, wanted.ref) and _has_digest(own, wanted.digest)


def _is_called(names: tuple[str, ...], ref: str) -> bool:
    """Say whether one of the names is what users may mean."""
    return not ref or any(ref in short_names(name) for name in names)


def _has_digest(digests: tuple[str, ...], prefix: str) -> bool:
    if not prefix:
        return True
    if not re.fullmatch(r"(?:sha(?:256|512):)?[0-9a-f]+", prefix):
        raise UsageError(f"{quoted(prefix)} is no digest, nor the beginning of one")
    return any(d.startswith(prefix) or d.partition(":")[2].startswith(prefix) for d in digests)


def _no_choice(problem: str, images: list[FoundImage] | tuple[FoundImage, ...]) -> UsageError:
    """Say what can be chosen, and by which option."""
    names = Counter(name for image in images for name in set(image.names))
    platforms = Counter(image.platform for image in images)
    choices = tuple(_choice(image, names, platforms) for image in images)
    shown = ", ".join(f"{platform} {name}".rstrip() for platform, name, _ in choices[:20])
    more = f" and {len(choices) - 20} more" if len(choices) > 20 else ""
    return UsageError(f"{problem}; there is {shown}{more}", choices=choices)


def _choice(
    image: FoundImage, names: Counter[str], platforms: Counter[Platform]
) -> tuple[str, str, str]:
    """Return an image's platform, its name, and the option that chooses it and no other.

    Args:
        image: the image.
        names: how many images have each name.
        platforms: how many there are for each platform.
    """
    name = image.names[0] if image.names else ""
    if name and names[name] == 1 and len(name) <= _SHOWN:
        option = f"--ref {printable(name)}"
    elif platforms[image.platform] == 1:
        option = f"--platform {image.platform}"
    else:
        option = f"--digest {image.digest}"
    return str(image.platform)[:_SHOWN], printable(name[:_SHOWN]), option[: 2 * _SHOWN]
