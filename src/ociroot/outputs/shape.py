"""What is written of a tree, and what it becomes."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..errors import OcirootError, printable
from ..limits import Limits
from ..rootfs.filter import PathFilter
from ..rootfs.lookup import Lookup, find
from ..rootfs.nodes import Directory
from .policy import OutputPolicy

__all__ = ["MovedSubtree", "RecordForm", "Shape", "find_subtree"]

#: Where owners are recorded that cannot be set: nowhere, in a file beside, in attributes.
RecordForm = Literal["", "mtree", "xattr"]


class MovedSubtree(Exception):
    """A symbolic link leads to the subtree, which is at another path.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: bytes) -> None:
        super().__init__()
        self.path = path


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is written of a tree, and what it becomes.

    Attributes:
        policy: gives nodes their final attributes.
        filter: which paths are written.
        record: where owners are recorded that are not set; then files are written as an ordinary
            user can write them, and read them again.
    """

    policy: OutputPolicy
    filter: PathFilter
    record: RecordForm = ""


def find_subtree(root: Directory, path: bytes, limits: Limits) -> Directory:
    """Return the directory of a finished tree at a path, whose links are followed in the root.

    Args:
        root: the tree's root.
        path: the path.
        limits: on links and names on the way.

    Raises:
        OcirootError: there is none.
    """
    place = find(Lookup(root, limits, counted=False), path)
    if place is None:
        raise OcirootError(f"there is no {printable(path)}")
    if not isinstance(place[2], Directory):
        raise OcirootError(f"{printable(path)} is a {place[2].kind}, not a dir")
    return place[2]
