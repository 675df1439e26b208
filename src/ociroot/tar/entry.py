"""A decoded entry of a tar archive."""

from __future__ import annotations

import stat
from typing import Literal

from ..errors import quoted
from .sparse import Segments

__all__ = ["FILE_TYPES", "Entry", "Kind"]

Kind = Literal["file", "dir", "symlink", "link", "char", "block", "fifo"]

#: The type bits that stat(2) has in ``st_mode``; a hard link is to a file that is no directory.
FILE_TYPES: dict[Kind, int] = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "link": stat.S_IFREG,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


class Entry:
    """An entry of a tar archive, decoded from its headers and validated.

    Attributes:
        name: the path as in the archive, neither resolved nor normalised.
        kind: the file type.
        mode: the permission, set-id and sticky bits.
        uid: the owner, 0 to 2^32-2.
        gid: the group, 0 to 2^32-2.
        mtime_ns: the modification time, in nanoseconds since 1970.
        size: bytes of the file, holes included.
        stored_size: bytes of data that follow the header in the archive.
        target: the target of a symbolic or hard link.
        rdev: the major and minor number of a device.
        xattrs: extended attributes by name, or None. An ACL that the archive has as text is
            converted to the kernel's form. If it names users without their IDs, the text is kept
            under its pax keyword (``SCHILY.acl.access`` or ``SCHILY.acl.default``).
        segments: for a sparse file, where the stored bytes belong; otherwise None.
        offset: the offset of its first header, in bytes of the uncompressed archive.
    """

    __slots__ = (
        "gid",
        "kind",
        "mode",
        "mtime_ns",
        "name",
        "offset",
        "rdev",
        "segments",
        "size",
        "stored_size",
        "target",
        "uid",
        "xattrs",
    )

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    stored_size: int
    target: bytes
    rdev: tuple[int, int]
    xattrs: dict[bytes, bytes] | None
    segments: Segments | None
    offset: int

    @property
    def st_mode(self) -> int:
        """The mode with the file type, as stat(2) has it and ``stat.filemode`` takes it."""
        return FILE_TYPES[self.kind] | self.mode

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {quoted(self.name)}>"
