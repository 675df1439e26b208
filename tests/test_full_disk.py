"""No space, no inodes, or no quota: a clear error, and all space is freed."""

from __future__ import annotations

import errno
import gzip
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import Limits
from ociroot.api import extraction as extracting
from ociroot.errors import DestinationError, LimitExceeded

from .support.build import Kind, Layer, Member, archive
from .support.mounts import disk, mounted, room
from .support.needs import need_tools
from .support.snapshot import differences, snapshot
from .support.tally import tally
from .support.user import workshop

_noise = random.Random(2)
LAYERS = [
    Layer(
        [
            Member(b"d", "dir"),
            *(Member(b"d/%d" % n, data=_noise.randbytes(900)) for n in range(60)),
            Member(b"large", data=_noise.randbytes(200_000)),
        ],
        "gzip",
    ),
    Layer([Member(b"d/.wh.3"), Member(b"e/f", data=_noise.randbytes(100_000))], "zstd"),
]
# With --max-size there is no reserve, so that the kernel reports the error.
UNCHECKED = Limits(size=1 << 40)


@pytest.fixture
def place() -> Iterator[Path]:
    need_tools("mkfs.ext4", "mount")
    with workshop() as where:
        yield where


def extract(path: Path, root: Path, *, replace: bool = False, limits: Limits = UNCHECKED) -> None:
    with ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source:
        source.image().extract(root, ociroot.ExtractOptions(replace_anything=replace))


def refused(path: Path, root: Path, *, replace: bool = False) -> str:
    with pytest.raises(DestinationError) as caught:
        extract(path, root, replace=replace)
    assert caught.value.is_full
    assert caught.value.exit_code == 7
    tally("a full file system", "refused, all given back")
    text = str(caught.value)
    assert str(root) in text
    assert "nothing was left behind" in text
    return text


Make = Callable[[Path, int, int], AbstractContextManager[Path]]


def ext4(place: Path, size: int, inodes: int) -> AbstractContextManager[Path]:
    options = ("-q", "-m", "0", "-O", "^has_journal", "-N", str(inodes))
    return disk(place / "fs", "ext4", f"{size + 200}K", *options)


def tmpfs(place: Path, size: int, inodes: int) -> AbstractContextManager[Path]:
    options = f"size={size}k,nr_inodes={inodes}"
    return mounted(place / "fs", "-t", "tmpfs", "-o", options, "ociroot-test")


@pytest.mark.root
@pytest.mark.parametrize("make", [ext4, tmpfs])
def test_at_each_size(place: Path, make: Make) -> None:
    """From far too small to just too small; beyond that it succeeds."""
    image = archive(place / "image", LAYERS)
    failed = went = 0
    for size in range(100, 900, 40):
        with make(place, size, 400) as fs:
            (fs / "root").mkdir()
            (fs / "root").rmdir()
            before = room(fs)
            try:
                extract(image, fs / "root")
                went += 1
            except DestinationError:
                text = refused(image, fs / "root")
                assert "file system is full after" in text
                failed += 1
                assert list(fs.iterdir()) == []
                assert room(fs) == before
    assert failed > 3
    assert went > 3


@pytest.mark.root
@pytest.mark.parametrize("make", [ext4, tmpfs])
def test_at_each_number_of_inodes(place: Path, make: Make) -> None:
    image = archive(place / "image", LAYERS)
    failed = went = 0
    for inodes in range(16, 112, 8):
        with make(place, 4000, inodes) as fs:
            before = room(fs)
            try:
                extract(image, fs / "root")
                went += 1
            except DestinationError:
                assert "no inodes left after" in refused(image, fs / "root")
                failed += 1
                assert list(fs.iterdir()) == []
                assert room(fs) == before
    assert failed > 3
    assert went > 1


@pytest.mark.root
def test_a_mount_point_that_is_too_small(place: Path) -> None:
    """The result is staged inside it."""
    image = archive(place / "image", LAYERS)
    with tmpfs(place, 200, 400) as fs:
        before = room(fs)
        refused(image, fs)
        assert list(fs.iterdir()) == []
        assert room(fs) == before


@pytest.mark.root
def test_the_old_tree_stays_when_the_new_one_has_no_room(place: Path) -> None:
    image = archive(place / "image", LAYERS)
    with tmpfs(place, 500, 400) as fs:
        extract(archive(place / "old", [[Member(b"old", data=bytes(200_000))]]), fs / "root")
        before = snapshot(fs / "root")
        refused(image, fs / "root", replace=True)
        assert differences(before, snapshot(fs / "root")) == []
        assert [path.name for path in fs.iterdir()] == ["root"]


@pytest.mark.root
def test_space_is_looked_at_before_anything_is_written(place: Path) -> None:
    noise = random.Random(3).randbytes(400_000)
    image = archive(place / "image", [[Member(b"a", data=noise)]])
    with tmpfs(place, 300, 100) as fs, pytest.raises(DestinationError) as caught:
        extract(image, fs / "root", limits=Limits())
    assert "no space: the layers have" in str(caught.value)
    assert "--max-size" in str(caught.value)
    assert caught.value.is_full


