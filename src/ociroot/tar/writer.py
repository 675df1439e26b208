"""From entries to the headers of a tar archive that all readers interpret alike.

POSIX.1-2017, pax: the "ustar Interchange Format" where it suffices, and an extended header ("pax
Extended Header") only for what it cannot express. Where readers differ, tests with GNU tar, bsdtar
and Python's reader decided:

- A name that fits is written to the ustar header as it is, whatever its bytes: all readers keep it.
  bsdtar converts a ``path`` record from UTF-8 to its locale, and fails in the C locale, unless
  there is ``hdrcharset=BINARY``.
- A number that does not fit its octal field is written as a pax record, never as base-256. The
  field has the nearest value, so that no reader without pax takes the owner to be root.
- An ACL is written twice: as text with numeric IDs for GNU tar, bsdtar and star (``SCHILY.acl.*``),
  and as the kernel's value for mkfs.erofs and programs in Go (``SCHILY.xattr.*``).
- A hard link has the attributes of its inode, without extended attributes: mke2fs applies the last
  header of an inode.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Protocol

from . import acl
from .entry import Kind
from .pax import XATTR
from .sparse import Segments
from .stream import BLOCK

__all__ = ["HeaderWriter", "Metadata", "end_of_archive"]

#: Bytes of a record: GNU tar and bsdtar pad archives to a multiple of it.
RECORD = 20 * BLOCK

_FLAGS: dict[Kind, bytes] = {
    "file": b"0",
    "link": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_MAX_NAME, _MAX_PREFIX = 100, 155
_MAX_8, _MAX_12 = (1 << 21) - 1, (1 << 33) - 1  # 7 and 11 octal digits
_BILLION = 10**9
# Magic and version, and empty uname and gname, so that readers use the numeric IDs.
_MAGIC = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\0"
_NO_PREFIX = bytes(_MAX_PREFIX)
_NO_TARGET = bytes(_MAX_NAME)
_REST = bytes(12)
_ZERO_SIZE = b"00000000000\0"
# As Python's tarfile names it: constant, and never the name of a file.
_PAX_NAME = b"././@PaxHeader".ljust(_MAX_NAME, b"\0")
_PAX_OWNER = b"0000644\x000000000\x000000000\0"
_REMEMBERED = 4096


class Metadata(Protocol):
    """The attributes of an inode that a header needs; entries and nodes have them."""

    @property
    def kind(self) -> Kind:
        """The type of file."""

    @property
    def mode(self) -> int:
        """The permission, set-id and sticky bits."""

    @property
    def uid(self) -> int:
        """The owner."""

    @property
    def gid(self) -> int:
        """The group."""

    @property
    def mtime_ns(self) -> int:
        """The modification time, in nanoseconds since 1970."""

    @property
    def size(self) -> int:
        """Bytes of a regular file, holes included."""

    @property
    def target(self) -> bytes:
        """What a symbolic or a hard link points to."""

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor number of a device."""

    @property
    def xattrs(self) -> dict[bytes, bytes] | None:
        """Extended attributes by name, or None."""

    @property
    def segments(self) -> Segments | None:
        """Where in a sparse file the stored bytes belong, or None."""


