"""The seeds of fuzzing: output of archivers and tools, and some hostile values."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from fractions import Fraction
from itertools import product

from tests.support.build import (
    Format,
    Member,
    base256,
    compress,
    directory,
    entry,
    file,
    header,
    link,
    padded,
    pax_global,
    pax_records,
    symlink,
    tar,
)

from .images import BASE, CONFIG_DOCUMENT, DOCUMENTS, LAYERS, files_of, pack, stack, with_document
from .mutate_tar import fixed

__all__ = ["SEEDS"]

_END = bytes(1024)
_ODD = [
    directory(b"./", mode=0o711),
    directory(b"a/", mtime=Fraction(3, 2), mode=0o3770),
    file(b"a/f", b"content", uid=1000, gid=1000, mode=0o6755),
    file("é".encode() * 60, b"x" * 1025),
    file(b"n" * 100 + b"/" + b"m" * 120),
    symlink(b"l", b"a"),
    symlink(b"long", b"t" * 150),
    symlink(b"out", b"../outside"),
    link(b"a/h", b"a/f"),
    Member(b"fifo", "fifo"),
    Member(b"char", "char", rdev=(1, 3)),
    Member(b"block", "block", rdev=(259, 1_000_000)),
    file(b"v7", typeflag=b"\0"),
    file(b"v7-directory/", typeflag=b"\0"),
    file(b"contiguous", b"1", typeflag=b"7"),
]
_PAX = [
    file(b"big", uid=3_000_000_000, mtime=Fraction(-3, 2)),
    file(b"xattrs", xattrs={b"user.a": b"1", b"user.b": b"\0\n=", b"trusted.c": b""}),
    directory(b"x", xattrs={b"user.d": b"2", b"security.selinux": b"label"}),
    file(b"odd", pax={b"comment": b"=", b"atime": b"1.5", b"SCHILY.xattr.user.e": b"3"}),
]
_WHITEOUTS = [
    file(b".wh.h"),
    file(b"a/.wh..wh..opq"),
    file(b"a/new"),
    file(b"l/.wh.f"),
    file(b"l/through"),
    file(b"out/f", b"PWNED"),
    file(b"../outside/f", b"PWNED"),
    file(b".wh..wh.aufs"),
]
_LINKS = [
    symlink(b"one", b"two/../a"),
    symlink(b"two", b"/a/d"),
    file(b"one/f", b"1"),
    link(b"one/h", b"l/d/g"),
    file(b"a/.wh.d"),
    symlink(b"a", b"."),
    file(b"a/a/a/x"),
    directory(b"one"),
    directory(b"l"),
    file(b"l/f"),
]


def _tars() -> list[bytes]:
    formats: tuple[Format, ...] = ("pax", "gnu")
    volume = header(b"label", b"V")
    # Not padded to a record: short inputs are faster to fuzz.
    plain = [b"".join(entry(member, form) for member in _ODD) + _END for form in formats]
    return [
        b"",
        _END,
        BASE,
        *plain,
        *(tar(each) for each in (_PAX, _WHITEOUTS, _LINKS)),
        *(each + _END for each in _sparse()),
        volume + pax_global({b"mtime": b"5", b"uid": b"7"}) + entry(file(b"a")) + _END,
        header(b"a", prefix=b"p", size=base256(3, 12), uid=base256(9, 8)) + padded(b"123"),
        header(b"a", mtime=base256(-1, 12), magic=bytes(8)) + header(b"b", b"D"),
    ]


def _sparse() -> list[bytes]:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"s"}
    mapped = padded(b"2\n0\n512\n1024\n5\n") + b"y" * 517
    old = bytearray(header(b"s", b"S", size=1024, magic=b"ustar  \0"))
    for place in range(4):
        old[386 + place * 24 :][:24] = b""
        old[386 + place * 24 : 410 + place * 24] = b"%011o\0%011o\0" % (place * 1024, 128)
    old[482] = 1
    old[483:495] = b"%011o\0" % 10000
    more = b"".join(b"%011o\0%011o\0" % (4096 + place * 1024, 128) for place in range(4))
    pairs = ((0, 512), (1024, 5))
    repeated = b"".join(
        pax_records({b"GNU.sparse.offset": b"%d" % at, b"GNU.sparse.numbytes": b"%d" % length})
        for at, length in pairs
    )
    size = {b"GNU.sparse.size": b"2000"}
    return [
        fixed(bytes(old)) + more.ljust(512, b"\0") + b"o" * 1024,
        _with_records(pax_records(size) + repeated, b"z" * 517),
        _with_records(pax_records({**size, b"GNU.sparse.map": b"0,512,1024,5"}), b"z" * 517),
        _with_records(pax_records({**records, b"GNU.sparse.realsize": b"2000"}), mapped),
    ]


def _with_records(records: bytes, data: bytes) -> bytes:
    head = header(b"PaxHeaders.0/s", b"x", size=len(records)) + padded(records)
    return head + header(b"GNUSparseFile.0/s", size=len(data)) + padded(data)


def _records() -> list[bytes]:
    return [
        b"",
        pax_records({b"path": b"a/b", b"linkpath": b"c", b"size": b"512", b"uid": b"1"}),
        pax_records({b"mtime": b"-1.5", b"atime": b"1", b"gid": b"4294967294", b"path": b""}),
        pax_records({b"SCHILY.xattr.user.a": b"\0=\n", b"SCHILY.xattr.": b"", b"comment": b"x"}),
        pax_records({b"GNU.sparse.size": b"4096", b"GNU.sparse.map": b"0,256,1024,256"}),
        pax_records({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"size": b"1024"}),
        pax_records({b"GNU.sparse.size": b"9", b"GNU.sparse.offset": b"0"}) + bytes(9),
    ]


def _archives() -> list[bytes]:
    hybrid = with_document("hybrid", json.dumps(dict(DOCUMENTS)["hybrid"]).encode())
    linked = [file(b"x/index.json", b"{}"), link(b"x/i", b"x/index.json"), symlink(b"x/l", b"i")]
    return [
        pack(files_of("oci-archive", LAYERS, "none")),
        pack(files_of("docker-archive", LAYERS, "gzip")),
        pack(hybrid),
        b"".join(map(entry, linked)) + _END,
    ]


def _forms() -> list[bytes]:
    looks = [b"hsqs", b"QFI\xfb", b"PK\x03\x04", b"\x7fELF", b"{}", b"SIF", b""]
    looks += [bytes(1024) + b"\xe2\xe1\xf5\xe0", bytes(1080) + b"\x53\xef"]
    names: list[tuple[bytes, ...]] = [(b"repositories",), (b"app/Chart.yaml",)]
    names += [(b"Files/x", b"Hives/y"), (b"etc/x", b"usr/"), (b"index.json",), (b"oci-layout",)]
    looks += [b"".join(entry(file(name)) for name in each) + _END for each in names]
    archives = _archives()
    packed = [gzip.compress(archives[0], mtime=0), compress(archives[1], "zstd")]
    packed += [lzma.compress(archives[0]), bz2.compress(archives[1])]
    return [*looks, *archives, *_tars()[:6], *packed]


def _packed() -> list[bytes]:
    text = b"some text, some text, some more text " * 30
    skipped = b"\x5f\x2a\x4d\x18\3\0\0\0abc"
    named = b"\x1f\x8b\x08\x1e\0\0\0\0\0\3\2\0xyname\0note\0" + b"\0\0"
    seeds = [gzip.compress(text, level, mtime=0) for level in (0, 1, 9)]
    seeds += [compress(text, "zstd"), skipped + compress(text, "zstd") + skipped, skipped]
    seeds += [seeds[0] * 3, seeds[3] * 3, seeds[1] + bytes(100), seeds[3] + seeds[1], named]
    return [*seeds, lzma.compress(text), bz2.compress(text), b"plain"]


def _documents() -> list[bytes]:
    seeds = []
    for place, (_, value) in enumerate(DOCUMENTS):
        small = value[0] if isinstance(value, list) else value
        seeds += [bytes([place]) + json.dumps(each).encode() for each in (value, small)]
    # A property that accepts any value.
    config = {**CONFIG_DOCUMENT, "history": [], "config": {"Volumes": {"/data": [0, {}]}}}
    kinds = [kind for kind, _ in DOCUMENTS]
    return [*seeds, bytes([kinds.index("config")]) + json.dumps(config).encode()]


def _stacks() -> list[bytes]:
    tars = _tars()
    seeds = [stack([tar(_WHITEOUTS)], *choices) for choices in product((0, 1, 2), (0, 1, 2), (1,))]
    seeds += [stack([each], 0, 0, 1, 0, 1) for each in tars]
    seeds += [stack([tars[3], tar(_WHITEOUTS), tar(_LINKS)], 2, 0, 0, 1, 0)]
    return seeds


#: The functions that create the seeds of each target.
SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "archive": lambda: [*_archives(), *_tars()],
    "layer": _tars,
    "pax": _records,
    "documents": _documents,
    "forms": _forms,
    "codec": _packed,
    "merge": _stacks,
    "extract": _stacks,
    "commands": _stacks,
}
