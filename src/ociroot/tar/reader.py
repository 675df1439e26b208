"""From the bytes of a tar archive to its entries.

Reads what archivers have written since 1979: V7, ustar and pax (POSIX.1-2017, pax), GNU tar's long
names, base-256 numbers and sparse files, star's prefix. Where two readers could see two different
archives in the same bytes, the input is refused rather than guessed at.

The loop in :func:`entries` is the hot one of the whole program: one ``unpack_from`` a header, and
what repeats from header to header (modes, owners, times) is remembered rather than decoded again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import Literal

from ..errors import MalformedImage, OcirootError, Unsupported, quoted
from ..limits import DEFAULTS, Limits
from . import sparse
from .numbers import decimal, number, seconds
from .pax import XATTR, Records, parse_records
from .stream import BLOCK, Stream, read

__all__ = ["Entry", "Kind", "entries"]

Kind = Literal["file", "dir", "symlink", "link", "char", "block", "fifo"]

# name, mode+uid+gid, size, mtime, checksum, type, linkname, magic+version, devmajor, devminor,
# prefix; uname and gname are ignored (layer.md, "File Attributes": "uname should be ignored").
_HEADER = Struct("100s 24s 12s 12s 8s c 100s 8s 64x 8s 8s 155s 12x")
_ZEROS = bytes(BLOCK)
_KINDS: dict[bytes, Kind] = {
    b"\0": "file",  # V7
    b"0": "file",
    b"1": "link",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
    b"7": "file",  # contiguous: "may be treated as a regular file"
    b"D": "dir",  # GNU: a directory, with a list of names as its data
    b"S": "file",  # GNU: sparse
}
# Types whose size field speaks of no data in the archive, whatever it says.
_WITHOUT_DATA = frozenset(b"123456")
_REMEMBERED = 4096
_MAX_ID = (1 << 32) - 2
# Linux's XATTR_NAME_MAX.
_MAX_XATTR_NAME = 255


class Entry:
    """One entry of an archive: what its headers say, decoded and checked.

    Attributes:
        name: as it stands in the archive; nothing has been resolved or cleaned.
        kind: the type of file.
        mode: the permission, set-id and sticky bits.
        uid: the owner, 0 to 2^32-2.
        gid: the group, 0 to 2^32-2.
        mtime_ns: the modification time, in nanoseconds since 1970.
        size: bytes of the file, holes included.
        stored: bytes of data that follow the header in the archive.
        target: what a symbolic or a hard link points to.
        rdev: major and minor number of a device.
        xattrs: extended attributes by name, or None.
        segments: for a sparse file, where the stored bytes belong; otherwise None.
        offset: where its first header begins, in bytes of the uncompressed archive.
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
        "stored",
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
    stored: int
    target: bytes
    rdev: tuple[int, int]
    xattrs: dict[bytes, bytes] | None
    segments: sparse.Segments | None
    offset: int

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {quoted(self.name)}>"


def entries(stream: Stream, limits: Limits = DEFAULTS) -> Iterator[Entry]:
    """Read an archive entry by entry.

    Args:
        stream: the archive. While an entry is in hand its ``stored`` bytes can be read from the
            stream; what of them is not read is skipped.
        limits: on what one entry may ask for.

    Yields:
        Each entry in the order of the archive, up to its end marker or its end.

    Raises:
        MalformedImage: the archive breaks a rule of the format, with the offset.
        Unsupported: an entry of a type that is no file of a root file system.
        LimitExceeded: an entry with extensions, a path, a file or attributes that are too large.
    """
    place = _Place()
    try:
        yield from _entries(stream, place, limits)
    except OcirootError as error:
        raise error.locate(member=place.name, offset=place.offset) from error.__cause__


class _Place:
    """Where the reader is, for messages."""

    offset = 0
    name: bytes | None = None