@pytest.mark.root
def test_a_reserve_is_left(place: Path) -> None:
    """A file system that is full to the last byte stops all its other users."""
    layers = [Layer([Member(b"%d" % n, data=bytes(1 << 20)) for n in range(64)], "gzip")]
    image = archive(place / "image", layers)
    with tmpfs(place, 60 << 10, 100) as fs:
        with pytest.raises(DestinationError, match=r"no space for .* a reserve of") as caught:
            extract(image, fs / "root", limits=Limits())
        assert caught.value.is_full
        assert list(fs.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize(
    "members",
    [
        [Member(b"%d" % n, data=b"x") for n in range(8000)],
        [Member(b"%d" % n, data=bytes(64 << 10)) for n in range(400)],
        [Member(b"a", data=bytes((20 << 20) - (100 << 10))), Member(b"b", data=bytes(200 << 10))],
    ],
    ids=["of a byte", "of a block", "beyond in one step"],
)
def test_a_small_reserve_is_left(place: Path, members: list[Member]) -> None:
    """It is a few hundred kilobytes here, and a file takes more than its bytes."""
    image = archive(place / "image", [Layer(members, "gzip")])
    with tmpfs(place, 20 << 10, 10_000) as fs:
        with pytest.raises(DestinationError, match="a reserve of 209715 bytes is kept"):
            extract(image, fs / "root", limits=Limits())
        assert list(fs.iterdir()) == []


def scattered(name: bytes, runs: int, every: int = 4096, at: int = 0, length: int = 1) -> Member:
    """Return a sparse file (format 1.0) with single bytes of data, each in a block of its own."""
    numbers = [runs, *(n for run in range(runs) for n in (at + run * every, length))]
    size = at + runs * every + length
    text = b"".join(b"%d\n" % number for number in numbers)
    records = {b"major": b"1", b"minor": b"0", b"name": name, b"realsize": b"%d" % size}
    return Member(
        name,
        data=text.ljust(-len(text) // 512 * -512, b"\0") + b"x" * runs * length,
        pax={b"GNU.sparse." + key: value for key, value in records.items()},
    )


def value(number: int) -> dict[bytes, bytes]:
    """Return an extended attribute that is not shared between inodes."""
    return {b"trusted.k": b"%d" % number + bytes(60_000)}


KINDS: tuple[Kind, ...] = ("file", "fifo", "symlink")
LARGER = {
    "runs": [scattered(b"%d" % n, 1500) for n in range(12)],
    "a single file": [scattered(b"f", 20_000)],
    "names": [
        Member(b"file"),
        *(Member(b"%05d" % n + b"n" * 240, "link", target=b"file") for n in range(30_000)),
    ],
    "attributes": [
        Member(b"%d" % n, KINDS[n % 3], target=b"t", xattrs=value(n)) for n in range(400)
    ],
    "attributes of directories": [Member(b"%d" % n, "dir", xattrs=value(n)) for n in range(400)],
}


@pytest.mark.root
@pytest.mark.parametrize("writer_process", [False, True])
@pytest.mark.parametrize("case", LARGER)
def test_a_reserve_is_left_by_what_has_few_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch, case: str, writer_process: bool
) -> None:
    """An image of a few hundred kilobytes could otherwise fill the disk."""
    image = archive(place / "image", [Layer(LARGER[case], "gzip")])
    assert image.stat().st_size < 1_000_000
    options = ("-q", "-m", "0", "-N", "2000", "-O", "^has_journal,ea_inode")
    with disk(place / "fs", "ext4", "6M", *options) as fs:
        before = room(fs)
        least = free_at_the_end(image, fs, monkeypatch, writer_process)
        assert least > reserve(fs) // 2
        if case not in ("runs", "a single file"):  # refused before they are written
            assert least < before[0] // 3  # it is not refused too early
        assert room(fs) == before


def reserve(fs: Path) -> int:
    status = os.statvfs(fs)
    return status.f_blocks * status.f_frsize // 100


def free_at_the_end(
    image: Path, fs: Path, monkeypatch: pytest.MonkeyPatch, writer_process: bool
) -> int:
    """Return the free space when an image has been refused, before anything is removed."""
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    free: list[int] = []
    real = os.scandir

    def scandir(*arguments: Any) -> Any:
        free.append(room(fs)[0])
        return real(*arguments)

    with ociroot.open(image) as source:
        chosen = source.image()
        monkeypatch.setattr(os, "scandir", scandir)
        words = f"a reserve of {reserve(fs)} bytes is kept"
        with pytest.raises(DestinationError, match=words):
            chosen.extract(fs / "root", ociroot.ExtractOptions(writer_process=writer_process))
    return free[0]


@pytest.mark.root
@pytest.mark.parametrize("writer_process", [False, True])
def test_a_reserve_is_left_where_blocks_are_large(
    place: Path, monkeypatch: pytest.MonkeyPatch, writer_process: bool
) -> None:
    """Each of these files takes 64 KiB, which shows in the free space."""
    members = [Member(b"%d" % n, data=b"x") for n in range(4000)]
    image = archive(place / "image", [Layer(members, "gzip")])
    options = ("-q", "-m", "0", "-N", "6000", "-O", "^has_journal,bigalloc", "-C", "65536")
    with disk(place / "fs", "ext4", "100M", *options) as fs:
        before = room(fs)
        least = free_at_the_end(image, fs, monkeypatch, writer_process)
        assert least > reserve(fs) // 2
        assert room(fs) == before


@pytest.mark.root
def test_a_sparse_file_is_counted_by_its_blocks(place: Path) -> None:
    """--max-size counts blocks on disk; removed files no longer count."""
    layers = [
        [scattered(b"f", 100), Member(b"g", data=bytes(5000))],
        [scattered(b"f", 100, at=4095, length=2), Member(b".wh.g")],  # each run in two blocks
        # Many runs in few blocks.
        [Member(b".wh.f"), scattered(b"h", 4096, every=2), Member(b"i", data=bytes(50))],
    ]
    image = archive(place / "image", layers)
    most = 101 * 4096 + 5000
    with tmpfs(place, 32 << 10, 100) as fs:
        extract(image, fs / "root", limits=Limits(size=most))
        assert (fs / "root/h").stat().st_blocks * 512 == 8192
        with pytest.raises(LimitExceeded, match=str(most)):
            extract(image, fs / "other", limits=Limits(size=most - 1))


@pytest.mark.root
def test_usual_files_are_counted_by_their_bytes(place: Path) -> None:
    members = [Member(b"%d" % n, data=b"x" * n) for n in range(100)]
    attributes = {b"user.k": bytes(1000)}
    image = archive(place / "image", [[*members, Member(b"a", data=b"x", xattrs=attributes)]])
    size = sum(range(100)) + 1
    extract(image, place / "root", limits=Limits(size=size))
    with pytest.raises(LimitExceeded):
        extract(image, place / "other", limits=Limits(size=size - 1))


@pytest.mark.root
def test_no_room_to_decompress_the_archive(place: Path) -> None:
    image = archive(place / "image", [Layer(LAYERS[0].content)])
    packed = place / "image.gz"
    packed.write_bytes(gzip.compress(image.read_bytes()))
    with tmpfs(place, 100, 100) as fs:
        with pytest.raises(DestinationError, match="--tmpdir") as caught:
            ociroot.open(packed, ociroot.SourceOptions(tmpdir=fs))
        assert caught.value.is_full
        assert list(fs.iterdir()) == []


@pytest.mark.root
def test_the_archive_is_not_decompressed_into_the_reserve(place: Path) -> None:
    """A hundredth of the file system stays free, unless the user gives --max-spool."""
    image = archive(place / "image", [[Member(b"f", data=random.Random(1).randbytes(8_000_000))]])
    packed = place / "image.gz"
    packed.write_bytes(gzip.compress(image.read_bytes(), 1))
    size = image.stat().st_size
    limits = Limits(spool=size)
    for free, fits in ((size + 200_000, True), (size + 30_000, False)):
        with tmpfs(place, 8 << 20 >> 10, 100) as fs:
            reserve = (8 << 20) // 100
            (fs / "others").write_bytes(bytes((8 << 20) - free - 4096 & ~4095))
            assert fits == (os.statvfs(fs).f_bavail * 4096 > size + reserve)
            if fits:
                ociroot.open(packed, ociroot.SourceOptions(tmpdir=fs)).close()
            else:
                with pytest.raises(DestinationError, match="--max-spool") as caught:
                    ociroot.open(packed, ociroot.SourceOptions(tmpdir=fs))
                assert caught.value.is_full
                assert "reserve" in str(caught.value)
                ociroot.open(packed, ociroot.SourceOptions(tmpdir=fs, limits=limits)).close()
            assert [path.name for path in fs.iterdir()] == ["others"]


@pytest.mark.root
def test_the_archive_takes_no_more_than_it_may(place: Path) -> None:
    image = archive(place / "image", LAYERS)
    size = image.stat().st_size
    packed = place / "image.gz"
    packed.write_bytes(gzip.compress(image.read_bytes()))
    ociroot.open(packed, ociroot.SourceOptions(limits=Limits(spool=size))).close()
    with pytest.raises(LimitExceeded, match="--max-spool"):
        ociroot.open(packed, ociroot.SourceOptions(limits=Limits(spool=size - 1)))


def test_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = archive(tmp_path / "image", LAYERS)
    write = os.write

    def limited(fd: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "large":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return write(fd, data)

    monkeypatch.setattr(os, "write", limited)
    text = refused(image, tmp_path / "root")
    assert "quota is exceeded after" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]
