"""Decompression of any number of members and frames, with each supported library."""

from __future__ import annotations

import builtins
import bz2
import gzip
import importlib
import lzma
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ociroot.compression import CHUNK, Meter, decompress, sniff
from ociroot.errors import LimitExceeded, MalformedImage
from ociroot.limits import DEFAULTS, UNIT, Limits

DATA = random.Random(1).randbytes(300_000) + b"compressible" * 100_000


@pytest.fixture(params=["best", "fallback"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with isal and backports.zstd, and with the fallbacks for both."""
    if request.param == "fallback":
        missing(monkeypatch)
    return str(request.param)


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **rest: Any) -> Any:
        if name.split(".")[0] in ("isal", "backports", "compression"):
            raise ImportError(name)
        return real(name, *args, **rest)

    monkeypatch.setattr(builtins, "__import__", without)


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpack(data: bytes, size: int = 1000) -> bytes:
    result = b""
    for chunk in decompress(sniff(data), pieces(data, size), DEFAULTS):
        assert len(chunk) <= CHUNK
        result += chunk
    return result


def skippable(content: bytes = b"an index") -> bytes:
    return struct.pack("<II", 0x184D2A5A, len(content)) + content


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def test_gzip_members(library: str) -> None:
    assert unpack(gzip.compress(DATA)) == DATA
    assert (
        unpack(gzip.compress(DATA) + gzip.compress(b"") + gzip.compress(b"more")) == DATA + b"more"
    )


def test_many_small_members(library: str) -> None:
    """An eStargz layer has a member for each file."""
    assert unpack(b"".join(gzip.compress(b"%d" % n) for n in range(500))) == b"".join(
        b"%d" % n for n in range(500)
    )


def test_zstd_frames(library: str) -> None:
    assert unpack(zstd(DATA)) == DATA
    assert unpack(zstd(DATA) + skippable() + zstd(b"more") + skippable()) == DATA + b"more"
    assert unpack(skippable() + zstd(b"first")) == b"first"


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 50), st.sampled_from([gzip.compress, zstd]), st.integers(0, 3))
def test_seams_of_chunks(size: int, compress: Any, members: int) -> None:
    packed = compress(b"head") + compress(DATA[:5000]) * members
    assert unpack(packed, size) == b"head" + DATA[:5000] * members


def test_padding_behind_gzip_is_passed_over(library: str) -> None:
    assert unpack(gzip.compress(b"data") + bytes(5000)) == b"data"


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_truncated_data_is_refused(library: str, compress: Any) -> None:
    packed = compress(DATA)
    for cut in (len(packed) - 1, len(packed) // 2, 20):
        with pytest.raises(MalformedImage, match="truncated"):
            unpack(packed[:cut])


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_trailing_garbage_is_refused(library: str, compress: Any) -> None:
    for garbage in (b"x", b"garbage", b"\0\0\0x"):
        with pytest.raises(MalformedImage, match="follows"):
            unpack(compress(b"data") + garbage)


def test_broken_data_is_refused(library: str) -> None:
    for packed in (
        gzip.compress(DATA),
        zstandard.ZstdCompressor(write_checksum=True).compress(DATA),
    ):
        broken = bytearray(packed)
        broken[len(broken) // 2] ^= 0xFF
        with pytest.raises(MalformedImage, match=r"malformed|truncated|follows"):
            unpack(bytes(broken))


def test_a_wrong_gzip_checksum_is_refused(library: str) -> None:
    packed = bytearray(gzip.compress(b"data"))
    packed[-5] ^= 1
    packed[-8] ^= 1
    with pytest.raises(MalformedImage, match="malformed"):
        unpack(bytes(packed))


def test_windows_up_to_128_mib_and_no_more(library: str) -> None:
    """The header of a frame declares the memory that decompression needs."""

    def frame(window_log: int) -> bytes:
        # RFC 8878, 3.1.1.1: no single segment, no checksum; then one raw last block of 4 bytes.
        return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + b"\x21\0\0data"

    assert unpack(frame(27)) == b"data"
    with pytest.raises(LimitExceeded, match="window"):
        unpack(frame(28))


def test_a_bomb_comes_in_small_pieces(library: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert sum(map(len, decompress("gzip", iter([bomb]), DEFAULTS))) == 50_000_000
    bomb = zstd(bytes(50_000_000))
    for chunk in decompress("zstd", iter([bomb]), DEFAULTS):
        assert len(chunk) <= CHUNK


# A gzip header's optional fields (RFC 1952, 2.3), wherever a chunk ends.

EXTRA, NAME, COMMENT, HEADER_CRC = 4, 8, 16, 2


def member(flags: int, extra: bytes = b"SGextra", name: bytes = b"n" * 20) -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    if flags & EXTRA:
        head += struct.pack("<H", len(extra)) + extra
    if flags & NAME:
        head += name + b"\0"
    if flags & COMMENT:
        head += b"a comment\0"
    if flags & HEADER_CRC:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    body = zlib.compressobj(wbits=-15)
    packed = body.compress(b"the data") + body.flush()
    return head + packed + struct.pack("<II", zlib.crc32(b"the data"), 8)


@pytest.mark.parametrize("flags", range(0, 32, 2))
def test_fields_of_a_gzip_header(library: str, flags: int) -> None:
    packed = member(flags) + member(flags ^ 1, extra=b"", name=b"")
    for cut in range(1, len(packed)):
        chunks = iter((packed[:cut], packed[cut:]))
        assert b"".join(decompress("gzip", chunks, DEFAULTS)) == b"the data" * 2, cut
    assert unpack(packed, 1) == b"the data" * 2


@pytest.mark.parametrize("flags", [EXTRA, NAME, EXTRA | NAME | COMMENT | HEADER_CRC])
def test_long_fields_of_a_gzip_header(library: str, flags: int) -> None:
    packed = member(flags, extra=b"e" * 65535, name=b"n" * 200_000) * 2
    for size in (1000, 4095, 4096, 70_001, 1 << 20):
        assert unpack(packed, size) == b"the data" * 2


def test_a_gzip_header_is_checked(library: str) -> None:
    for flags in (HEADER_CRC, HEADER_CRC | NAME):
        packed = bytearray(member(flags))
        packed[4] ^= 1  # the time
        with pytest.raises(MalformedImage, match="header checksum mismatch"):
            unpack(bytes(packed))
    for flag in (0x20, 0x40, 0x80):  # "must give an error indication if any reserved bit is"
        with pytest.raises(MalformedImage, match="flags"):
            unpack(member(flag))
    for flags in (EXTRA, NAME, COMMENT, HEADER_CRC):
        head = len(member(flags)) - len(member(0)) + 10
        for cut in range(3, head):
            with pytest.raises(MalformedImage, match="truncated"):
                unpack(member(flags)[:cut])


def test_frames_that_are_skipped_wherever_a_chunk_ends(library: str) -> None:
    packed = skippable(b"x" * 40) + zstd(b"one") + skippable(b"") * 2 + zstd(b"two")
    for size in range(1, len(packed)):
        assert unpack(packed, size) == b"onetwo"
    for cut in (5, 7, 9, 47):
        with pytest.raises(MalformedImage, match="truncated"):
            unpack(packed[:cut])


# The cost of each unit depends on its own length, not on what follows it.


class Watched:
    """A library's decompressor that records how many bytes it is given and returns."""

    def __init__(self, inner: Any, bytes_copied: list[int]) -> None:
        self._inner = inner
        self._copied = bytes_copied

    def decompress(self, data: Any, *rest: Any) -> Any:
        self._copied[0] += len(data)
        return self._inner.decompress(data, *rest)

    @property
    def unused_data(self) -> bytes:
        data = self._inner.unused_data
        self._copied[0] += len(data)
        return bytes(data)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "decompressobj":
            return lambda *rest: Watched(found(*rest), self._copied)
        return found


# The standard library's since Python 3.14.
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
LIBRARIES = {
    "isal": ("isal.igzip_lib", "IgzipDecompressor", "best", gzip.compress),
    "zlib": ("zlib", "decompressobj", "fallback", gzip.compress),
    "zstd": (ZSTD, "ZstdDecompressor", "best", zstd),
    "zstandard": ("zstandard", "ZstdDecompressor", "fallback", zstd),
    "bz2": ("bz2", "BZ2Decompressor", "best", bz2.compress),
    "lzma": ("lzma", "LZMADecompressor", "best", lzma.compress),
}


@pytest.mark.parametrize("content", [b"", b"x" * 10_000])
@pytest.mark.parametrize("name", LIBRARIES)
def test_no_unit_costs_what_follows_it(
    name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_name, attribute, which, pack = LIBRARIES[name]
    module = importlib.import_module(module_name)
    real = getattr(module, attribute)
    copied = [0]
    monkeypatch.setattr(module, attribute, lambda *a, **k: Watched(real(*a, **k), copied))
    if which == "fallback":
        missing(monkeypatch)
    packed = pack(content)

    count = min(20_000, CHUNK // len(packed))
    found = decompress(sniff(packed), pieces(packed * count, CHUNK), DEFAULTS)
    assert sum(map(len, found)) == len(content) * count
    # Half a chunk for each unit would be ten to a hundred times as much.
    assert len(packed) * count <= copied[0] <= (len(packed) + 10_000) * count


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bz2.compress, lzma.compress])
def test_units_without_content_are_a_limit(library: str, pack: Any) -> None:
    limits = Limits(units=100)
    packed = pack(b"")
    assert b"".join(decompress(sniff(packed), pieces(packed * 100), limits)) == b""
    with pytest.raises(LimitExceeded, match="--max-units"):
        list(decompress(sniff(packed), pieces(packed * 101), limits))
    full = pack(bytes(UNIT))
    assert len(b"".join(decompress(sniff(full), pieces(full * 300), limits))) == 300 * UNIT
    assert sniff(full) == sniff(packed)


def test_frames_that_are_skipped_count(library: str) -> None:
    with pytest.raises(LimitExceeded, match="--max-units"):
        list(decompress("zstd", pieces(skippable() * 101), Limits(units=100)))


def test_a_meter_is_for_several(library: str) -> None:
    meter = Meter(Limits(units=10))
    packed = gzip.compress(b"")
    for _ in range(2):
        assert not list(decompress("gzip", pieces(packed * 5), meter=meter, limits=DEFAULTS))
    with pytest.raises(LimitExceeded, match="--max-units"):
        list(decompress("gzip", pieces(packed), meter=meter, limits=DEFAULTS))


def test_nothing_is_plain() -> None:
    assert sniff(b"") == "none"
    assert unpack(b"") == b""
    assert unpack(b"a tar") == b"a tar"


@pytest.mark.parametrize(("pack", "name"), [(lzma.compress, "xz"), (bz2.compress, "bzip2")])
def test_whole_archives_may_be_compressed_otherwise(pack: Any, name: str) -> None:
    """Several streams, as `cat` makes them of several files, and xz's padding."""
    packed = pack(DATA) + pack(b"more")
    assert sniff(packed) == name
    assert unpack(packed) == DATA + b"more"
    assert unpack(packed + bytes(8)) == DATA + b"more"
    with pytest.raises(MalformedImage, match="truncated"):
        unpack(packed[:-3])
    with pytest.raises(MalformedImage, match="follows"):
        unpack(packed + b"garbage")
