"""Each limit: exceeding it gives exit code 6, and a higher value of its option allows the image."""

from __future__ import annotations

import gc
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ociroot
from ociroot.cli import command
from ociroot.errors import LimitExceeded
from ociroot.limits import DEFAULTS, MEANINGS, RATIO_FROM, Limits
from ociroot.rootfs.compare import Hashing
from ociroot.rootfs.contents import ContentCache
from ociroot.tar.stream import ChunkStream

from .support import build
from .support.build import Layer, Member, archive

FILE = Member(b"f", data=b"x" * 3000)
BIG = Member(b"f", data=random.Random(1).randbytes(100_000))


def runs(members: int) -> Member:
    runs = b",".join(b"%d,1" % (2 * n) for n in range(members))
    size = b"%d" % (2 * members)
    pax = {b"GNU.sparse.size": size, b"GNU.sparse.map": runs}
    return Member(b"s", data=b"x" * members, pax=pax)


def xattrs(count: int, size: int = 1) -> Member:
    return Member(b"f", pax={b"SCHILY.xattr.user.%d" % n: b"v" * size for n in range(count)})


# For each limit: an image, a value that it exceeds and one that it does not.
CASES: dict[str, tuple[Callable[[Path], Path], int, int]] = {
    "size": (lambda p: archive(p, [[FILE], [Member(b"g", data=b"y" * 3000)]]), 5999, 6000),
    "file_size": (lambda p: archive(p, [[FILE]]), 2999, 3000),
    "entries": (lambda p: archive(p, [[FILE], [Member(b"a/b/c"), Member(b".wh.f")]]), 4, 5),
    "layers": (lambda p: archive(p, [[FILE]] * 3), 2, 3),
    "path": (lambda p: archive(p, [[Member(b"a/" * 500 + b"f")]]), 1000, 1001),
    "depth": (lambda p: archive(p, [[Member(b"a/" * 50 + b"f")]]), 49, 50),
    "steps": (lambda p: archive(p, [[Member(b"a/b/c/f"), Member(b"x/f")]]), 3, 4),
    "extension": (lambda p: archive(p, [[xattrs(1, 3000)]]), 3000, 4000),
    # The count is of all layers together; sixteen records of each entry are not counted.
    "records": (lambda p: archive(p, [[many_records(30)], [many_records(40)]]), 37, 38),
    "xattrs": (lambda p: archive(p, [[xattrs(5)]]), 4, 5),
    "xattr_size": (lambda p: archive(p, [[xattrs(1, 500)]]), 499, 500),
    "sparse_runs": (lambda p: archive(p, [[runs(9)]]), 8, 9),
    "memory": (lambda p: archive(p, [[Member(b"%d" % n) for n in range(100)]]), 30_000, 60_000),
    "document": (lambda p: archive(p, [[FILE]]), 200, 5000),
    "documents": (lambda p: archive(p, [[FILE]]), 700, 5000),
    "nesting": (lambda p: archive(p, [[FILE]]), 2, 9),
    "index_depth": (lambda p: nested(p), 2, 4),
    "descriptors": (lambda p: nested(p), 2, 9),
    "members": (lambda p: archive(p, [[FILE]] * 5), 4, 20),
    "window": (lambda p: archive(p, [Layer([BIG], "zstd")]), 1024, 8 << 20),
    "units": (lambda p: archive(p, [members(30), members(40)]), 64, 65),
    "spool": (lambda p: packed(archive(p, [[FILE]])), 10_000, 30_000),
}


def many_records(count: int) -> Member:
    return Member(b"f", pax={b"X%d" % n: b"" for n in range(count - 1)})


def members(count: int) -> Layer:
    """Return a layer of this many gzip members, all but one of them empty."""
    tar = build.tar([FILE])
    empty = build.compress(b"", "gzip")
    blob = build.compress(tar, "gzip") + empty * (count - 1)
    return Layer(tar, "gzip", blob=blob)