def _entries(stream: Stream, place: _Place, limits: Limits) -> Iterator[Entry]:
    unpack = _HEADER.unpack_from
    adler32 = zlib.adler32
    owners: dict[bytes, tuple[int, int, int]] = {}
    times: dict[bytes, int] = {}
    global_records: Records = {}
    # What all entries have in common, that bring no records of their own.
    shared_xattrs: dict[bytes, bytes] | None = None
    shared_others: Records = {}
    records: Records = {}
    repeated: list[tuple[bytes, bytes]] = []
    long_name = long_target = None
    start = None  # where the first of an entry's headers began
    extended = 0  # bytes of them

    while True:
        place.offset, place.name = stream.position, None
        found = stream.block()
        if found is None:
            if start is not None:
                raise MalformedImage("the archive ends between an extended header and its entry")
            return
        block, at = found
        (name, owner, size, mtime, checksum, flag, target, magic, major, minor, prefix) = unpack(
            block, at
        )

        if not name[0] and block[at : at + BLOCK] == _ZEROS:
            # POSIX: "At the end of the archive file there shall be two 512-octet logical records
            # filled with binary zeros". Many archives end after one, or after none.
            following = stream.block()
            if following is not None:
                block, at = following
                if block[at : at + BLOCK] != _ZEROS:
                    raise MalformedImage("a block of zeros that is not the end of the archive")
            if start is not None:
                raise MalformedImage("the archive ends between an extended header and its entry")
            return

        # adler32's low half is 1 plus the sum of the bytes, modulo 65521, which half a header does
        # not reach; POSIX's checksum counts its own eight bytes as spaces.
        view = memoryview(block)[at : at + BLOCK]
        total = (adler32(view[:256]) & 0xFFFF) + (adler32(view[256:]) & 0xFFFF) - 2
        total += 256 - sum(checksum)
        if number(checksum, "checksum") != total:
            _verify_checksum(view, checksum)

        name = name[: name.index(0)] if 0 in name else name
        place.name = name
        stored = number(size, "size")
        if stored < 0:
            raise MalformedImage(f"an impossible size: {stored}")

        if flag in b"xgXLK":
            # An extension of the header that follows it (x, X, L, K) or of all that follow (g).
            start = place.offset if start is None else start
            extended += stored
            limits.check("extension", extended)
            content = read(stream, stored)
            stream.skip_padding(-stored % BLOCK)
            if flag == b"L":
                long_name = content.split(b"\0", 1)[0]
            elif flag == b"K":
                long_target = content.split(b"\0", 1)[0]
            elif flag == b"g":
                global_records.update(parse_records(content)[0])
                limits.check("extension", sum(map(len, global_records.values())))
                shared_xattrs = _xattrs(global_records, limits)
                shared_others = {
                    keyword: value
                    for keyword, value in global_records.items()
                    if value and not keyword.startswith(XATTR)
                }
                if not (records or long_name or long_target):
                    start, extended = None, 0
            else:
                more, runs = parse_records(content)
                records.update(more)
                repeated += runs
            continue
        if flag == b"V":  # a volume label is no file
            stream.skip(stored + -stored % BLOCK)
            continue

        entry = Entry()
        entry.offset = place.offset if start is None else start
        kind = _KINDS.get(flag)
        if kind is None:
            raise Unsupported(f"an entry of type {flag!r}")
        entry.kind = kind

        if magic[:6] == b"ustar\0" and prefix[0]:
            # star keeps two times at the end of the prefix.
            if block[at + 508 : at + 512] == b"tar\0":
                prefix = prefix[:131]
            name = (prefix[: prefix.index(0)] if 0 in prefix else prefix) + b"/" + name
        entry.target = target[: target.index(0)] if 0 in target else target
        if owner not in owners:
            if len(owners) > _REMEMBERED:
                owners.clear()
            owners[owner] = (
                number(owner[:8], "mode") & 0o7777,
                number(owner[8:16], "uid"),
                number(owner[16:], "gid"),
            )
        entry.mode, entry.uid, entry.gid = owners[owner]
        if mtime not in times:
            if len(times) > _REMEMBERED:
                times.clear()
            times[mtime] = number(mtime, "mtime") * 1_000_000_000
        entry.mtime_ns = times[mtime]
        entry.xattrs = None
        entry.segments = None

        if records or global_records:
            merged = {**global_records, **records} if records else shared_others
            # POSIX: an empty value "shall delete any header block field, previously entered
            # extended header value, or global extended header value".
            merged = {
                keyword: value for keyword, value in merged.items() if value or XATTR in keyword
            }
            name, stored = _apply(entry, name, stored, merged)
            # Those of a global header are the same object for all entries that have no others.
            entry.xattrs = _xattrs(merged, limits) if records else shared_xattrs
        else:
            merged = records
        if long_name is not None:
            name = long_name
        if long_target is not None:
            entry.target = long_target
        place.name = name
        entry.name = name
        if len(name) > limits.path or len(entry.target) > limits.path:
            limits.check("path", max(len(name), len(entry.target)))

        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise MalformedImage(f"an impossible owner: {entry.uid}:{entry.gid}")
        entry.rdev = (0, 0)
        if kind == "char" or kind == "block":
            entry.rdev = (number(major, "major number"), number(minor, "minor number"))
            # The kernel's device numbers have 12 and 20 bits.
            if not (0 <= entry.rdev[0] < 1 << 12 and 0 <= entry.rdev[1] < 1 << 20):
                raise MalformedImage("an impossible device number: {}:{}".format(*entry.rdev))
        if flag[0] in _WITHOUT_DATA:
            stored = 0
        elif flag == b"\0" and name.endswith(b"/"):
            entry.kind = "dir"  # V7 has no type for directories

        padding = -stored % BLOCK
        entry.size = stored
        if flag == b"S":
            entry.segments, entry.size = sparse.old_gnu(bytes(view), stream, stored, limits)
        elif merged and entry.kind == "file" and sparse.is_sparse(merged):
            if b"GNU.sparse.major" in merged:
                entry.segments, entry.size, stored = sparse.from_stream(
                    merged, stream, stored, limits
                )
            else:
                entry.segments, entry.size = sparse.from_pax(merged, repeated, stored, limits)
        if entry.size > limits.file_size:
            raise limits.exceeded("file_size", entry.size)
        entry.stored = stored if entry.kind == "file" else 0
        end = stream.position + stored

        yield entry

        stream.skip(end - stream.position)
        stream.skip_padding(padding)
        if records:
            records = {}
        repeated = []
        long_name = long_target = start = None
        extended = 0


