"""Members of a gzip file (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from ..errors import MalformedImage
from .units import FIRST, Decompressor, Input

__all__ = ["MAGIC", "gzip_member", "take_header"]

#: The magic number of a member.
MAGIC = b"\x1f\x8b"

# A header without optional fields, and the flags of the optional fields.
_HEADER = MAGIC + b"\x08\0\0\0\0\0\0\xff"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16


def take_header(source: Input) -> bytes | None:
    """Consume a member's header (RFC 1952, 2.3); return one without the optional fields.

    isal misreads some optional fields that span two chunks, and ignores reserved flags, for which
    RFC 1952, 2.3.1.2, requires "a compliant decompressor" to "give an error".
    """
    first = b"".join(source.iter_chunks(len(_HEADER)))
    flags = first[3]
    if first[2] != 8 or flags & 0xE0:
        raise MalformedImage("malformed gzip data: unknown method or flags")
    crc = zlib.crc32(first)

    def read(size: int) -> bytes:
        nonlocal crc
        last = b""
        for piece in source.iter_chunks(size):
            crc = zlib.crc32(piece, crc)
            last = (last + bytes(piece[-2:]))[-2:]
        return last

    if flags & _EXTRA:
        read(int.from_bytes(read(2), "little"))
    for flag in (_NAME, _COMMENT):
        ended = not flags & flag
        while not ended:
            piece = bytes(source.take(FIRST))
            end = piece.find(0) + 1
            source.take_back(len(piece) - end if end else 0)
            crc = zlib.crc32(piece[:end] if end else piece, crc)
            ended = bool(end)
    found = crc & 0xFFFF
    if flags & _HEADER_CRC and int.from_bytes(read(2), "little") != found:
        raise MalformedImage("malformed gzip data: header checksum mismatch")
    return _HEADER


def gzip_member() -> Callable[[], Decompressor]:
    """Return a function that creates a decompressor of a member."""
    try:
        from isal import igzip_lib
    except ImportError:
        return _ZlibMember
    return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class _ZlibMember:
    """A gzip member through the standard library's zlib."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail or data, max_length)