def packed(path: Path) -> Path:
    path.write_bytes(build.compress(path.read_bytes(), "gzip"))
    return path


def nested(path: Path) -> Path:
    """Write an archive with three nested indexes, each of which lists two descriptors."""
    plain = archive(path, [[FILE]])
    with ociroot.open(plain) as source:
        manifest = _blob(plain, str(source.image().digest))
    listed = build.describe(build.MANIFEST, manifest)
    store: dict[str, bytes | None] = {}
    for number in range(3):
        other = build.describe("text/plain", b"%d" % number)
        document = {"schemaVersion": 2, "manifests": [listed, other]}
        content = json.dumps(document).encode()
        listed = build.describe(build.INDEX, content)
        store[listed["digest"]] = content
    return archive(path, [[FILE]], index={"manifests": [listed]}, blobs=store)


def _blob(path: Path, digest: str) -> bytes:
    with tarfile.open(path) as tar:
        file = tar.extractfile("blobs/" + digest.replace(":", "/"))
        assert file is not None
        return file.read()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.mark.parametrize("name", CASES)
def test_a_limit(name: str, tmp_path: Path) -> None:
    make, low, high = CASES[name]
    path = make(tmp_path / "image.tar")
    option = "--max-" + name.replace("_", "-")
    refused = run("extract", option, str(low), path, tmp_path / "a")
    assert isinstance(refused.exception, LimitExceeded)
    assert refused.exception.exit_code == 6
    message = str(refused.exception)
    assert f"{option} raises the limit" in message
    assert str(low) in message
    assert MEANINGS[name].what in message or name == "members"
    assert not (tmp_path / "a").exists()
    accepted = run("extract", option, str(high), path, tmp_path / "a")
    assert accepted.exception is None, accepted.exception
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_ratio(tmp_path: Path, compression: build.Compression) -> None:
    """Data after the end of the archive is decompressed, though it is not written anywhere."""
    tar = build.tar([FILE])
    zeros = build.compress(bytes(16 << 20), compression)
    # The same member or frame of 16 MiB, repeated.
    blob = build.compress(tar, compression) + zeros * (RATIO_FROM // (16 << 20) + 1)
    path = archive(tmp_path / "image.tar", [Layer(tar, compression, blob=blob)])
    with ociroot.open(path) as source, pytest.raises(LimitExceeded, match="--max-ratio"):
        source.image().extract(tmp_path / "a")
    assert not (tmp_path / "a").exists()


ZEROS = bytes(16 << 20)
TIMES = RATIO_FROM // len(ZEROS) + 1


def _larger(packed: bytes, compression: build.Compression) -> bytes:
    """Enlarge a gzip member or a zstd frame by data without meaning."""
    if compression == "gzip":
        return b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"n" * 60_000 + b"\0" + packed[10:]
    return b"\x50\x2a\x4d\x18" + (60_000).to_bytes(4, "little") + bytes(60_000) + packed


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_ratio_of_a_layer_that_stands_there_many_times(
    tmp_path: Path, compression: build.Compression
) -> None:
    tar = build.tar([FILE]) + ZEROS
    # Uncompressed, it expands only two hundredfold.
    blob = _larger(build.compress(tar, compression), compression)
    layer = Layer(tar, compression, blob=blob)
    path = archive(tmp_path / "image.tar", [layer] * (TIMES + 1))
    with ociroot.open(path) as source:
        with pytest.raises(LimitExceeded, match="--max-ratio"):
            source.image().tree()
        assert len(list(source.image().layers[-1].entries())) == 1
    path = archive(tmp_path / "image.tar", [layer] * (TIMES - 2))
    with ociroot.open(path) as source:
        assert source.image().tree().root.entries


@pytest.mark.slow
@pytest.mark.parametrize("outer", ["gzip", "zstd"])
@pytest.mark.parametrize("inner", ["gzip", "none"])
def test_the_ratio_of_a_compressed_layer_in_a_compressed_archive(
    tmp_path: Path, inner: build.Compression, outer: build.Compression
) -> None:
    """The size of a layer in a compressed archive is not that of the file."""
    tar = build.tar([FILE])
    blob = _larger(build.compress(ZEROS, "gzip"), "gzip") * TIMES
    if inner == "none":
        # Here the layer itself does not expand, but is repeated.
        tar += ZEROS
        layers = [Layer(tar)] * TIMES
    else:
        layers = [Layer(tar, "gzip", blob=build.compress(tar, "gzip") + blob)]
    path = archive(tmp_path / "image.tar", layers)
    size = path.stat().st_size
    assert size < RATIO_FROM
    path.write_bytes(build.compress(path.read_bytes(), outer))
    assert path.stat().st_size * DEFAULTS.ratio < RATIO_FROM
    with ociroot.open(path) as source, pytest.raises(LimitExceeded, match="--max-ratio"):
        source.image().tree()


@pytest.mark.parametrize("outer", ["gzip", "zstd"])
@pytest.mark.parametrize("inner", ["gzip", "none"])
def test_small_files_of_zeros_may_be_compressed_twice(
    tmp_path: Path, inner: build.Compression, outer: build.Compression
) -> None:
    """They expand a thousandfold, but the total is of normal size."""
    layer = Layer([Member(b"zeros", data=ZEROS)], inner)
    path = archive(tmp_path / "image.tar", [layer] * 3)
    path.write_bytes(build.compress(path.read_bytes(), outer))
    with ociroot.open(path) as source:
        assert source.image().tree().root.entries


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("2K", 2048), ("1MB", 10**6), ("1MiB", 1 << 20), ("3G", 3 << 30)]
)
def test_units(text: str, value: int, tmp_path: Path) -> None:
    from ociroot.cli.limits import _number

    assert _number(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "5B", "1X", "", "9" * 30])
