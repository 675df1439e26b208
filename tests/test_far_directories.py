"""Directories far below the root: their parents are not opened one by one for each entry."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.outputs.directory.far import open_far

from .support.build import Layer, Member, archive, directory, file, symlink

DEPTH = 400
FAR = b"d/" * (DEPTH - 1)


def opens(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """Return how many directories some work opens one by one."""
    count = 0
    real = os.open

    def counted(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        nonlocal count
        count += bool(flags & os.O_DIRECTORY)
        return real(path, flags, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", counted)
        work()
    return count


def extracted(tmp_path: Path, *layers: list[Member]) -> Callable[[], object]:
    path = archive(tmp_path / "image.tar", [Layer(layer, "gzip") for layer in layers])

    def work() -> None:
        with ociroot.open(path) as source:
            source.image().extract(tmp_path / "rootfs")

    return work


def to_and_fro(count: int) -> list[Member]:
    """Return files that alternate between two directories far from each other."""
    return [
        *(directory(b"%d/" % n + FAR) for n in range(2)),
        *(symlink(b"l%d" % n, b"%d/" % n + FAR) for n in range(2)),
        *(file(b"l%d/%d" % (n % 2, n), b"%d" % n) for n in range(count)),
    ]


def check(rootfs: Path, count: int) -> None:
    for top in range(2):
        fd = os.open(rootfs / str(top), os.O_RDONLY)
        for _ in range(DEPTH - 1):
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        with os.scandir(fd) as found:
            assert sorted(int(entry.name) for entry in found) == list(range(top, count, 2))
        name = str(top)
        file_fd = os.open(name, os.O_RDONLY, dir_fd=fd)
        assert os.read(file_fd, 10) == name.encode()
        os.close(file_fd)
        os.close(fd)


def test_entries_to_and_fro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = opens(monkeypatch, extracted(tmp_path, to_and_fro(100)))
    # Each directory once to be created and once for its attributes, and a few for each file.
    assert count < 2 * 2 * DEPTH + 100 * 30
    check(tmp_path / "rootfs", 100)


def test_where_linux_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ociroot.outputs.directory.handles.open_far", lambda fd, names: None)
    count = opens(monkeypatch, extracted(tmp_path, to_and_fro(10)))
    assert count > 10 * DEPTH
    check(tmp_path / "rootfs", 10)


@pytest.mark.parametrize("top", [b"", b"top/"])
def test_many_deep_directories_that_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: bytes
) -> None:
    """Neither attributes nor removals open all of them."""
    chains = 100
    deep = [file(top + b"%d/" % n + b"d/" * 99 + b"f") for n in range(chains)]
    gone = [Member(b".wh.top")] if top else [Member(b".wh.%d" % n) for n in range(chains)]
    keep = [file(b"kept/" + b"d/" * 99 + b"f%d" % n) for n in range(2)]
    count = opens(monkeypatch, extracted(tmp_path, deep, [*gone, *keep]))
    assert [each.name for each in (tmp_path / "rootfs").iterdir()] == ["kept"]
    assert count < 3 * 100 * chains


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_link_is_followed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "l").symlink_to("a")
    (tmp_path / "a/m").symlink_to("b")
    (tmp_path / "a/b/n").symlink_to("c")
    (tmp_path / "a/f").touch()
    names = [b"a", b"b", b"c"]
    found = open_far(here, names)
    if found is None:
        pytest.skip("this kernel has no openat2")
    assert os.path.samestat(os.fstat(found), (tmp_path / "a/b/c").stat())
    os.close(found)
    before = descriptors()
    for names in (
        [b"l", b"b", b"c"],
        [b"a", b"m", b"c"],
        [b"a", b"b", b"n"],
        [b"a", b"f"],
        [b"a", b"nothing"],
        [b"..", b"a"],
        [b"a/../l"],
        [b"/"],
    ):
        assert open_far(here, names) is None, names
    assert descriptors() == before
    os.close(here)


def test_a_path_of_more_than_linux_takes(tmp_path: Path) -> None:
    here = top = os.open(tmp_path, os.O_RDONLY)
    name = b"n" * 255
    for number in range(40):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        if number:
            os.close(here)
        here = below
    before = descriptors()
    found = open_far(top, [name] * 40)
    if found is None:
        pytest.skip("this kernel has no openat2")
    assert descriptors() == before + 1
    assert os.path.samestat(os.fstat(found), os.fstat(here))
    for fd in (found, here, top):
        os.close(fd)