class HeaderWriter:
    """Makes the headers of entries. Encoded owners and times are cached."""

    def __init__(self, *, sparse: bool = False) -> None:
        """Begin an archive.

        Args:
            sparse: whether sparse files are written as such (GNU's pax format 1.0) or expanded,
                which all readers support.
        """
        self._sparse = sparse
        self._owners: dict[tuple[int, int, int], bytes] = {}
        self._times: dict[int, tuple[bytes, bytes]] = {}

    def stored_size(self, node: Metadata) -> int:
        """Return how many bytes of a regular file's content follow its header."""
        if self._sparse and node.segments is not None:
            return sum(length for _, length in node.segments)
        return node.size

    def header(self, name: bytes, node: Metadata, link: bytes | None = None) -> bytes:
        """Return the headers of an entry, with the map of a sparse file.

        Args:
            name: its name: not empty, without NUL, and with a trailing slash for a directory.
            node: the inode.
            link: the first name of the inode, if this is a hard link to it.

        Returns:
            Whole blocks. :meth:`stored_size` bytes of data follow, padded to a block.
        """
        kind: Kind = "link" if link is not None else node.kind
        target = node.target if link is None else link
        records: list[tuple[bytes, bytes]] = []
        front = before = b""
        size = 0
        if kind == "file":
            size = node.size
            if self._sparse and node.segments is not None:
                before, size = _sparse_map(node.segments, size), self.stored_size(node)
                size += len(before)
                records += _sparse_records(name, node.size)
                # As GNU tar does: readers without support get the map under another name.
                last = name.rpartition(b"/")[2]
                name = b"GNUSparseFile.0/" + (last[:80] if last.isascii() else b"file")
        if len(name) > _MAX_NAME or not name.isascii():
            name, front = _name(name, records)
        if target and (len(target) > _MAX_NAME or not target.isascii()):
            target = _target(target, records)
        owner = self._owners.get((node.mode, node.uid, node.gid)) or self._owner(node)
        if node.uid > _MAX_8:
            records.append((b"uid", b"%d" % node.uid))
        if node.gid > _MAX_8:
            records.append((b"gid", b"%d" % node.gid))
        time, record = self._times.get(node.mtime_ns) or self._time(node.mtime_ns)
        if record:
            records.append((b"mtime", record))
        if size > _MAX_12:
            records.append((b"size", b"%d" % size))
        if node.xattrs and kind != "link":
            records += _xattr_records(node.xattrs)
        device = _NO_DEVICE
        if kind == "char" or kind == "block":
            device = b"%07o\0%07o\0" % node.rdev
        start = name.ljust(_MAX_NAME, b"\0") + owner + _octal_12(size) + time
        head = _block(start, _FLAGS[kind], target, device, front)
        return _extended(records) + head + before if records else head + before

    def _owner(self, node: Metadata) -> bytes:
        if len(self._owners) > _REMEMBERED:
            self._owners.clear()
        uid, gid = min(node.uid, _MAX_8), min(node.gid, _MAX_8)
        text = b"%07o\0%07o\0%07o\0" % (node.mode, uid, gid)
        self._owners[node.mode, node.uid, node.gid] = text
        return text

    def _time(self, nanoseconds: int) -> tuple[bytes, bytes]:
        """Return a time as the header has it, and as a record if it does not fit."""
        if len(self._times) > _REMEMBERED:
            self._times.clear()
        whole, fraction = divmod(nanoseconds, _BILLION)
        record = b"" if not fraction and 0 <= whole <= _MAX_12 else _seconds(nanoseconds)
        self._times[nanoseconds] = _octal_12(max(whole, 0)), record
        return self._times[nanoseconds]


def end_of_archive(position: int) -> bytes:
    """Return the end of an archive.

    POSIX: "two 512-octet logical records filled with binary zeros", padded to a record.

    Args:
        position: bytes before it.
    """
    return bytes(2 * BLOCK + -(position + 2 * BLOCK) % RECORD)


def _octal_12(value: int) -> bytes:
    return b"%011o\0" % min(value, _MAX_12) if value else _ZERO_SIZE


def _block(start: bytes, flag: bytes, target: bytes, device: bytes, front: bytes) -> bytes:
    """Return a header block with its checksum.

    Args:
        start: the fields before the checksum.
        flag: the type.
        target: the link's target.
        device: major and minor number.
        front: the prefix of the name.
    """
    # adler32's low half is 1 plus the sum of the bytes modulo 65521, exact for 256 bytes.
    total = (zlib.adler32(start) & 0xFFFF) + flag[0] + _SUM_OF_THE_REST
    middle = _NO_TARGET
    if target:
        middle = target.ljust(_MAX_NAME, b"\0")
        total += (zlib.adler32(middle) & 0xFFFF) - 1
    if device is not _NO_DEVICE:
        total += sum(device) - _SUM_OF_NO_DEVICE
    end = _NO_PREFIX
    if front:
        end = front.ljust(_MAX_PREFIX, b"\0")
        total += (zlib.adler32(end) & 0xFFFF) - 1
    return b"%b%06o\0 %b%b%b%b%b%b" % (start, total, flag, middle, _MAGIC, device, end, _REST)


