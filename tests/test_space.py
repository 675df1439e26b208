"""What may be written to a file system: looked at now and then, and a reserve of it is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ociroot.errors import DestinationError
from ociroot.space import SpaceBudget, explain_full

FREE = 10 << 30
RESERVE = 256 << 20
Used = Callable[[int], None]


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


class FileSystem:
    """One of 1 TiB, as statvfs(3) tells it."""

    def __init__(self) -> None:
        self.free = FREE
        self.looks = 0
        self.inodes = (0, 0)

    def __call__(self, fd: int) -> os.statvfs_result:
        self.looks += 1
        blocks = (1 << 40) // 4096
        free = self.free // 4096
        return os.statvfs_result((4096, 4096, blocks, free, free, *self.inodes, 0, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FileSystem:
    disk = FileSystem()
    monkeypatch.setattr(os, "fstatvfs", disk)
    return disk


def test_it_is_looked_at_now_and_then(fd: int, disk: FileSystem) -> None:
    """A call for each file would cost as much as a small file does."""
    budget = SpaceBudget(fd, remedy="delete something")
    for _ in range(100_000):
        budget.claim(10_000)
        disk.free -= 10_000
    assert budget.claimed == 1_000_000_000
    assert 1_000_000_000 // (128 << 20) < disk.looks < 20


def test_the_reserve_is_left(fd: int, disk: FileSystem) -> None:
    """At least half of it, however much comes at once."""
    budget = SpaceBudget(fd, remedy="delete something", so_far=lambda: " after all that")
    size = 1 << 20
    with pytest.raises(DestinationError) as caught:
        for _ in range(FREE // size):
            budget.claim(size)
            disk.free -= size
    assert RESERVE // 2 - size <= disk.free <= RESERVE
    assert caught.value.is_full
    assert caught.value.exit_code == 7
    assert str(caught.value) == (
        f"no space for {size} more bytes after all that: a reserve of {RESERVE} bytes is kept "
        "(delete something)"
    )


def test_what_is_on_its_way_counts(fd: int, disk: FileSystem) -> None:
    """Claimed by one process, and not yet written by the other."""
    written = 0
    budget = SpaceBudget(fd, remedy="", written=lambda: written)
    with pytest.raises(DestinationError):
        for _ in range(FREE >> 20):
            budget.claim(1 << 20)
    assert budget.claimed <= FREE - RESERVE // 2 + (1 << 20)


def test_without_a_reserve_nothing_is_refused(fd: int, disk: FileSystem) -> None:
    """The user has said how much it may be; the kernel says when it is full."""
    budget = SpaceBudget(fd, remedy="", reserved=False)
    budget.claim(FREE * 10)
    budget.require(FREE, "it does not fit")
    with pytest.raises(DestinationError, match=r"^it does not fit$"):
        budget.require(FREE + 1, "it does not fit")


def test_one_of_two_looks(fd: int, disk: FileSystem) -> None:
    budget = SpaceBudget(fd, remedy="")
    budget.stop_looking()
    looks = disk.looks
    budget.claim(FREE * 10)
    assert disk.looks == looks


def test_what_is_used_up(fd: int, disk: FileSystem) -> None:
    assert explain_full(fd, errno.EDQUOT) == "the disk quota is exceeded"
    assert explain_full(fd, errno.ENOSPC) == "its file system is full"  # btrfs: no inodes at all
    disk.inodes = (1000, 0)
    assert explain_full(fd, errno.ENOSPC) == "its file system has no inodes left"
