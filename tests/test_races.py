"""Directories are swapped for links during the work: nothing outside changes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.errors import DestinationError, OcirootError
from ociroot.publish.directory import Staging
from ociroot.publish.removal import remove_tree

from .support.build import Layer, Member, archive
from .support.snapshot import differences, snapshot
from .support.tally import tally
from .support.user import NOBODY, workshop

LAYERS = [
    Layer(
        [
            *(Member(b"d%d/e/f%d" % (n % 5, n), data=b"%d" % n) for n in range(60)),
            Member(b"l", "symlink", target=b"d1"),
            Member(b"d1/h", "link", target=b"d0/e/f0"),
        ],
        "gzip",
    ),
    Layer([Member(b".wh.d2"), Member(b"d3", data=b"a file"), Member(b"d1/e/.wh.f1")]),
]


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


@pytest.fixture
def victim(place: Path) -> Iterator[Path]:
    """A directory with the same names as the image, which must not change."""
    root = place / "victim"
    for name in ("d0/e", "d1/e", "d2/e", "d4/e", "e"):
        (root / name).mkdir(parents=True)
        (root / name / "f1").write_text("the victim's")
    before = snapshot(root)
    yield root
    assert differences(before, snapshot(root)) == []


def extract(path: Path, root: Path, **options: Any) -> None:
    with ociroot.open(path) as source:
        source.image().extract(root, ociroot.ExtractOptions(**options))


# Another user, restricted by permissions.


def attack(path: Path, victim: Path) -> None:
    """Try every operation on a directory."""
    steps: tuple[Callable[[], object], ...] = (
        lambda: list(path.iterdir()),
        lambda: path.rename(path.with_name(path.name + "-stolen")),
        lambda: path.symlink_to(victim),
        lambda: path.mkdir(),
        lambda: (path / "d1").rename(path / "away"),
        lambda: (path / "d1").symlink_to(victim),
        lambda: path.unlink(),
        lambda: path.rmdir(),
    )
    for step in steps:
        with suppress(OSError):
            step()


@contextmanager
def attacked(where: Path, victim: Path) -> Iterator[None]:
    """Attack as another user, in a fork: that user may not be able to read the checkout."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            while True:
                for path in list(where.iterdir()):
                    attack(path, victim)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_another_user_in_the_same_directory(place: Path, victim: Path, mode: int) -> None:
    """In a sticky directory our entries stay; in another one they can be moved, nothing else."""
    image, where = archive(place / "image", LAYERS), place / "shared"
    where.mkdir()
    where.chmod(mode)
    outcomes: set[str] = set()
    with attacked(where, victim):
        for number in range(40):
            try:
                extract(image, where / f"root{number}")
                outcomes.add("done")
            except OcirootError as error:
                assert isinstance(error, DestinationError)
                outcomes.add("refused")
            tally("another user swaps directories", "nothing outside changed")
    if mode & 0o1000:
        assert "done" in outcomes


# The same user or root, at each relevant moment: they can swap the staging directory itself, and
# still the kernel follows no link of theirs.


def swapped(directory: Path, victim: Path) -> bool:
    """Replace a directory with a link to the victim."""
    try:
        directory.rename(directory.with_name(directory.name + "-away"))
        directory.symlink_to(victim)
    except OSError:
        return False
    return True


def staging(where: Path) -> Path:
    (found,) = [path for path in where.iterdir() if ".ociroot-" in path.name]
    return found


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_directory_is_swapped_right_after_it_was_made(
    place: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    image, where = archive(place / "image", LAYERS), place / "where"
    where.mkdir()
    real: Callable[..., Any] = getattr(os, call)
    outcomes = []
    for number in range(1, 60):
        count, done = 0, False

        def hooked(name: Any, *rest: Any, dir_fd: int | None = None, **options: Any) -> Any:
            nonlocal count, done
            result = real(name, *rest, dir_fd=dir_fd, **options)
            if isinstance(name, bytes) and name[:1] in b"de" and not done:
                count += 1
                if count == number:  # noqa: B023 - it is called before the next one
                    parent = Path(f"/proc/self/fd/{dir_fd}").readlink()
                    done = swapped(parent / os.fsdecode(name), victim)
            return result

        with monkeypatch.context() as patched:
            patched.setattr(os, call, hooked)
            try:
                extract(image, where / "root")
                outcomes.append("done")
            except DestinationError:
                outcomes.append("refused")
                assert not (where / "root").exists()
        if not done:
            break
        tally("a directory swapped in the writer's hands", "nothing outside changed")
        for path in where.iterdir():
            shutil.rmtree(path)
    assert "refused" in outcomes
    assert len(outcomes) > 5


@pytest.mark.parametrize("what", ["the staging directory", "the destination", "the parent"])
@pytest.mark.parametrize("kind", ["absent", "empty", "full"])
def test_swapped_before_it_becomes_visible(
    place: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, what: str, kind: str
) -> None:
    """The result goes to the directory that was opened, or it is refused and nothing changes."""
    image, where = archive(place / "image", LAYERS), place / "where"
    extract(image, place / "whole")
    root = where / "root"
    where.mkdir()
    if kind != "absent":
        root.mkdir()
    if kind == "full":
        (root / "old").touch()
    real = Staging.publish

    def hooked(self: Staging, finish: Callable[[int], None]) -> None:
        if what == "the staging directory":
            swapped(staging(where), victim)
        elif what == "the parent":
            swapped(where, victim)
        elif kind == "absent":
            root.symlink_to(victim)
        else:
            swapped(root, victim)
        real(self, finish)

    monkeypatch.setattr(Staging, "publish", hooked)
    if what == "the destination":
        with pytest.raises(DestinationError, match="something else was put there meanwhile"):
            extract(image, root, replace_anything=kind == "full")
        # If the exchanged directory is another one, the exchange is undone.
        assert root.readlink() == victim
        away = [] if kind == "absent" else ["root-away"]
        assert sorted(path.name for path in where.iterdir()) == ["root", *away]
        assert kind != "full" or [path.name for path in (where / away[0]).iterdir()] == ["old"]
    else:
        extract(image, root, replace_anything=kind == "full")
        there = where if what == "the staging directory" else place / "where-away"
        assert differences(snapshot(place / "whole"), snapshot(there / "root")) == []
    assert victim.is_dir()
    assert not victim.is_symlink()
    if where.is_symlink():
        where.unlink()


def test_what_is_removed_is_swapped(
    place: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal opens each directory by a single name and does not follow a link there."""
    real = os.open
    for number in range(1, 40):
        tree = place / "tree"
        for name in ("a/b/c", "a/d/e", "f/g"):
            (tree / name).mkdir(parents=True)
            (tree / name / "file").touch()
        count, done = 0, False

        def hooked(name: Any, *rest: Any, dir_fd: int | None = None) -> int:
            nonlocal count, done
            if dir_fd is not None and not done:
                count += 1
                if count == number:  # noqa: B023 - it is called before the next one
                    parent = Path(f"/proc/self/fd/{dir_fd}").readlink()
                    done = swapped(parent / os.fsdecode(name), victim)
            return real(name, *rest, dir_fd=dir_fd)

        parent_fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", hooked)
            with suppress(OSError):
                remove_tree(parent_fd, "tree")
        os.close(parent_fd)
        for path in place.iterdir():
            if path.name.startswith("tree"):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
        if not done:
            break
    assert number > 5
