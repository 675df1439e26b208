"""No space, no inodes, no more of them for this user: a clear error, and all is given back."""

from __future__ import annotations

import errno
import gzip
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import ociroot
from ociroot import Limits
from ociroot.errors import DestinationError

from .support.build import Layer, Member, archive
from .support.mounts import disk, mounted, room
from .support.needs import need_root, need_tools
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
# Without a limit of their own on what is written, so that the kernel is the one to say no.
UNCHECKED = Limits(size=1 << 40)


@pytest.fixture
def place() -> Iterator[Path]:
    need_root()
    need_tools("mkfs.ext4", "mount")
    with workshop() as where:
        yield where


def extract(path: Path, root: Path, *, replace: bool = False, limits: Limits = UNCHECKED) -> None:
    with ociroot.open(path, limits=limits) as source:
        source.image().extract(root, replace=replace)


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


@pytest.mark.parametrize("make", [ext4, tmpfs])
def test_at_each_size(place: Path, make: Make) -> None:
    """From far too small to just too small; beyond that it goes through."""
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


def test_a_mount_point_that_is_too_small(place: Path) -> None:
    """There the result is staged inside."""
    image = archive(place / "image", LAYERS)
    with tmpfs(place, 200, 400) as fs:
        before = room(fs)
        refused(image, fs)
        assert list(fs.iterdir()) == []
        assert room(fs) == before


def test_the_old_tree_stays_when_the_new_one_has_no_room(place: Path) -> None:
    image = archive(place / "image", LAYERS)
    with tmpfs(place, 500, 400) as fs:
        extract(archive(place / "old", [[Member(b"old", data=bytes(200_000))]]), fs / "root")
        before = snapshot(fs / "root")
        refused(image, fs / "root", replace=True)
        assert differences(before, snapshot(fs / "root")) == []
        assert [path.name for path in fs.iterdir()] == ["root"]


def test_space_is_looked_at_before_anything_is_written(place: Path) -> None:
    noise = random.Random(3).randbytes(400_000)
    image = archive(place / "image", [[Member(b"a", data=noise)]])
    with tmpfs(place, 300, 100) as fs, pytest.raises(DestinationError) as caught:
        extract(image, fs / "root", limits=Limits())
    assert "no space: the layers have" in str(caught.value)
    assert "--max-size" in str(caught.value)
    assert caught.value.is_full


def test_a_reserve_is_left(place: Path) -> None:
    """Whoever fills a file system to the last byte stops everybody else on it."""
    layers = [Layer([Member(b"%d" % n, data=bytes(1 << 20)) for n in range(64)], "gzip")]
    image = archive(place / "image", layers)
    with tmpfs(place, 60 << 10, 100) as fs:
        with pytest.raises(DestinationError, match=r"no space for .* a reserve of") as caught:
            extract(image, fs / "root", limits=Limits())
        assert caught.value.is_full
        assert list(fs.iterdir()) == []


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
    """It is a few hundred kilobytes here, and what a file takes is more than its bytes."""
    image = archive(place / "image", [Layer(members, "gzip")])
    with tmpfs(place, 20 << 10, 10_000) as fs:
        with pytest.raises(DestinationError, match="a reserve of 209715 bytes is left"):
            extract(image, fs / "root", limits=Limits())
        assert list(fs.iterdir()) == []


def test_no_room_to_decompress_the_archive(place: Path) -> None:
    image = archive(place / "image", [Layer(LAYERS[0].content)])
    packed = place / "image.gz"
    packed.write_bytes(gzip.compress(image.read_bytes()))
    with tmpfs(place, 100, 100) as fs:
        with pytest.raises(DestinationError, match="--tmpdir") as caught:
            ociroot.open(packed, tmpdir=fs)
        assert caught.value.is_full
        assert list(fs.iterdir()) == []


def test_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = archive(tmp_path / "image", LAYERS)
    write = os.write

    def limited(fd: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "large":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return write(fd, data)

    monkeypatch.setattr(os, "write", limited)
    text = refused(image, tmp_path / "root")
    assert "quota is used up after" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]
