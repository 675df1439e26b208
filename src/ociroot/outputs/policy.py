"""What an output makes of set-id bits, devices and extended attributes: one object for all of them.

It is decided once, when an output is begun, and does not change: a writer and its second process
share it.
"""

from __future__ import annotations

import stat
from copy import copy
from typing import Literal

import msgspec

from ..rootfs.nodes import HOST_XATTRS, Node

__all__ = ["OutputPolicy", "without_privileges"]

#: The bits with which a program runs as somebody else.
SET_ID = stat.S_ISUID | stat.S_ISGID
_CAPABILITIES = b"security.capability"


class OutputPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an output makes of a node's attributes.

    Owners are set by root alone; for anybody else one warning counts those that were left out.

    Attributes:
        set_id: whether regular files keep set-id bits, and capabilities beside them. Who cannot
            keep the owners would lend the rights of somebody else. One warning counts them.
        devices: what is done with a device that may not be made: ``skip`` counts it in a warning.
    """

    set_id: bool = True
    devices: Literal["skip", "error"] = "skip"

    def keeps_xattr(self, name: bytes) -> bool:
        """Say whether an extended attribute is set, where the destination has such."""
        return not name.startswith(HOST_XATTRS)


def without_privileges(node: Node) -> Node:
    """Return a file as it is to whoever runs it with no more rights than their own."""
    made = copy(node)
    made.mode &= ~SET_ID
    made.xattrs = {n: v for n, v in (node.xattrs or {}).items() if n != _CAPABILITIES} or None
    return made
