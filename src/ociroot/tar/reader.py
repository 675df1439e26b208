"""Decode the bytes of a tar archive into entries.

Supported formats: V7, ustar and pax (POSIX.1-2017, pax), GNU tar's long names, base-256 numbers and
sparse files, and star's prefix. Input that readers interpret differently is refused.

The loop in :func:`entries` is the hottest of the program: it calls ``unpack_from`` once per header
and caches decoded fields that repeat between headers (modes, owners, times).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from ..errors import MalformedImage, OcirootError, Unsupported
from ..limits import Limits
from . import sparse
from .counting import Counted
from .entry import Entry, Kind
from .extensions import Extensions
from .numbers import number
from .stream import BLOCK, Stream

__all__ = ["SLASH", "entries"]

# name, mode+uid+gid, size, mtime, checksum, type.
_HEADER = Struct("100s 24s 12s 12s 8s c")
# The rest is the same in most headers: linkname, magic+version, devmajor, devminor, prefix; uname
# and gname are ignored (layer.md, "File Attributes": "uname should be ignored").
_TAIL = Struct("100s 8s 64x 8s 8s 155s 12x")
_TAIL_AT = _HEADER.size
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
# Types without data in the archive, whatever their size field.
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
#: All readers treat a V7 file with such a name as a directory. For other types, GNU tar and bsdtar
#: read a directory without data, and Go's reader, which containerd, podman and umoci use, a file
#: with data: one reads headers where the other reads data.
SLASH = "a regular file whose name ends in a slash; readers disagree on what it is"
_GNU_TIME = re.compile(rb" *[0-7]+[ \0]?|[\x80-\xff].*|\0.*", re.DOTALL)
_REMEMBERED = 4096
_MAX_ID = (1 << 32) - 2


def entries(stream: Stream, limits: Limits, counted: Counted | None = None) -> Iterator[Entry]:
    """Read an archive entry by entry.

    Args:
        stream: the archive. Before the next entry is requested, the caller may read the entry's
            ``stored_size`` bytes from the stream; the rest is skipped.
        limits: bound each entry.
        counted: the counter of all archives that are read in one pass; None: this is the only one.

    Yields:
        Each entry in the order of the archive, up to the end marker or the end of the stream.

    Raises:
        MalformedImage: the archive violates the format, with the offset.
        Unsupported: an entry of a type that a root file system does not have.
        LimitExceeded: an entry with extensions, a path, a file or attributes that are too large.
    """
    unpack = _HEADER.unpack_from
    adler32 = zlib.adler32
    block_of, advance = stream.block, stream.advance
    sums, sizes, owners, times = (
        _Remembered(decode) for decode in (_expected_sum, _size, _owner, _time)
    )
    kinds, longest, largest = _KINDS, limits.path, limits.file_size
    counted = Counted() if counted is None else counted
    extensions = Extensions(limits, counted)
    tail, front, target, major, minor, tail_sum = b"", b"", b"", b"", b"", 0
    offset = stream.position
    member: bytes | None = None
    try:
        while True:
            found = block_of()
            if found is None:
                extensions.check_end()
                return
            block, at = found
            name, owner, size, mtime, checksum, flag = unpack(block, at)
            if not name[0] and block[at : at + BLOCK] == _ZEROS:
                _check_end(stream)
                extensions.check_end()
                return

            if block[at + _TAIL_AT : at + BLOCK] != tail:
                tail = block[at + _TAIL_AT : at + BLOCK]
                front, target, major, minor = _tail(tail, flag)
                tail_sum = _sum(tail[:250]) + _sum(tail[250:])
            # The low half of adler32 is 1 plus the sum of the bytes modulo 65521; a part of a
            # header sums to less than that.
            if (adler32(block[at : at + _TAIL_AT]) & 0xFFFF) + tail_sum != sums[checksum]:
                _verify_checksum(block[at : at + BLOCK], checksum)

            member = name = name.split(b"\0", 1)[0]
            stored = sizes[size]
            kind = kinds.get(flag)
            if kind is None:
                if flag in b"VgX" and b".wh." in front + name:
                    # Readers in Go (containerd, umoci) recognise whiteouts by name alone, and
                    # treat these types as entries.
                    raise MalformedImage(f"a header of type {flag!r} with the name of a whiteout")
                if flag == b"V":
                    extensions.pass_over("a volume label")
                    if stored:
                        # GNU tar skips the data; bsdtar reads it as the next header.
                        raise MalformedImage(f"a volume label with {stored} bytes of data")
                elif flag in b"xgXLK":
                    extensions.take(flag, stream, offset, stored)
                else:
                    raise Unsupported(f"an entry of type {flag!r}")
                offset, member = stream.position, None
                continue

            entry = Entry()
            entry.offset = offset
            entry.kind = kind
            if front:
                name = front + name
            entry.target = target
            entry.mode, entry.uid, entry.gid = owners[owner]
            entry.mtime_ns = times[mtime]
            entry.xattrs = entry.segments = None
            entry.rdev = (0, 0)
            if extensions.any:
                name, stored = extensions.apply(entry, flag, name, stored)
            entry.name = member = name
            if len(name) > longest:
                raise limits.exceeded("path", len(name))
            if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
                raise MalformedImage(f"invalid owner: {entry.uid}:{entry.gid}")
            if kind == "char" or kind == "block":
                entry.rdev = _device(major, minor)
            if flag in _WITHOUT_DATA:
                stored = 0
            elif name[-1:] == b"/" and kind == "file":
                if flag == b"\0":  # V7 has no type for directories
                    kind = entry.kind = "dir"
                    stored = 0
                elif stored:
                    raise MalformedImage(SLASH)

            padding = -stored % BLOCK
            entry.size = stored
            end = offset + BLOCK + stored
            if flag == b"S":
                header = block[at : at + BLOCK]
                counted.entry()
                tail = b""  # the same bytes have another meaning in an entry of another type
                entry.segments, entry.size = sparse.old_gnu(header, stream, stored, limits, counted)
                end = stream.position + stored
            elif extensions.any and kind == "file":
                stored = extensions.sparse(entry, stream, stored)
            if entry.size > largest:
                raise limits.exceeded("file_size", entry.size)
            entry.stored_size = stored if kind == "file" else 0

            yield entry

            advance(end, padding)
            if extensions.any:
                extensions.forget()
            offset, member = end + padding, None
    except OcirootError as error:
        if member is not None and extensions.any:
            offset = extensions.start  # entry.offset: where its first extended header begins
        raise error.locate(member=member, offset=offset) from error.__cause__


class _Remembered(dict[bytes, Any]):
    """A bounded cache of decoded fields: most values occur in many headers."""

    def __init__(self, decode: Callable[[bytes], object]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, field: bytes) -> Any:
        if len(self) > _REMEMBERED:
            self.clear()
        value = self[field] = self._decode(field)
        return value


def _tail(tail: bytes, flag: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the prefix of the name, the link's target, the major and the minor number.

    The numbers are empty if the header is neither POSIX's nor GNU's: it has none.
    """
    target, magic, major, minor, prefix = _TAIL.unpack(tail)
    front = b""
    if magic == sparse.GNU_MAGIC:
        # The real size of a sparse file; bsdtar applies it to any file.
        if prefix[138:150].strip(b"\0") and flag != b"S":
            raise MalformedImage("the real size of a sparse file on another type of entry")
    elif magic[:6] != b"ustar\0":
        major = minor = b""
    if prefix[0] and magic[:5] == b"ustar":
        if magic[:6] == b"ustar\0":
            # star stores two times at the end of the prefix, after a NUL.
            if tail[-4:] == b"tar\0" and prefix[130]:
                raise MalformedImage("star's prefix is too long; readers disagree on its end")
            front = prefix.split(b"\0", 1)[0] + b"/"
        else:
            _check_no_prefix(magic, prefix)
    return front, target.split(b"\0", 1)[0], major, minor


