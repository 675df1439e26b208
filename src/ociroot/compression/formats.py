"""Detection of the compression by magic number, and decompression.

For layers see layer.md, "+gzip Media Types" and "+zstd Media Types".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..limits import Limits
from .gzip_member import MAGIC as _GZIP
from .gzip_member import gzip_member, take_header
from .meter import Meter
from .units import Decompressor, Input, UnitFormat, decompress_units, nothing_first
from .zstd_frame import is_zstd, skip_frame, zstd_frame

__all__ = ["decompress", "sniff"]

_XZ = b"\xfd7zXZ\0"
_BZIP2 = b"BZh"


def sniff(head: bytes) -> str:
    """Detect the compression by magic number.

    Args:
        head: the first bytes, at least eight unless there are fewer.

    Returns:
        ``gzip``, ``zstd``, ``xz``, ``bzip2`` or ``none``.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if is_zstd(head):
        return "zstd"
    if head.startswith(_XZ):
        return "xz"
    if head.startswith(_BZIP2) and head[4:8] in (b"1AY&", b"\x17\x72E8"):
        return "bzip2"
    return "none"


def decompress(
    compression: str,
    chunks: Iterator[bytes],
    limits: Limits,
    meter: Meter | None = None,
) -> Iterator[bytes]:
    """Decompress a stream, with at most a few chunks in memory.

    Args:
        compression: the result of :func:`sniff`.
        chunks: the compressed bytes.
        limits: bound the memory for decompression, and the output. The default window is that of
            `zstd --ultra --long=27`, and twice that of `xz -9`.
        meter: counts all data of the same pass; None: this is all.

    Yields:
        The uncompressed bytes, in chunks of at most ``CHUNK``.

    Raises:
        MalformedImage: the data is malformed or truncated.
        LimitExceeded: the window, the ratio or the number of units is too large.
    """
    if compression == "gzip":
        unit_format = UnitFormat(_begins(_GZIP), take_header, gzip_member())
    elif compression == "zstd":
        unit_format = UnitFormat(is_zstd, skip_frame, zstd_frame(limits.window))
    elif compression == "xz":
        unit_format = UnitFormat(_begins(_XZ[:4]), nothing_first, _xz_stream(limits.window))
    elif compression == "bzip2":
        unit_format = UnitFormat(_begins(_BZIP2), nothing_first, _bzip2_stream())
    else:
        return chunks
    meter = Meter(limits) if meter is None else meter
    return decompress_units(Input(chunks, meter, compression), unit_format, meter)


def _begins(magic: bytes) -> Callable[[memoryview], bool]:
    return lambda head: head[: len(magic)] == magic


def _xz_stream(memory: int) -> Callable[[], Decompressor]:
    import lzma

    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory)


def _bzip2_stream() -> Callable[[], Decompressor]:
    import bz2

    return bz2.BZ2Decompressor
