"""A source that is an OCI image layout and a docker-archive at once, as Docker has saved since 25.

Whoever loads it by ``index.json`` must not get another image than whoever loads it by
``manifest.json``. But Docker's ``index.json`` does not always list all: 25.0.0 to 25.0.2 leave out
what is saved by digest (moby #47210), later ones all of these but the first (#51389), and the first
of 25 forget the layers in their manifests (#47065).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from ..errors import LimitExceeded, MalformedImage, located, printable
from ..sources.blob import Blob
from ..spec.digest import Digest
from .found import FoundImage, NonImage
from .names import full_name

__all__ = ["Stack", "put_together"]

#: Where the layers of an image lie, base first; None: a layer that is not there.
Stack: TypeAlias = tuple[Blob | None, ...]


def put_together(
    listed: Sequence[FoundImage | NonImage],
    archived: Sequence[FoundImage | NonImage],
    stack_of: Callable[[FoundImage], Stack],
) -> list[FoundImage | NonImage]:
    """Add to what ``index.json`` lists the images that only ``manifest.json`` has.

    Args:
        listed: what ``index.json`` lists.
        archived: what ``manifest.json`` has.
        stack_of: finds out where the layers of an image lie.

    Raises:
        MalformedImage: the two contradict each other: one image has other layers, or one name means
            another image; or what cannot be read may be such a contradiction.
    """
    both = _Both(listed, stack_of)
    for item in archived:
        with located(member="manifest.json"):
            both.add(item)
    return both.listed


class _Both:
    """What both documents have.

    Attributes:
        listed: the result.
    """

    def __init__(
        self, listed: Sequence[FoundImage | NonImage], stack_of: Callable[[FoundImage], Stack]
    ) -> None:
        self.listed = list(listed)
        self._stack_of = stack_of
        self._unreadable = [x for x in listed if isinstance(x, NonImage) and x.is_unreadable]
        # Where in the list the images of each image ID are, what their layers and their names are.
        self._places: dict[Digest, list[int]] = {}
        self._stacks: dict[Digest, set[Stack]] = {}
        self._known: dict[Digest, set[str]] = {}
        # The images that a name means: those of several platforms, or something else (None).
        self._named: dict[str, set[Digest | None]] = {}
        for place, each in enumerate(listed):
            if isinstance(each, FoundImage):
                self._places.setdefault(each.image_id, []).append(place)
            elif each.kind in ("missing", "attestation"):
                continue  # nobody gets these by the name
            image_id = each.image_id if isinstance(each, FoundImage) else None
            for name in each.names[:1]:
                self._named.setdefault(full_name(name), set()).add(image_id)

    def add(self, item: FoundImage | NonImage) -> None:
        """Add something that ``manifest.json`` has."""
        if isinstance(item, NonImage):
            if isinstance(item.error, LimitExceeded):
                raise item.error
            if item.is_unreadable:
                # Another reader may be able to read it.
                raise MalformedImage(
                    f"one of its images is none of those of index.json, and {item.kind}"
                )
            self.listed.append(item)
            return
        for name in item.names:
            meant = self._named.get(full_name(name))
            if meant is not None and item.image_id not in meant:
                shown = printable(name[:200])
                raise MalformedImage(f"{shown} is {item.image_id}, and another in index.json")
        if item.image_id in self._places:
            self._compare(item, self._places[item.image_id])
        elif self._unreadable:
            rival = self._unreadable[0]
            raise MalformedImage(
                f"{item.image_id} is none of those of index.json, where {rival.digest} is "
                f"{rival.kind}"
            )
        else:
            self.listed.append(item)

    def _compare(self, item: FoundImage, places: list[int]) -> None:
        """Hold the layers of an image that both have against each other; take names from both."""
        if item.image_id not in self._stacks:
            # Once for each image: there may be thousands of names for one.
            images = self._images(places)
            self._stacks[item.image_id] = set(map(self._stack_of, images))
            self._known[item.image_id] = {full_name(n) for image in images for n in image.names}
        stacks, known = self._stacks[item.image_id], self._known[item.image_id]
        stack = self._stack_of(item)
        if stacks == {()}:
            # The manifests have no layers at all: they are verified by the diff_ids alone.
            for place, image in zip(places, self._images(places), strict=True):
                self.listed[place] = msgspec.structs.replace(
                    image, members=item.members, size=item.size
                )
            stacks.add(stack)
            stacks.discard(())
        elif stack not in stacks:
            raise MalformedImage(f"its layers of {item.image_id} are not those of index.json")
        more = tuple(name for name in item.names if full_name(name) not in known)
        if more:
            known.update(map(full_name, more))
            [first] = self._images(places[:1])
            self.listed[places[0]] = msgspec.structs.replace(first, names=first.names + more)

    def _images(self, places: list[int]) -> list[FoundImage]:
        listed = (self.listed[place] for place in places)
        return [image for image in listed if isinstance(image, FoundImage)]
