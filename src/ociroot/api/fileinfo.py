"""The attributes of a file in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from ..rootfs.nodes import Node
from ..tar.names import as_text

__all__ = ["FileInfo", "info_of"]


class FileInfo(msgspec.Struct, frozen=True):
    """The attributes of a file of any type.

    Attributes:
        kind: ``file``, ``dir``, ``symlink``, ``char``, ``block`` or ``fifo``.
        mode: the type of file and the permissions, as for :func:`stat.S_ISREG` and
            :func:`stat.filemode`.
        size: bytes of a regular file, holes included; of a symbolic link those of its target.
        uid: the owner.
        gid: the group.
        mtime_ns: the modification time, in nanoseconds since 1970.
        nlink: the number of names of a file that is not a directory.
        layer: the number of the layer that added it, from 1; for a directory, the last layer that
            added it or anything below it.
        target: the target of a symbolic link, else None.
        device: the major and minor number of a device, else None.
        xattrs: the extended attributes.
    """

    kind: Literal["file", "dir", "symlink", "char", "block", "fifo"]
    mode: int
    size: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int
    layer: int
    target: str | None
    device: tuple[int, int] | None
    xattrs: Mapping[str, bytes]


def info_of(node: Node) -> FileInfo:
    """Return the attributes of a node of the tree."""
    kind = node.kind
    assert kind != "link"  # noqa: S101 - no node is one
    xattrs = node.xattrs or {}
    return FileInfo(
        kind,
        node.st_mode,
        len(node.target) if kind == "symlink" else node.size,
        node.uid,
        node.gid,
        node.mtime_ns,
        node.links,
        node.layer,
        as_text(node.target) if kind == "symlink" else None,
        node.rdev if kind in ("char", "block") else None,
        {as_text(name): value for name, value in xattrs.items()},
    )
