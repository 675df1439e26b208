"""Decompression, told by the first bytes: gzip and zstd, and for whole archives xz and bzip2.

For layers see layer.md, "+gzip Media Types" and "+zstd Media Types". A gzip file is a series of
members (RFC 1952, 2.2) and a zstd file one of frames, some to be skipped (RFC 8878, 3): pigz,
eStargz and zstd:chunked write many. A decompressor of any library stops at the end of its member or
frame, and says nothing of its own when the input ends before that: both are seen to here.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .errors import MalformedImage, Unsupported
from .limits import DEFAULTS, RATIO_FROM, UNIT, Limits

__all__ = ["CHUNK", "Meter", "decompress", "sniff"]

#: Bytes that are handed over at once, between threads and to the libraries. A quarter of it costs
#: a tenth more time, for the threads that wake each other; more of it gains nothing.
CHUNK = 1 << 20

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\0"
_BZIP2 = b"BZh"

# A gzip header without optional fields, and the flags of those that another may have.
_GZIP_HEADER = _GZIP + b"\x08\0\0\0\0\0\0\xff"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
# Bytes of a unit that the library gets first, and then four times as many each time.
_FIRST = 4 << 10


def _is_zstd(head: bytes | memoryview) -> bool:
    # RFC 8878, 3.1.2: skippable frames begin with 0x184D2A50 to 0x184D2A5F, little-endian.
    return head[:4] == _ZSTD or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50)


def sniff(head: bytes) -> str:
    """Tell a compression by the first bytes.

    Args:
        head: the first bytes, eight or more where there are as many.

    Returns:
        ``gzip``, ``zstd``, ``xz``, ``bzip2`` or ``none``.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if _is_zstd(head):
        return "zstd"
    if head.startswith(_XZ):
        return "xz"
    if head.startswith(_BZIP2) and head[4:8] in (b"1AY&", b"\x17\x72E8"):
        return "bzip2"
    return "none"


def decompress(
    compression: str,
    chunks: Iterator[bytes],
    limits: Limits = DEFAULTS,
    meter: Meter | None = None,
) -> Iterator[bytes]:
    """Decompress what arrives, without holding more than a few chunks of it.

    Args:
        compression: as :func:`sniff` says.
        chunks: the compressed bytes.
        limits: on the memory that decompressing takes, and on what comes out. The default window is
            what `zstd --ultra --long=27` uses, and twice what `xz -9` does.
        meter: what is decompressed in the same pass; None: this is all.

    Yields:
        The uncompressed bytes, at most ``CHUNK`` at a time.

    Raises:
        MalformedImage: broken or cut off.
        LimitExceeded: too large a window, or too much that comes out of too little.
    """
    if compression == "gzip":
        new, begins = _gzip_member(), _begins(_GZIP)
    elif compression == "zstd":
        new, begins = _zstd_frame(limits.window), _is_zstd
    elif compression == "xz":
        new, begins = _xz_stream(limits.window), _begins(_XZ[:4])
    elif compression == "bzip2":
        new, begins = _bzip2_stream(), _begins(_BZIP2)
    else:
        return chunks
    meter = Meter(limits) if meter is None else meter
    return _units(_Input(chunks, meter, compression), new, begins, meter)


class Meter:
    """What comes out of compressed data in one pass, held against what it comes out of.

    One is for all layers of an image: each of them may be the same few bytes. And what they are
    held against is what whoever sent the image had to send: where a compressed archive holds them,
    its size and not theirs.
    """

    def __init__(self, limits: Limits, stored: int | None = None) -> None:
        """Begin a pass.

        Args:
            limits: on what comes out.
            stored: bytes of all that it comes out of; None: what has been taken so far.
        """
        self.limits = limits
        self._stored = stored
        self._taken = self._given = self._units = 0

    def take(self, size: int) -> None:
        """Count compressed bytes."""
        self._taken += size

    def give(self, size: int) -> None:
        """Count uncompressed bytes.

        Raises:
            LimitExceeded: they are too many.
        """
        self._given += size
        if self._given > RATIO_FROM:
            stored = self._taken if self._stored is None else self._stored
            if self._given > stored * self.limits.ratio:
                raise self.limits.exceeded("ratio")

    def begin_unit(self) -> None:
        """Count a gzip member, zstd frame or the like.

        Raises:
            LimitExceeded: they are too many for what has come out of them. Each costs time, and may
                be of nine bytes that compress a thousandfold.
        """
        self._units += 1
        if self._units - self._given // UNIT > self.limits.units:
            raise self.limits.exceeded("units")


def _begins(magic: bytes) -> Callable[[memoryview], bool]:
    return lambda head: head[: len(magic)] == magic


