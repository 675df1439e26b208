"""Compression of an output: gzip, zstd and xz, in threads, with the same bytes from each run.

The data is divided into blocks of a fixed size, and each block is compressed on its own: what comes
out depends on the data, the level and the version of the library, and not on the number of
processors, on the sizes of the writes, on the time or on a file name. All decompressors read it:

- gzip is one member, as pigz writes it: raw deflate, each block with the end of the one before as
  its dictionary. zlib compresses, not isal, whose output depends on the processor.
- zstd is a frame for each block (RFC 8878, 3: "multiple frames"), with its size and a checksum.
- xz is a stream for each block (The .xz File Format, 1.1: "multiple Streams").
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import msgspec

from ..compression.zstd_library import standard_zstd, zstandard
from ..errors import UsageError, printable

__all__ = ["METHODS", "Compression", "Compressor", "parse_compression"]

# More threads would take more memory than they save time, above all with xz.
_MAX_THREADS = 8
_DICTIONARY = 32 << 10
# No flags, no time, no extra flags; the system is "unknown" (RFC 1952, 2.3.1).
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


class Method(msgspec.Struct, frozen=True):
    """A compression method.

    Attributes:
        level: the level that is used unless another is given.
        levels: the lowest and the highest level.
        block: bytes that are compressed at once.
        suffix: the ending of file names.
    """

    level: int
    levels: tuple[int, int]
    block: int
    suffix: str


#: The compression methods by name.
METHODS = {
    "gzip": Method(6, (1, 9), 1 << 20, ".gz"),
    "zstd": Method(3, (1, 22), 4 << 20, ".zst"),
    "xz": Method(6, (0, 9), 16 << 20, ".xz"),
}


class Compression(msgspec.Struct, frozen=True):
    """How an output is compressed.

    Attributes:
        method: ``gzip``, ``zstd`` or ``xz``.
        level: one of the method's levels.
    """

    method: str
    level: int

    def __str__(self) -> str:
        return f"{self.method}:{self.level}"


def parse_compression(text: str) -> Compression | None:
    """Read what a user gives: ``zstd``, ``zstd:19``, ``none``.

    Returns:
        The compression; None for ``none``.

    Raises:
        UsageError: there is no such method or level.
    """
    if text == "none":
        return None
    name, colon, level = text.partition(":")
    method = METHODS.get(name)
    if method is None:
        known = ", ".join(METHODS)
        raise UsageError(f"unknown compression {printable(text)}: it is none, or one of {known}")
    if not colon:
        return Compression(name, method.level)
    lowest, highest = method.levels
    if not level.isascii() or not level.isdigit() or not lowest <= int(level) <= highest:
        raise UsageError(f"the level of {name} is {lowest} to {highest}, not {printable(level)}")
    return Compression(name, int(level))


class Compressor:
    """Compresses what is written to it in threads, and writes the result in order."""

    def __init__(self, write: Callable[[bytes], object], compression: Compression) -> None:
        """Start the threads.

        Args:
            write: called with compressed bytes, in the caller's thread.
            compression: the method and the level.
        """
        self._write = write
        self._format = _FORMATS[compression.method](compression.level)
        self._block = METHODS[compression.method].block
        self._threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._pool = ThreadPoolExecutor(self._threads)
        self._results: deque[Future[bytes]] = deque()
        self._parts: list[memoryview] = []
        self._missing = self._block
        self._before = b""
        write(self._format.start)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Compress the next bytes, which must not change afterwards."""
        view = memoryview(data)
        while len(view) >= self._missing:
            self._parts.append(view[: self._missing])
            view = view[self._missing :]
            self._submit(last=False)
        if len(view):
            self._parts.append(view)
            self._missing -= len(view)

    def _submit(self, *, last: bool) -> None:
        block = b"".join(self._parts)
        self._parts.clear()
        self._missing = self._block
        self._format.take(block)
        self._results.append(self._pool.submit(self._format.compress, self._before, block, last))
        self._before = block[-_DICTIONARY:]
        while len(self._results) > self._threads:
            self._write(self._results.popleft().result())

    def finish(self) -> None:
        """Compress what is left and write the end."""
        # zstd and xz end with any block, but an empty output is one, too.
        if self._parts or not self._before or self._format.is_one_stream:
            self._submit(last=True)
        while self._results:
            self._write(self._results.popleft().result())
        self._write(self._format.end())

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._results.clear()


class _Format(Protocol):
    """What compresses the blocks of an output."""

    #: What comes before the blocks.
    start: bytes
    #: Whether the last block must be known.
    is_one_stream: bool

    def take(self, block: bytes) -> None:
        """Note the next block, in the caller's thread."""

    def compress(self, before: bytes, block: bytes, last: bool) -> bytes:
        """Compress a block, in any thread; ``before`` is the end of the block before it."""

    def end(self) -> bytes:
        """Return what comes after the blocks."""


class _Gzip:
    start = _GZIP_HEADER
    is_one_stream = True

    def __init__(self, level: int) -> None:
        self._level = level
        self._crc = self._size = 0

    def take(self, block: bytes) -> None:
        self._crc = zlib.crc32(block, self._crc)
        self._size += len(block)

    def compress(self, before: bytes, block: bytes, last: bool) -> bytes:
        if before:
            deflate = zlib.compressobj(self._level, zlib.DEFLATED, -15, zdict=before)
        else:
            deflate = zlib.compressobj(self._level, zlib.DEFLATED, -15)
        # A flush ends on a byte, so that the next block can follow (RFC 1951, 3.2.4).
        return deflate.compress(block) + deflate.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)


class _Independent:
    """A format whose blocks are compressed independently."""

    start = b""
    is_one_stream = False

    def __init__(self, compress: Callable[[bytes], bytes]) -> None:
        self._compress = compress

    def take(self, block: bytes) -> None:
        pass

    def compress(self, before: bytes, block: bytes, last: bool) -> bytes:
        return self._compress(block)

    def end(self) -> bytes:
        return b""


def _xz(level: int) -> _Independent:
    import lzma

    return _Independent(lambda block: lzma.compress(block, preset=level))


def _zstd(level: int) -> _Independent:
    module = standard_zstd()
    if module is None:
        library = zstandard()
        # An object for each block: threads must not share one.
        return _Independent(
            lambda block: bytes(
                library.ZstdCompressor(level=level, write_checksum=True).compress(block)
            )
        )
    options = {
        module.CompressionParameter.compression_level: level,
        module.CompressionParameter.checksum_flag: 1,
    }
    return _Independent(lambda block: bytes(module.compress(block, options=options)))


_FORMATS: dict[str, Callable[[int], _Format]] = {"gzip": _Gzip, "zstd": _zstd, "xz": _xz}