_SUM_OF_NO_DEVICE = sum(_NO_DEVICE)
# The checksum field counts as eight spaces; adler32 adds 1.
_SUM_OF_THE_REST = 8 * 32 - 1 + sum(_MAGIC) + _SUM_OF_NO_DEVICE


def _name(name: bytes, records: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return name and prefix for the header; add a record if the name does not fit."""
    if _is_utf8(name):
        if len(name) <= _MAX_NAME:
            return name, b""
        at = name.find(b"/", len(name) - 1 - _MAX_NAME, -1)
        if 0 < at <= _MAX_PREFIX:
            return name[at + 1 :], name[:at]
    _add_text(records, b"path", name)
    return name[:_MAX_NAME], b""


def _target(target: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    if len(target) > _MAX_NAME or not _is_utf8(target):
        _add_text(records, b"linkpath", target)
    return target[:_MAX_NAME]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _add_text(records: list[tuple[bytes, bytes]], keyword: bytes, text: bytes) -> None:
    """Add a record of text, with ``hdrcharset=BINARY`` before it if it is not ASCII."""
    binary = (b"hdrcharset", b"BINARY")
    if not text.isascii() and binary not in records:
        records.insert(0, binary)
    records.append((keyword, text))


def _seconds(nanoseconds: int) -> bytes:
    whole, fraction = divmod(abs(nanoseconds), _BILLION)
    text = b"-%d" % whole if nanoseconds < 0 else b"%d" % whole
    return b"%b.%09d" % (text, fraction) if fraction else text


def _xattr_records(xattrs: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the records of extended attributes, sorted, with ACLs as text too."""
    records: list[tuple[bytes, bytes]] = []
    for keyword, name in acl.KEYWORDS.items():
        text = acl.to_text(xattrs.get(name, b""))
        if text:
            records.append((keyword, text))
    records += [(XATTR + name, xattrs[name]) for name in sorted(xattrs)]
    return records


def _sparse_records(name: bytes, size: int) -> list[tuple[bytes, bytes]]:
    records: list[tuple[bytes, bytes]] = []
    records += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
    _add_text(records, b"GNU.sparse.name", name)
    records.append((b"GNU.sparse.realsize", b"%d" % size))
    return records


def _sparse_map(segments: Segments, size: int) -> bytes:
    """Return the map of a sparse file, in whole blocks.

    GNU tar manual, "Storing Sparse Files", PAX Format, Version 1.0: the number of runs, then offset
    and size of each, one number a line. After a hole at the end an empty run is needed: GNU tar
    truncates the file there.
    """
    runs = list(segments)
    if not runs or runs[-1][0] + runs[-1][1] < size:
        runs.append((size, 0))
    text = b"%d\n" % len(runs) + b"".join(b"%d\n%d\n" % run for run in runs)
    return text + bytes(-len(text) % BLOCK)


def _extended(records: list[tuple[bytes, bytes]]) -> bytes:
    """Return a pax extended header with these records."""
    body = b"".join(_record(keyword, value) for keyword, value in records)
    start = _PAX_NAME + _PAX_OWNER + _octal_12(len(body)) + _ZERO_SIZE
    head = _block(start, b"x", b"", _NO_DEVICE, b"")
    return head + body + bytes(-len(body) % BLOCK)


def _record(keyword: bytes, value: bytes) -> bytes:
    """Return a record; its length includes the digits of the length."""
    length = len(keyword) + len(value) + 3
    whole = length + len(str(length))
    if len(str(whole)) > len(str(length)):
        whole += 1
    return b"%d %b=%b\n" % (whole, keyword, value)
