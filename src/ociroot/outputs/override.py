"""Owners in extended attributes, as fuse-overlayfs and podman read them on rootless storage.

fuse-overlayfs presents the files of a layer with the owner, the mode and the type that
``user.containers.override_stat`` says, if the layer's root directory has the attribute, too; and
from 1.14 on ``security.*`` attributes under names that begin with ``user.containers.override_``.
Linux has ``user.*`` attributes on files and directories alone (xattr(7)), so what belongs to a
symbolic link, a device or a FIFO cannot be recorded, and ``trusted.*`` attributes and ACLs neither.
"""

from __future__ import annotations

from ..rootfs.nodes import HOST_XATTRS, Node
from ..tar.acl import ACCESS, mode_without_acl

__all__ = ["OVERRIDE_STAT", "can_hold", "override_stat", "override_xattrs"]

OVERRIDE_STAT = b"user.containers.override_stat"
_PREFIX = b"user.containers.override_"
_TYPES = {"file": b"file", "dir": b"dir"}
# Bytes of an extended attribute's name (XATTR_NAME_MAX).
_MAX_NAME = 255


def can_hold(node: Node) -> bool:
    """Say whether a file is of a type that can have the attribute."""
    return node.kind in _TYPES


def override_stat(node: Node) -> bytes:
    """Return the value of the attribute: ``UID:GID:MODE:TYPE``, of less than 64 bytes."""
    mode = node.mode
    if node.xattrs and ACCESS in node.xattrs:  # which is not recorded
        mode = mode_without_acl(mode, node.xattrs[ACCESS])
    return b"%d:%d:%04o:%b" % (node.uid, node.gid, mode, _TYPES[node.kind])


def override_xattrs(node: Node) -> tuple[dict[bytes, bytes], int]:
    """Return the extended attributes that a file or directory gets, with the record among them.

    Args:
        node: as it would be written by root.

    Returns:
        The attributes that an ordinary user can set, and how many others are lost.
    """
    made, lost = {OVERRIDE_STAT: override_stat(node)}, 0
    for name, value in (node.xattrs or {}).items():
        if name.startswith(HOST_XATTRS):
            continue
        if name.startswith(b"user.containers.override_"):
            lost += 1  # which the image may not say of itself
        elif name.startswith(b"user."):
            made[name] = value
        elif name.startswith(b"security.") and len(_PREFIX + name) <= _MAX_NAME:
            made[_PREFIX + name] = value
        else:
            lost += 1
    return made, lost
