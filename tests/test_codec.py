"""Decompression: every number of members and frames, with each library that may be there."""

from __future__ import annotations

import builtins
import bz2
import gzip
import lzma
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ociroot.codec import CHUNK, decompress, sniff
from ociroot.errors import LimitExceeded, MalformedImage

DATA = random.Random(1).randbytes(300_000) + b"compressible" * 100_000


@pytest.fixture(params=["best", "fallback"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with isal and backports.zstd, and with what serves where they are missing."""
    if request.param == "fallback":
        real = builtins.__import__

        def without(name: str, *args: Any, **rest: Any) -> Any:
            if name.split(".")[0] in ("isal", "backports", "compression"):
                raise ImportError(name)
            return real(name, *args, **rest)

        monkeypatch.setattr(builtins, "__import__", without)
    return str(request.param)


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpack(data: bytes, size: int = 1000) -> bytes:
    result = b""
    for chunk in decompress(sniff(data), pieces(data, size)):
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
        with pytest.raises(MalformedImage, match=r"broken|truncated|follows"):
            unpack(bytes(broken))


def test_a_wrong_gzip_checksum_is_refused(library: str) -> None:
    packed = bytearray(gzip.compress(b"data"))
    packed[-5] ^= 1
    packed[-8] ^= 1
    with pytest.raises(MalformedImage, match="broken"):
        unpack(bytes(packed))


def test_windows_up_to_128_mib_and_no_more(library: str) -> None:
    """A frame's header says how much memory its reader needs."""

    def frame(window_log: int) -> bytes:
        # RFC 8878, 3.1.1.1: no single segment, no checksum; then one raw last block of 4 bytes.
        return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + b"\x21\0\0data"

    assert unpack(frame(27)) == b"data"
    with pytest.raises(LimitExceeded, match="window"):
        unpack(frame(28))


def test_a_bomb_comes_in_small_pieces(library: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert sum(map(len, decompress("gzip", iter([bomb])))) == 50_000_000
    bomb = zstd(bytes(50_000_000))
    for chunk in decompress("zstd", iter([bomb])):
        assert len(chunk) <= CHUNK


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