def test_what_is_no_number_is_a_usage_error(text: str, tmp_path: Path) -> None:
    assert run("extract", "--max-layers", text, "x", tmp_path / "a").exit_code == 2


def test_every_limit_has_a_meaning_and_none_may_be_nothing() -> None:
    assert set(MEANINGS) == set(Limits.__struct_fields__)
    # The limit `listing`: tests/test_long_paths.py.
    assert set(CASES) | {"ratio", "listing"} == set(MEANINGS)
    for name in MEANINGS:
        arguments: dict[str, Any] = {name: 0}
        with pytest.raises(ValueError, match=name):
            Limits(**arguments)
    assert DEFAULTS.document == 4 << 20


# Small images that cost much: memory and time are bounded.


def bombs() -> dict[str, tuple[list[Member] | bytes, str | None]]:
    """Return costly layers, with the limit that each exceeds (None: it is merely large)."""
    names = b"/".join([b"d"] * 100_000)
    end = b"%d" % ((1 << 63) - 1)
    runs_ = {b"GNU.sparse.size": end, b"GNU.sparse.map": end + b",0"}
    # Each record is five bytes long, and adds nothing to what is unpacked.
    pax = b"5 a=\n" * 200_000
    pax = build.header(b"pax", b"x", size=len(pax)) + build.padded(pax)
    comment = build.pax_global({b"comment": b"x"})
    return {
        "a path of 100,000 names": ([Member(names)], "path"),
        "100,000 attributes": ([xattrs(100_000)], "extension"),
        "a file of 8 EiB": ([Member(b"f", pax=runs_)], "file_size"),
        "many short records": ((pax + build.entry(Member(b"f"))) * 5, "records"),
        "records without an entry": (pax * 6, "extension"),
        "empty headers without an entry": (build.header(b"pax", b"x") * 300_000, "records"),
        "comments without an entry": (comment * 300_000, "records"),
        "labels without an entry": (build.header(b"label", b"V") * 300_000, "records"),
        "runs of many sparse files": ([runs(3000)] * 100, "records"),
        "runs of many old sparse files": (old_sparse_file(1000) * 20, "records"),
        "a hundred thousand times one name": ([Member(b"f")] * 100_000, None),
        "hidden again and again": (again_and_again(), None),
        "many directories in each entry": (implied(), "entries"),
    }


