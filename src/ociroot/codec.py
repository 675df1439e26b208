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

from .errors import LimitExceeded, MalformedImage, Unsupported
from .limits import DEFAULTS, RATIO_FROM, Limits

__all__ = ["CHUNK", "decompress", "sniff"]

#: Bytes that are handed over at once, between threads and to the libraries. A quarter of it costs
#: a tenth more time, for the threads that wake each other; more of it gains nothing.
CHUNK = 1 << 20

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\0"
_BZIP2 = b"BZh"


def _is_zstd(head: bytes) -> bool:
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
    compression: str, chunks: Iterator[bytes], limits: Limits = DEFAULTS
) -> Iterator[bytes]:
    """Decompress what arrives, without holding more than a few chunks of it.

    Args:
        compression: as :func:`sniff` says.
        chunks: the compressed bytes.
        limits: on the memory that decompressing takes, and on what comes out. The default window is
            what `zstd --ultra --long=27` uses, and twice what `xz -9` does.

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
    return _units(chunks, new, begins, compression, limits)


def _begins(magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


class _Decompressor(Protocol):
    """What the libraries agree on, and the adapters below provide."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _units(
    chunks: Iterator[bytes],
    new: Callable[[], _Decompressor],
    begins: Callable[[bytes], bool],
    name: str,
    limits: Limits,
) -> Iterator[bytes]:
    """Decompress a series of members or frames."""
    unit: _Decompressor | None = None
    data = b""
    taken = given = 0
    while True:
        if unit is None:
            # Between two units: what comes is the next one, or the end. gzip(1) lets zeros follow,
            # as tapes and some tools pad with them.
            while len(data) < 4 and (more := next(chunks, b"")):
                data += more
                taken += len(more)
            if not begins(data):
                _padding(data, chunks, name)
                return
            unit = new()
        try:
            output = unit.decompress(data, CHUNK)
        except LimitExceeded:
            raise
        except Exception as error:  # each library has an exception of its own
            if any(part in str(error) for part in ("too much memory", "window", "usage limit")):
                raise limits.exceeded("window") from None
            raise MalformedImage(f"broken {name} data: {error}") from None
        data = b""
        if output:
            given += len(output)
            if given > RATIO_FROM and given > taken * limits.ratio:
                raise limits.exceeded("ratio")
            yield output
        if unit.eof:
            data = unit.unused_data
            unit = None
        elif unit.needs_input:
            data = next(chunks, b"")
            taken += len(data)
            if not data:
                raise MalformedImage(f"the {name} data is truncated")


def _padding(data: bytes, chunks: Iterator[bytes], name: str) -> None:
    while data:
        if data.count(0) != len(data):
            raise MalformedImage(f"data that is not {name} follows the {name} data")
        data = next(chunks, b"")


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

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        tail = self._inner.unconsumed_tail
        return self._inner.decompress(tail + data if tail else data, max_length)


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
        return lambda: _ZstandardFrame(zstandard, window)
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

    def __init__(self, zstandard: Any, window: int) -> None:
        self._inner = zstandard.ZstdDecompressor(
            max_window_size=max(1 << 10, min(1 << 31, window))
        ).decompressobj()
        self._input = memoryview(b"")
        self._output = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._output and not self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data) + bytes(self._input)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        if data:
            self._input = memoryview(bytes(self._input) + data)
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
