"""Compression as one stream, for the kernel: it decompresses an initramfs that is one frame.

lib/decompress_unxz.c and lib/decompress_unzstd.c of Linux end with the first stream or frame; what
follows it is "junk at the end of compressed archive" to init/initramfs.c. So the blocks of
:class:`~ociroot.outputs.compress.Compressor` are not for it, except for gzip, where they are one
member. Of the checksums of xz, "Only CRC32 … is supported" (lib/xz).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...compression.zstd_library import standard_zstd, zstandard
from ..compress import Compression, Compressor

__all__ = ["StreamCompressor", "one_stream"]


class StreamCompressor(Protocol):
    """Compresses what is written to it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Compress the next bytes."""

    def finish(self) -> None:
        """Write the end."""

    def close(self) -> None:
        """Release what it holds, whatever comes of it."""


class _Codec(Protocol):
    """What the libraries agree on."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


def one_stream(write: Callable[[bytes], object], compression: Compression) -> StreamCompressor:
    """Return what compresses to one stream.

    Args:
        write: called with compressed bytes.
        compression: the method and the level.

    Raises:
        Unsupported: there is no library for it.
    """
    if compression.method == "gzip":
        return Compressor(write, compression)
    make = _xz if compression.method == "xz" else _zstd
    return _Serial(write, make(compression.level))


class _Serial:
    """Compresses in the caller's thread."""

    def __init__(self, write: Callable[[bytes], object], codec: _Codec) -> None:
        self._write = write
        self._codec = codec

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See :class:`StreamCompressor`."""
        if compressed := self._codec.compress(data):
            self._write(compressed)

    def finish(self) -> None:
        """See :class:`StreamCompressor`."""
        self._write(self._codec.flush())

    def close(self) -> None:
        """See :class:`StreamCompressor`."""


def _xz(level: int) -> _Codec:
    import lzma

    return lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=level)


def _zstd(level: int) -> _Codec:
    module = standard_zstd()
    codec: _Codec
    if module is None:
        codec = zstandard().ZstdCompressor(level=level, write_checksum=True).compressobj()
    else:
        options = {
            module.CompressionParameter.compression_level: level,
            module.CompressionParameter.checksum_flag: 1,
        }
        codec = module.ZstdCompressor(options=options)
    return codec
