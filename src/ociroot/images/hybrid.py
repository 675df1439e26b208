"""Sources that are both an OCI image layout and a docker-archive, as Docker saves since 25.

A reader of ``index.json`` and a reader of ``manifest.json`` must get the same image. But Docker's
``index.json`` is not always complete: 25.0.0 to 25.0.2 omit images saved by digest (moby #47210),
later versions all of these but the first (#51389), and the first versions of 25 omit the layers
from the manifests (#47065).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TypeAlias

import msgspec

from ..errors import LimitExceeded, MalformedImage, located, printable
from ..sources.blob import Blob
from ..spec.digest import Digest
from .found import FoundImage, NonImage
from .names import full_name

__all__ = ["Stack", "agree", "put_together"]

#: The blobs of an image's layers, base first; None for a missing layer.
Stack: TypeAlias = tuple[Blob | None, ...]


def put_together(
    listed: Sequence[FoundImage | NonImage],
    archived: Sequence[FoundImage | NonImage],
    stack_of: Callable[[FoundImage], Stack],
) -> list[FoundImage | NonImage]:
    """Add the images that only ``manifest.json`` lists to those of ``index.json``.

    Args:
        listed: the images of ``index.json``.
        archived: the images of ``manifest.json``.
        stack_of: returns the blobs of an image's layers.

    Raises:
        MalformedImage: the two contradict each other (an image has other layers, or a name means
            another image), or an unreadable document may hide a contradiction.
    """
    both = _Both(listed, stack_of)
    for item in archived:
        with located(member="manifest.json"):
            both.add(item)
    return both.listed


def agree(
    listed: Sequence[FoundImage | NonImage],
    archived: Sequence[FoundImage | NonImage],
    names: Container[str],
    stack_of: Callable[[FoundImage], Stack],
) -> bool:
    """Say whether both documents agree, when only a part of ``index.json`` has been followed.

    They do when ``manifest.json`` has nothing but images of that part, with the same layers, and
    each of its names means the same there. Then nothing that the rest of ``index.json`` leads to
    can change the part, or contradict ``manifest.json``.

    Args:
        listed: what a part of ``index.json`` lists.
        archived: all that ``manifest.json`` has.
        names: the full names of all that ``index.json`` lists.
        stack_of: finds out where the layers of an image lie.

    Returns:
        False: it cannot be told from this part.

    Raises:
        MalformedImage: the two contradict each other, as far as this part tells.
    """
    if put_together(listed, archived, stack_of) != list(listed):
        return False
    read = {
        full_name(name)
        for each in listed
        if isinstance(each, FoundImage)
        for name in each.names[:1]
    }
    theirs = {full_name(name) for item in archived for name in item.names}
    return all(name in read or name not in names for name in theirs)


class _Both:
    """The merged list of both documents.

    Attributes:
        listed: the result.
    """

    def __init__(
        self, listed: Sequence[FoundImage | NonImage], stack_of: Callable[[FoundImage], Stack]
    ) -> None:
        self.listed = list(listed)
        self._stack_of = stack_of
        self._unreadable = [x for x in listed if isinstance(x, NonImage) and x.is_unreadable]
        # By image ID: the images' positions in the list, their layers and their names.
        self._places: dict[Digest, list[int]] = {}
        self._stacks: dict[Digest, set[Stack]] = {}
        self._known: dict[Digest, set[str]] = {}
        # The images that a name means: those of several platforms, or something else (None).
        self._named: dict[str, set[Digest | None]] = {}
        for place, each in enumerate(listed):
            if isinstance(each, FoundImage):
                self._places.setdefault(each.image_id, []).append(place)
            elif each.kind in ("missing", "attestation"):
                continue  # never selected by name
            image_id = each.image_id if isinstance(each, FoundImage) else None
            for name in each.names[:1]:
                self._named.setdefault(full_name(name), set()).add(image_id)

    def add(self, item: FoundImage | NonImage) -> None:
        """Add an item of ``manifest.json``."""
        if isinstance(item, NonImage):
            if isinstance(item.error, LimitExceeded):
                raise item.error
            if item.is_unreadable:
                # Another reader may be able to read it.
                raise MalformedImage(f"an image that index.json does not list is {item.kind}")
            self.listed.append(item)
            return
        for name in item.names:
            meant = self._named.get(full_name(name))
            if meant is not None and item.image_id not in meant:
                shown = printable(name[:200])
                raise MalformedImage(f"{shown} is {item.image_id}, but another image in index.json")
        if item.image_id in self._places:
            self._compare(item, self._places[item.image_id])
        elif self._unreadable:
            rival = self._unreadable[0]
            raise MalformedImage(
                f"index.json does not list {item.image_id}, and its image {rival.digest} is "
                f"{rival.kind}"
            )
        else:
            self.listed.append(item)

    def _compare(self, item: FoundImage, places: list[int]) -> None:
        """Compare the layers of an image that both list; merge its names."""
        if item.image_id not in self._stacks:
            # Computed once per image: there may be thousands of names for one image.
            images = self._images(places)
            self._stacks[item.image_id] = set(map(self._stack_of, images))
            self._known[item.image_id] = {full_name(n) for image in images for n in image.names}
        stacks, known = self._stacks[item.image_id], self._known[item.image_id]
        stack = self._stack_of(item)
        if stacks == {()}:
            # The manifests have no layers: the layers are verified by the diff_ids alone.
            for place, image in zip(places, self._images(places), strict=True):
                self.listed[place] = msgspec.structs.replace(
                    image, members=item.members, size=item.size
                )
            stacks.add(stack)
            stacks.discard(())
        elif stack not in stacks:
            raise MalformedImage(f"the layers of {item.image_id} differ from those of index.json")
        more = tuple(name for name in item.names if full_name(name) not in known)
        if more:
            known.update(map(full_name, more))
            [first] = self._images(places[:1])
            self.listed[places[0]] = msgspec.structs.replace(first, names=first.names + more)

    def _images(self, places: list[int]) -> list[FoundImage]:
        listed = (self.listed[place] for place in places)
        return [image for image in listed if isinstance(image, FoundImage)]
