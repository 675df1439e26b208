"""Compressed outputs: read by the usual programs, and the same bytes whatever runs."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ociroot.errors import UsageError
from ociroot.outputs.compress import METHODS, Compression, Compressor, parse_compression

from .support.needs import need_tools

BLOCK = {name: method.block for name, method in METHODS.items()}
DATA = random.Random(1).randbytes(50_000) * 40 + b"".join(b"%d line\n" % i for i in range(400_000))
TOOLS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dc"], "xz": ["xz", "-dc"]}


def compressed(method: str, data: bytes, *, step: int = 1 << 20, level: int = 1) -> bytes:
    out: list[bytes] = []
    compressor = Compressor(out.append, Compression(method, level))
    try:
        for at in range(0, len(data), step):
            compressor.write(data[at : at + step])
        compressor.finish()
    finally:
        compressor.close()
    return b"".join(out)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", ["nothing", "a byte", "a block", "a block and a byte", "many"])
def test_others_read_it(method: str, which: str) -> None:
    need_tools(TOOLS[method][0])
    block = BLOCK[method]
    size = {"nothing": 0, "a byte": 1, "a block": block, "a block and a byte": block + 1}
    data = (DATA * (size.get(which, 0) // len(DATA) + 1))[: size.get(which, 2 * len(DATA))]
    packed = compressed(method, data)
    done = subprocess.run(TOOLS[method], input=packed, capture_output=True, check=True)
    assert done.stdout == data
    if method == "gzip":
        assert gzip.decompress(packed) == data
        # A single member: nothing may follow it.
        member = __import__("zlib").decompressobj(31)
        assert len(member.decompress(packed)) == len(data)
        assert member.eof and not member.unused_data
    elif method == "xz":
        assert lzma.decompress(packed) == data
    else:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            assert reader.read() == data


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_do_not_depend_on_processors_or_writes(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DATA * (BLOCK[method] * 2 // len(DATA) + 2)
    wanted = compressed(method, data)
    for processors, step in ((1, 999_983), (5, len(data))):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, n=processors: set(range(n)), raising=True
        )
        assert compressed(method, data, step=step) == wanted


def test_gzip_is_what_zlib_makes_of_each_block() -> None:
    import zlib

    packed = compressed("gzip", DATA, level=6)
    assert packed[:10] == bytes.fromhex("1f8b08000000000000ff")
    parts, before = [], b""
    blocks = [DATA[at : at + BLOCK["gzip"]] for at in range(0, len(DATA), BLOCK["gzip"])]
    for block in blocks:
        made = zlib.compressobj(6, wbits=-15, zdict=before)
        last = block is blocks[-1]
        parts.append(
            made.compress(block) + made.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        )
        before = block[-32768:]
    assert b"".join(parts) == packed[10:-8]


def test_both_libraries_of_zstd_make_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = pytest.importorskip(
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    )
    if module.zstd_version_info != zstandard.ZSTD_VERSION:
        pytest.skip("they hold different versions of libzstd")
    wanted = compressed("zstd", DATA, level=3)
    monkeypatch.setitem(sys.modules, module.__name__, None)
    monkeypatch.delattr(sys.modules[module.__name__.partition(".")[0]], "zstd")
    assert compressed("zstd", DATA, level=3) == wanted


@pytest.mark.parametrize("method", METHODS)
def test_levels_count(method: str) -> None:
    data = Path(pytest.__file__).parent.joinpath("../_pytest/python.py").read_bytes()
    sizes = [len(compressed(method, data, level=n)) for n in (1, 9)]
    assert sizes[0] > sizes[1]


def test_what_users_give_is_parsed() -> None:
    assert parse_compression("none") is None
    assert parse_compression("zstd") == Compression("zstd", 3)
    assert parse_compression("gzip:9") == Compression("gzip", 9)
    assert str(parse_compression("xz:0")) == "xz:0"
    for wrong in ("", "bzip2", "gzip:", "gzip:0", "gzip:10", "zstd:23", "xz:-1", "xz:١", "none:1"):
        with pytest.raises(UsageError):
            parse_compression(wrong)


def test_an_abandoned_output_leaves_no_threads() -> None:
    before = threading.active_count()
    compressor = Compressor(lambda _: None, Compression("zstd", 1))
    compressor.write(DATA)
    compressor.close()
    assert threading.active_count() == before


def test_an_error_of_a_write_arrives() -> None:
    def fail(data: bytes) -> None:
        if data:
            raise OSError(28, "no")

    compressor = Compressor(fail, Compression("zstd", 1))
    with pytest.raises(OSError, match="no"):
        for _ in range(20):
            compressor.write(DATA)
    compressor.close()


def test_the_input_may_be_a_view() -> None:
    data = bytes(range(256)) * 10
    out: list[bytes] = []
    compressor = Compressor(out.append, Compression("xz", 0))
    compressor.write(memoryview(data)[5:])
    compressor.finish()
    compressor.close()
    assert (
        hashlib.sha256(lzma.decompress(b"".join(out))).digest() == hashlib.sha256(data[5:]).digest()
    )