class _Input:
    """Compressed bytes that arrive in chunks and are taken in slices.

    The libraries copy what follows the end of a member or frame. So they get it in slices, and what
    they do not use is taken back: it stays where it is, however many units a chunk has.
    """

    def __init__(self, chunks: Iterator[bytes], meter: Meter, compression: str) -> None:
        self._chunks = chunks
        self._meter = meter
        self.compression = compression
        self._view = memoryview(b"")
        self._at = 0

    def _next(self) -> bytes:
        chunk = next(self._chunks, b"")
        self._meter.take(len(chunk))
        return chunk

    def head(self, size: int) -> memoryview:
        """Return the next bytes without taking them; fewer at the end."""
        while len(self._view) - self._at < size and (chunk := self._next()):
            rest = self._view[self._at :]
            self._view, self._at = memoryview(b"".join((rest, chunk))), 0
        return self._view[self._at : self._at + size]

    def take(self, size: int) -> memoryview:
        """Take the next bytes: at least one, and at most so many.

        Raises:
            MalformedImage: there are none.
        """
        if self._at == len(self._view):
            self._view, self._at = memoryview(self._next()), 0
            if not self._view:
                raise MalformedImage(f"the {self.compression} data is truncated")
        data = self._view[self._at : self._at + size]
        self._at += len(data)
        return data

    def take_back(self, size: int) -> None:
        """Take back the end of what was taken last."""
        self._at -= size

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """Take exactly so many bytes.

        Raises:
            MalformedImage: there are fewer.
        """
        while size:
            piece = self.take(size)
            size -= len(piece)
            yield piece

    def check_padding(self) -> None:
        """Refuse anything but zeros up to the end."""
        while self.head(1):
            data = bytes(self.take(CHUNK))
            if data.count(0) != len(data):
                name = self.compression
                raise MalformedImage(f"data that is not {name} follows the {name} data")


class _Decompressor(Protocol):
    """What the libraries agree on, and the adapters below provide."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes: ...


def _units(
    source: _Input,
    new: Callable[[], _Decompressor],
    begins: Callable[[memoryview], bool],
    meter: Meter,
) -> Iterator[bytes]:
    """Decompress a series of members or frames."""
    # Between two of them: what comes is the next one, or the end. gzip(1) lets zeros follow, as
    # tapes and some tools pad with them.
    while begins(head := source.head(10)):
        meter.begin_unit()
        data: bytes | memoryview = b""
        if source.compression == "gzip":
            data = _gzip_header(source)
        elif source.compression == "zstd" and head[:4] != _ZSTD:
            _skip_frame(source)
            continue
        unit = new()
        step = _FIRST
        while not unit.eof:
            if not data and unit.needs_input:
                data = source.take(step)
                step = min(step * 4, CHUNK)
            try:
                output = unit.decompress(data, CHUNK)
            except Exception as error:  # each library has an exception of its own
                if any(part in str(error) for part in ("too much memory", "window", "usage limit")):
                    raise meter.limits.exceeded("window") from None
                raise MalformedImage(f"broken {source.compression} data: {error}") from None
            data = b""
            if output:
                meter.give(len(output))
                yield output
        source.take_back(len(unit.unused_data))
    source.check_padding()


def _gzip_header(source: _Input) -> bytes:
    """Take a member's header (RFC 1952, 2.3); return one without the optional fields.

    isal reads only some of them right where a chunk ends inside of them, and passes over reserved
    flags, for which RFC 1952, 2.3.1.2, has "a compliant decompressor" "give an error".
    """
    first = b"".join(source.iter_chunks(len(_GZIP_HEADER)))
    flags = first[3]
    if first[2] != 8 or flags & 0xE0:
        raise MalformedImage("broken gzip data: an unknown method or flags")
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
            piece = bytes(source.take(_FIRST))
            end = piece.find(0) + 1
            source.take_back(len(piece) - end if end else 0)
            crc = zlib.crc32(piece[:end] if end else piece, crc)
            ended = bool(end)
    found = crc & 0xFFFF
    if flags & _HEADER_CRC and int.from_bytes(read(2), "little") != found:
        raise MalformedImage("broken gzip data: a wrong checksum of the header")
    return _GZIP_HEADER


def _skip_frame(source: _Input) -> None:
    """Skip a frame that says so (RFC 8878, 3.1.2): its magic, the size of its content, that."""
    size = int.from_bytes(b"".join(source.iter_chunks(8))[4:], "little")
    for _ in source.iter_chunks(size):
        pass


def _gzip_member() -> Callable[[], _Decompressor]:
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


def _xz_stream(memory: int) -> Callable[[], _Decompressor]:
    import lzma

    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)


def _bzip2_stream() -> Callable[[], _Decompressor]:
    import bz2

    return bz2.BZ2Decompressor


def _zstd_frame(window: int) -> Callable[[], _Decompressor]:
    module: Any
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd as module
        else:
            from backports import zstd as module
    except ImportError:
        try:
            import zstandard
        except ImportError:
            raise Unsupported(
                "zstd, for which a library is missing", remedy="install backports.zstd or zstandard"
            ) from None
        # Made once: that takes more time than a small frame does.
        shared = zstandard.ZstdDecompressor(max_window_size=max(1 << 10, min(1 << 31, window)))
        return lambda: _ZstandardFrame(shared.decompressobj())
    # The library takes a power of two, of at least 10 and, with 64-bit pointers, at most 31.
    options = {
        module.DecompressionParameter.window_log_max: max(10, min(31, window.bit_length() - 1))
    }
    return lambda: module.ZstdDecompressor(options=options)


class _ZstandardFrame:
    """A zstd frame through ``zstandard``, which is what Debian 13 has.

    Its decompressor returns all that its input expands to, up to 32 KiB for each byte (RFC 8878,
    3.1.1.2: a block of a few bytes holds up to 128 KiB), so it is fed by small slices.
    """

    _SLICE = 1 << 10

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._input = memoryview(b"")
        self._output = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._output

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data) + bytes(self._input)

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes:
        self._input = memoryview(data) if data else self._input
        parts = [self._output]
        length = len(self._output)
        while self._input and length < max_length and not self._inner.eof:
            part = self._inner.decompress(self._input[: self._SLICE])
            self._input = self._input[self._SLICE :]
            parts.append(part)
            length += len(part)
        output = b"".join(parts)
        self._output = output[max_length:]
        return output[:max_length]