def again_and_again() -> list[Member]:
    """Return a layer that hides a large directory of its own in many ways, many times."""
    chain = [b"d/" * n for n in range(1, 200)]
    many = [Member(chain[-1] + b"%d" % n) for n in range(20_000)]
    return many + [Member(b".wh.d")] * 10_000 + [Member(way + b".wh..wh..opq") for way in chain]


def old_sparse_file(blocks: int) -> bytes:
    """Return an old GNU sparse file with a map of empty runs in this many extension blocks."""
    head = bytearray(build.header(b"s", b"S", magic=b"ustar  \0"))
    head[482] = 1
    head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 32)
    run = b"%011o\0" % 0 * 2
    more, last = (run * 21 + bytes([flag]) + bytes(7) for flag in (1, 0))
    return bytes(head) + more * (blocks - 1) + last


def implied() -> list[Member]:
    return [Member(b"%d/" % n + b"d/" * 2000 + b"f") for n in range(200)]


@pytest.mark.slow
@pytest.mark.parametrize("name", bombs())
def test_a_bomb(name: str, tmp_path: Path) -> None:
    content, limit = bombs()[name]
    path = archive(tmp_path / "image.tar", [Layer(content, "gzip")])
    with ociroot.open(
        path, ociroot.SourceOptions(limits=Limits(entries=200_000, records=250_000))
    ) as source:
        if limit is None:
            assert source.image().tree().root.entries
        else:
            with pytest.raises(LimitExceeded, match="--max-" + limit.replace("_", "-")):
                source.image().tree()


def million(name: Callable[[int], bytes]) -> bytes:
    """Return a million empty files, built fast; all names have the same length."""
    block = bytearray(build.entry(Member(b"0000000")))
    rest = sum(block[7:148]) + 8 * 32 + sum(block[156:])
    parts = []
    for number in range(1_000_000):
        block[:7] = chosen = name(number)
        block[148:156] = b"%06o\0 " % (rest + sum(chosen))
        parts.append(bytes(block))
    return b"".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize("distinct", [True, False])
def test_a_million_entries(tmp_path: Path, distinct: bool) -> None:
    content = million((lambda number: b"%07d" % number) if distinct else (lambda _: b"0000000"))
    path = archive(tmp_path / "image.tar", [Layer(content, "zstd")])
    with ociroot.open(path) as source:
        merged = source.image().merged()
    assert len(merged.tree.root.entries) == (1_000_000 if distinct else 1)
    assert [(w.code, w.count) for w in merged.warnings] == (
        [] if distinct else [("duplicate-path", 999_999)]
    )
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=Limits(entries=999_999))) as source,
        pytest.raises(LimitExceeded, match="--max-entries"),
    ):
        source.image().tree()


def test_memory_is_what_there_is_and_not_what_there_was(tmp_path: Path) -> None:
    """Removed nodes no longer count: many layers may each replace the whole tree."""
    layer = [Member(b"d/%d" % n, pax={b"SCHILY.xattr.user.a": b"x" * 100}) for n in range(100)]
    upper = [Member(b".wh.d"), Member(b"e/.wh..wh..opq")]
    path = archive(tmp_path / "image.tar", [layer, upper, layer] * 30)
    with ociroot.open(path, ociroot.SourceOptions(limits=Limits(memory=90_000, size=1))) as source:
        directory = source.image().tree().root.entries[b"d"]
    assert isinstance(directory, ociroot.Directory)
    assert len(directory.entries) == 100
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=Limits(memory=60_000))) as source,
        pytest.raises(LimitExceeded, match="--max-memory"),
    ):
        source.image().tree()