def _check_no_prefix(magic: bytes, prefix: bytes) -> None:
    """Refuse what some readers treat as a prefix and others do not.

    GNU's old headers have no prefix: incremental archives store access and change times there. Go's
    reader, which containerd, podman and umoci use, still treats the field as a prefix if these are
    not numbers ("some old Go writers"), and Python's always does. So they must be what GNU tar
    writes: digits that fill the field, base-256, or empty fields; none of these reads as text. With
    another version, bsdtar reads a prefix and others do not.
    """
    times = (prefix[:12], prefix[12:24])
    if magic != sparse.GNU_MAGIC or not all(map(_GNU_TIME.fullmatch, times)):
        raise MalformedImage(
            "a prefix before the name under GNU's magic; readers disagree on whether it is one"
        )


def _sum(part: bytes) -> int:
    """Return the low half of adler32 of a part of a header."""
    return zlib.adler32(part) & 0xFFFF


def _expected_sum(checksum: bytes) -> int:
    """Return the sum of the three adler32 low halves for a header with this checksum.

    POSIX's checksum counts its own eight bytes as spaces; each adler32 begins with 1.
    """
    return number(checksum, "checksum") + sum(checksum) - 8 * 32 + 3


def _size(field: bytes) -> int:
    value = number(field, "size")
    if value < 0:
        raise MalformedImage(f"invalid size: {value}")
    return value


def _owner(field: bytes) -> tuple[int, int, int]:
    return (
        number(field[:8], "mode") & 0o7777,
        number(field[8:16], "uid"),
        number(field[16:], "gid"),
    )


def _time(field: bytes) -> int:
    return number(field, "mtime") * 1_000_000_000


def _device(major: bytes, minor: bytes) -> tuple[int, int]:
    if not major:
        # Some readers still decode the numbers, Go's reads 0:0.
        raise MalformedImage("a device in a header that is neither POSIX nor GNU format")
    numbers = (number(major, "major number"), number(minor, "minor number"))
    # The kernel's device numbers have 12 and 20 bits.
    if not (0 <= numbers[0] < 1 << 12 and 0 <= numbers[1] < 1 << 20):
        raise MalformedImage("invalid device number: {}:{}".format(*numbers))
    return numbers


def _check_end(stream: Stream) -> None:
    """Check the block after a block of zeros.

    POSIX: "At the end of the archive file there shall be two 512-octet logical records filled with
    binary zeros". Many archives end after one, or after none.
    """
    following = stream.block()
    if following is not None:
        block, at = following
        if block[at : at + BLOCK] != _ZEROS:
            raise MalformedImage("a block of zeros that is not the end of the archive")


def _verify_checksum(header: bytes, checksum: bytes) -> None:
    """Verify the checksum exactly; some old archivers summed signed bytes."""
    plain = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(plain)
    signed = unsigned - 256 * sum(byte > 127 for byte in plain)
    if number(checksum, "checksum") not in (unsigned, signed):
        raise MalformedImage(
            f"header checksum mismatch: {number(checksum, 'checksum')} is stored, the sum of the "
            f"bytes is {unsigned}"
        )