def _verify_checksum(view: memoryview, checksum: bytes) -> None:
    """Add up the header's bytes exactly; some old archivers added them as signed ones."""
    plain = bytes(view[:148]) + b" " * 8 + bytes(view[156:])
    unsigned = sum(plain)
    signed = unsigned - 256 * sum(byte > 127 for byte in plain)
    if number(checksum, "checksum") not in (unsigned, signed):
        raise MalformedImage(
            f"a bad header checksum: {number(checksum, 'checksum')}, the bytes add up to {unsigned}"
        )


def _apply(entry: Entry, name: bytes, stored: int, records: Records) -> tuple[bytes, int]:
    """Put what pax records say over what the header said; return the name and the stored size."""
    for keyword, value in records.items():
        if keyword == b"path":
            name = value
        elif keyword == b"linkpath":
            entry.target = value
        elif keyword == b"size":
            stored = decimal(value, "size")
            if stored < 0:
                raise MalformedImage(f"an impossible size: {stored}")
        elif keyword == b"uid":
            entry.uid = decimal(value, "uid")
        elif keyword == b"gid":
            entry.gid = decimal(value, "gid")
        elif keyword == b"mtime":
            entry.mtime_ns = seconds(value, "mtime")
    return records.get(b"GNU.sparse.name", name), stored


def _xattrs(records: Records, limits: Limits) -> dict[bytes, bytes] | None:
    """Return the extended attributes that pax records bring; None: there are none."""
    found: dict[bytes, bytes] = {}
    for keyword, value in records.items():
        if not keyword.startswith(XATTR):
            continue
        name = keyword[len(XATTR) :]
        if not name:
            raise MalformedImage("an extended attribute without a name")
        if len(name) > _MAX_XATTR_NAME:
            raise MalformedImage(f"an extended attribute's name of {len(name)} bytes")
        if len(value) > limits.xattr_size:
            raise limits.exceeded("xattr_size", len(value))
        found[name] = value
    if len(found) > limits.xattrs:
        raise limits.exceeded("xattrs", len(found))
    return found or None