def test_what_is_remembered_of_a_layer_counts_as_memory(tmp_path: Path) -> None:
    """Names that a layer has linked, replaced or emptied are kept until its end, removed or not."""
    again: dict[str, Callable[[int], list[Member]]] = {
        "links to what is below": lambda n: [Member(b"d/%d" % n, "link", target=b"f")],
        "directories replaced": lambda n: [Member(b"d/%d/" % n, "dir"), Member(b"d/%d" % n)],
        "directories emptied": lambda n: [Member(b"d/%d/" % n, "dir"), Member(b"d/.wh.%d" % n)],
    }
    for what, members in again.items():
        layer: list[Member] = []
        for number in range(200):
            # The content of the directory is removed each time.
            layer += [Member(b"d/", "dir"), *members(number), Member(b"d")]
        path = archive(tmp_path / "image.tar", [[FILE], layer, layer])
        with (
            ociroot.open(path, ociroot.SourceOptions(limits=Limits(memory=60_000))) as source,
            pytest.raises(LimitExceeded, match=r"layer 2/3.*--max-memory"),
        ):
            source.image().tree()
        with ociroot.open(path, ociroot.SourceOptions(limits=Limits(memory=150_000))) as source:
            assert source.image().tree().root.entries.keys() == {b"f", b"d"}, what


def test_whiteouts_count_as_memory_with_their_names(tmp_path: Path) -> None:
    """They are gathered in a first pass if links are involved before them."""
    lower = [Member(b"l", "symlink", target=b"d"), Member(b"d/f"), Member(b"d/g")]
    long = [Member(b"n/" * 5000 + b".wh.%d" % number) for number in range(50)]
    path = archive(tmp_path / "image.tar", [lower, [Member(b"l/h"), Member(b"l/.wh.f"), *long]])
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=Limits(memory=500_000))) as source,
        pytest.raises(LimitExceeded, match=r"layer 2/2.*--max-memory"),
    ):
        source.image().tree()
    with ociroot.open(path, ociroot.SourceOptions(limits=Limits(memory=2_000_000))) as source:
        assert source.image().tree().find(b"d/f") is None


def nodes() -> int:
    """Return the number of nodes in this process."""
    return sum(isinstance(each, ociroot.Node) for each in gc.get_objects())


def test_what_is_removed_is_freed_at_once(tmp_path: Path) -> None:
    """The garbage collector does not run while layers are applied."""
    # A replaced directory is kept until the end of the layer, and so is its parent.
    filled = [Member(b"d/", "dir"), *(Member(b"d/e/e/%d" % number) for number in range(100))]
    layer = [*filled, Member(b"d/x/", "dir"), Member(b"d/x"), Member(b"d")]
    path = archive(tmp_path / "image.tar", [[*layer * 10, *filled]] * 5)
    gc.collect()
    before, counts = nodes(), []
    with ociroot.open(path) as source:
        source.image().merged(after_layer=lambda tree, _: counts.append(nodes() - before))
    # Some 115 and the directories that the layer keeps; not 1000 more in each layer.
    assert max(counts) < 200


def test_contents_that_are_hashed_are_those_of_the_tree(tmp_path: Path) -> None:
    layer = [Member(b"d/", "dir"), *(Member(b"d/%d" % number) for number in range(100))]
    layer += [Member(b"d/l%d" % number, "link", target=b"d/%d" % number) for number in range(50)]
    path = archive(
        tmp_path / "image.tar", [[*layer, Member(b"d"), *layer], [Member(b".wh.d")], layer]
    )
    hashing = Hashing(DEFAULTS)
    with ociroot.open(path) as source:
        source.image().merged(operations=lambda: hashing)
    assert len(hashing.digests) == 100


def test_contents_that_are_kept_are_bounded_with_their_attributes(tmp_path: Path) -> None:
    """The requested file can occur many times, each time with a megabyte of attributes."""
    attributes = {b"user.%d" % number: bytes(64 << 10) for number in range(16)}
    kept = ContentCache([b"f"])
    for _ in range(1000):
        node = ociroot.Node("file", 0)
        node.xattrs = attributes
        kept.make_file(ociroot.Directory(None, b"", 0), b"f", node, ChunkStream(iter(())))
    assert node not in kept
