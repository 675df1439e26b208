"""The cpio archive: its bytes, as the kernel's documentation has them, and what it cannot hold."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard

import ociroot
from ociroot import ExportOptions

from .support.build import Layer, Member, archive, directory, file, link, symlink
from .support.needs import need_tools


class Entry(NamedTuple):
    """An entry of an archive, read as init/initramfs.c reads it."""

    name: bytes
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime: int
    dev: tuple[int, int]
    rdev: tuple[int, int]
    data: bytes


def entries(content: bytes) -> list[Entry]:
    """Read an archive to its end, and check all of its padding."""
    found: list[Entry] = []
    at = 0
    while True:
        assert content[at : at + 6] == b"070701" and at % 4 == 0
        numbers = [int(content[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        ino, mode, uid, gid, nlink, mtime, size, major, minor, rmajor, rminor, length, check = (
            numbers
        )
        assert check == 0
        start = at + 110
        name = content[start : start + length - 1]
        assert content[start + length - 1] == 0 and b"\0" not in name
        data = start + length + -(start + length) % 4
        assert not any(content[start + length : data])
        at = data + size + -size % 4
        assert not any(content[data + size : at])
        entry = (name, ino, mode, uid, gid, nlink, mtime, (major, minor), (rmajor, rminor))
        if name == b"TRAILER!!!":
            assert entry[1:] == (0, 0, 0, 0, 1, 0, (0, 0), (0, 0)) and size == 0
            assert len(content) % 512 == 0 and not any(content[at:]) and len(content) - at < 512
            return found
        found.append(Entry(*entry, content[data : data + size]))


def export(image: Path, **options: Any) -> bytes:
    out = io.BytesIO()
    with ociroot.open(image) as source:
        source.image().export(out, ExportOptions(format="cpio", **options))
    return out.getvalue()


LAYER: list[Member] = [
    directory(b"./", mode=0o750, uid=1, gid=2, mtime=3),
    directory(b"d", mode=0o2755),
    file(b"d/file", b"12345", mode=0o4711, uid=2**32 - 2, gid=70_000, mtime=2**32 - 1),
    link(b"a", b"d/file"),
    link(b"z", b"d/file"),
    file(b"empty"),
    link(b"e2", b"empty"),
    symlink(b"s", b"to/it", uid=3),
    Member(b"c", "char", rdev=(1, 3), mode=0o666),
    link(b"c2", b"c"),
    Member(b"b", "block", rdev=(4095, 70_000)),
    Member(b"p", "fifo"),
    file(b"TRAILER!!!", b"not the end"),
]


def test_every_kind(tmp_path: Path) -> None:
    found = entries(export(archive(tmp_path / "image", [Layer(LAYER, "gzip")])))
    by_name = {each.name: each for each in found}
    order = [b".", b"./TRAILER!!!", b"a", b"b", b"c", b"c2", b"d", b"d/file", b"e2", b"empty"]
    assert [each.name for each in found] == [*order, b"p", b"s", b"z"]
    assert {each.dev for each in found} == {(0, 0)}
    root, below = by_name[b"."], by_name[b"d"]
    assert (root.mode, root.uid, root.gid, root.mtime) == (0o40750, 1, 2, 3)
    assert below.mode == 0o42755
    first, second, last = (by_name[name] for name in (b"a", b"d/file", b"z"))
    assert (first.data, second.data, last.data) == (b"12345", b"", b""), "with the first name"
    assert first.mode == second.mode == last.mode == 0o104711
    assert first.ino == second.ino == last.ino and first.nlink == second.nlink == last.nlink == 3
    assert (first.uid, first.gid, first.mtime) == (2**32 - 2, 70_000, 2**32 - 1)
    assert by_name[b"empty"].ino == by_name[b"e2"].ino and by_name[b"e2"].nlink == 2
    assert by_name[b"c"].ino == by_name[b"c2"].ino and by_name[b"c"].nlink == 2
    assert (by_name[b"c"].mode, by_name[b"c"].rdev) == (0o20666, (1, 3))
    assert (by_name[b"b"].mode, by_name[b"b"].rdev) == (0o60644, (4095, 70_000))
    assert by_name[b"p"].mode == 0o10644
    assert (by_name[b"s"].mode, by_name[b"s"].data, by_name[b"s"].uid) == (0o120777, b"to/it", 3)
    inodes = [each.ino for each in found]
    assert len(set(inodes)) == len(inodes) - 4 and 0 not in inodes


def test_symbolic_links_repeat_their_target(tmp_path: Path) -> None:
    """The kernel makes each of them anew, and skips one without a target."""
    layer = [symlink(b"a", b"there"), link(b"b", b"a")]
    found = entries(export(archive(tmp_path / "image", [layer])))
    assert [each.data for each in found] == [b"", b"there", b"there"]
    assert found[1].ino == found[2].ino


def test_links_in_the_order_of_the_layers(tmp_path: Path) -> None:
    image = archive(tmp_path / "image", [Layer(LAYER, "gzip")])
    found = entries(export(image, order="layers"))
    wanted = {each.name: each._replace(ino=0) for each in entries(export(image))}
    data = {each.ino: each.data for each in found if each.data and each.mode >> 12 == 8}
    for each in found:
        assert each._replace(ino=0, data=b"") == wanted[each.name]._replace(data=b"")
    assert sorted(data.values()) == [b"12345", b"not the end"]
    seen: set[int] = set()
    for each in found:
        assert not each.data or each.mode >> 12 != 8 or each.ino not in seen, "with the first name"
        seen.add(each.ino)


def test_a_sparse_file_is_expanded(tmp_path: Path) -> None:
    pax = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
    pax |= {b"GNU.sparse.name": b"sparse", b"GNU.sparse.realsize": b"10000"}
    stored = b"1\n5000\n3\n".ljust(512, b"\0") + b"abc"
    layer = [Member(b"GNUSparseFile.0/sparse", data=stored, pax=pax)]
    found = entries(export(archive(tmp_path / "image", [layer])))
    assert found[1].data == bytes(5000) + b"abc" + bytes(4997)


def sparse(size: int) -> list[Member]:
    """A file of that size that is a hole."""
    pax = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
    pax |= {b"GNU.sparse.name": b"huge", b"GNU.sparse.realsize": b"%d" % size}
    return [Member(b"GNUSparseFile.0/huge", data=b"0\n".ljust(512, b"\0"), pax=pax)]


def test_a_file_of_4_gib(tmp_path: Path) -> None:
    image = archive(tmp_path / "image", [sparse(2**32)])
    with (
        ociroot.open(image) as source,
        pytest.raises(ociroot.Unsupported, match=r"huge.* file of 4294967296 bytes"),
    ):
        source.image().export(tmp_path / "out.cpio")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]


def test_holes_are_bounded(tmp_path: Path) -> None:
    """What expands beyond all measure is refused before it fills a disk."""
    image = archive(tmp_path / "image", [sparse(2**32 - 1)])
    limits = ociroot.SourceOptions(limits=ociroot.Limits(ratio=2))
    with (
        ociroot.open(image, limits) as source,
        pytest.raises(ociroot.LimitExceeded, match="ratio"),
    ):
        source.image().export(tmp_path / "out.cpio")


def test_paths_that_the_kernel_would_skip(tmp_path: Path) -> None:
    """PATH_MAX with the NUL is 4096; a longer one is skipped by it without a word."""
    deep = b"/".join([b"d" * 255] * 15 + [b"e" * 250])
    exact = deep + b"/" + b"f" * (4095 - len(deep) - 1)
    found = entries(export(archive(tmp_path / "image", [[file(exact, b"there")]])))
    assert found[-1].data == b"there" and len(found[-1].name) == 4095
    for number, layer in enumerate(([file(exact + b"f")], [directory(exact + b"f")])):
        with pytest.raises(ociroot.Unsupported, match="too long for the kernel"):
            export(archive(tmp_path / f"long-{number}", [layer]))
    export(archive(tmp_path / "target", [[symlink(b"s", b"t" * 4095)]]))


# -- compression ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gzip", "xz", "zstd", "gzip:9", "zstd:1", "xz:0", "none"])
def test_compression_is_one_stream(tmp_path: Path, method: str) -> None:
    """The kernel reads one gzip member, xz stream or zstd frame, and takes the rest for junk."""
    layer = [file(b"big", bytes(range(256)) * (40 << 12))]
    image = archive(tmp_path / "image", [layer])
    plain, packed = export(image), export(image, compress=method)
    assert len(plain) > 40 << 20
    name = method.partition(":")[0]
    if name == "none":
        assert packed == plain
    elif name == "gzip":
        assert gzip.decompress(packed) == plain
        assert packed.count(b"\x1f\x8b\x08\0\0\0\0\0") == 1
    elif name == "xz":
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        assert decompressor.decompress(packed) == plain
        assert decompressor.eof and decompressor.unused_data == b""
        assert decompressor.check == lzma.CHECK_CRC32, "the kernel knows no other"
    else:
        frame = zstandard.ZstdDecompressor().decompressobj()
        assert frame.decompress(packed) == plain
        assert frame.eof and frame.unused_data == b""
    assert export(image, compress=method) == packed


def test_by_the_name_of_the_file(tmp_path: Path) -> None:
    image = archive(tmp_path / "image", [LAYER])
    plain = export(image)
    with ociroot.open(image) as source:
        for ending, compression in (
            ("", None),
            (".gz", "gzip:6"),
            (".xz", "xz:6"),
            (".zst", "zstd:3"),
        ):
            report = source.image().export(tmp_path / f"out.cpio{ending}")
            assert (report.format, report.compression) == ("cpio", compression)
    assert (tmp_path / "out.cpio").read_bytes() == plain
    assert gzip.decompress((tmp_path / "out.cpio.gz").read_bytes()) == plain
    assert lzma.decompress((tmp_path / "out.cpio.xz").read_bytes()) == plain


def test_archives_one_after_the_other(tmp_path: Path) -> None:
    """As boot loaders and initramfs-tools put them: the second adds to the first."""
    need_tools("bsdcpio")
    one = export(archive(tmp_path / "1", [[file(b"a", b"1"), file(b"b", b"1")]]))
    two = export(archive(tmp_path / "2", [[file(b"b", b"2")]]))
    assert len(one) % 512 == 0
    assert [each.data for each in entries(one)[1:]] == [b"1", b"1"]
    assert entries(two)[1].data == b"2"


def test_the_command(tmp_path: Path) -> None:
    image = archive(tmp_path / "image", [LAYER])
    command = [sys.executable, "-m", "ociroot", "export", "--format", "cpio"]
    done = subprocess.run([*command, str(image), "-"], capture_output=True, check=True)
    assert done.stdout == export(image)
    assert b"cpio" in done.stderr
