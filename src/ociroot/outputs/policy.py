"""What an output makes of owners, set-id bits, devices and extended attributes: one object for all.

It is decided once, when an output is begun, and does not change: a writer and its second process
share it. :meth:`OutputPolicy.final` says how a node is written; every output asks it, so that all
of them show the same.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Unsupported
from ..layers.xattrs import CAPABILITY
from ..rootfs.nodes import HOST_XATTRS, Node
from ..tar.acl import ACCESS, mode_without_acl

if TYPE_CHECKING:
    from .ids import OwnerMap  # extraction without a map does without

__all__ = ["OutputPolicy", "duplicate"]

# The bits with which a program runs as another user.
_SET_ID = stat.S_ISUID | stat.S_ISGID
_ALL = (b"*",)


class OutputPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an output makes of a node's attributes.

    On disk owners are set by root alone; for anybody else one warning counts those that were left
    out.

    Attributes:
        owners: maps the owners of the image; None: they are kept as they are.
        owner: the owner and the group that everything gets instead; None: those of the image.
        set_id: whether regular files keep set-id bits and capabilities. Where owners are not kept
            they would grant the rights of another user. One warning counts them.
        devices: ``try``: they are made; where that is not allowed, one warning counts them.
            ``create``: they are made, or it is an error. ``skip``: they are left out. ``error``:
            an image with one is refused.
        xattrs: patterns, as of a shell, of the extended attributes that are kept.
    """

    owners: OwnerMap | None = None
    owner: tuple[int, int] | None = None
    set_id: bool = True
    devices: Literal["try", "create", "skip", "error"] = "try"
    xattrs: tuple[bytes, ...] = _ALL

    @property
    def changes_nodes(self) -> bool:
        """Whether :meth:`final` may return another node than it was given."""
        return self._maps or not self.set_id

    @property
    def _maps(self) -> bool:
        """Whether owners or extended attributes change, whatever the privileges."""
        return self.owners is not None or self.owner is not None or self.xattrs != _ALL

    @property
    def is_plain(self) -> bool:
        """Whether every node is written, as it is."""
        return self.devices in ("try", "create") and not self.changes_nodes

    def keeps_xattr(self, name: bytes) -> bool:
        """Say whether an extended attribute is set, where the destination has such."""
        if name.startswith(HOST_XATTRS):
            return False
        if self.xattrs is _ALL:
            return True
        from fnmatch import fnmatchcase  # the default policy does without

        return any(fnmatchcase(name, each) for each in self.xattrs)

    def writes(self, node: Node) -> bool:
        """Say whether a node is written at all.

        Raises:
            Unsupported: it is a device, and those are refused.
        """
        if node.kind not in ("char", "block") or self.devices in ("try", "create"):
            return True
        if self.devices == "skip":
            return False
        raise Unsupported("it is a device", remedy="--devices skip leaves devices out")

    def final(self, node: Node) -> Node:
        """Return a node as it is written: with its final owner, mode and extended attributes.

        Without ``set_id``, or where a file gets another owner than the image and its map give it,
        set-id bits and capabilities are dropped, as chown(2) does: they would grant the rights of
        another user. So are capabilities for a user namespace whose root the map does not cover.
        :meth:`dropped` says of which files.

        Args:
            node: what the image has. Of a directory a node with its attributes is returned.

        Raises:
            Unsupported: the map does not cover one of the ids.
        """
        made = self._mapped(node) if self._maps else node
        bits, capability = self._lost(node)
        return _without(made, bits, capability) if bits or capability else made

    def dropped(self, node: Node) -> Literal["set-id", "set-id-owner"] | None:
        """Return the code of the warning about the privileges that :meth:`final` drops, if any."""
        bits, capability = self._lost(node)
        if not bits and not (capability and self.keeps_xattr(CAPABILITY)):
            return None
        return "set-id-owner" if self.set_id else "set-id"

    def _lost(self, node: Node) -> tuple[int, bool]:
        """Return the set-id bits that a node has and may not have, and the same of capabilities."""
        if node.kind != "file":
            return 0, False
        bits = node.mode & _SET_ID
        capability = (node.xattrs or {}).get(CAPABILITY)
        if not bits and capability is None:
            return 0, False
        everything = bits, capability is not None
        if not self.set_id:
            return everything
        if self.owner is not None:
            return (0, False) if (node.uid, node.gid) == self.owner else everything
        if self.owners is None:
            return 0, False
        if not self.owners.covers(node.uid, node.gid):
            return everything
        return 0, capability is not None and not self.owners.covers_root_of(capability)

    def _mapped(self, node: Node) -> Node:
        """Return a node with its final owner and extended attributes, and all its privileges."""
        made = duplicate(node)
        if node.xattrs is not None:
            kept = {n: v for n, v in node.xattrs.items() if self.keeps_xattr(n)}
            made.xattrs = kept or None
            if ACCESS in node.xattrs and ACCESS not in kept:
                made.mode = mode_without_acl(node.mode, node.xattrs[ACCESS])
        if self.owner is not None:
            made.uid, made.gid = self.owner
        elif self.owners is not None:
            made.uid, made.gid = self.owners.owner(node.uid, node.gid)
            if made.xattrs is not None:
                made.xattrs = self.owners.xattrs(made.xattrs)
        return made


def _without(file: Node, bits: int, capability: bool) -> Node:
    """Return a file without some set-id bits, and perhaps without capabilities."""
    made = duplicate(file)
    made.mode &= ~bits
    if capability:
        made.xattrs = {n: v for n, v in (file.xattrs or {}).items() if n != CAPABILITY} or None
    return made


def duplicate(node: Node) -> Node:
    """Return a node with the same attributes and content; of a directory, with nothing in it."""
    made = Node(node.kind, node.layer)
    made.links = node.links
    made.size, made.offset, made.segments = node.size, node.offset, node.segments
    made.target, made.rdev = node.target, node.rdev
    made.mode, made.uid, made.gid = node.mode, node.uid, node.gid
    made.mtime_ns, made.xattrs = node.mtime_ns, node.xattrs
    return made
