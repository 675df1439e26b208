"""The path of the destination: which links are followed, which parents are created, messages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.errors import DestinationError

from .support.build import Member, archive
from .support.command import run
from .support.snapshot import differences, snapshot
from .support.user import NOBODY, as_ordinary_user, workshop

OTHER = 1234


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


@pytest.fixture
def image(place: Path) -> Path:
    return archive(place / "image", [[Member(b"bin/a"), Member(b"etc/b")]])


@pytest.fixture
def victim(place: Path) -> Iterator[Path]:
    """A root file system elsewhere that must not change."""
    victim = place / "victim"
    for name in ("bin", "etc", "empty"):
        (victim / name).mkdir(parents=True)
    (victim / "etc" / "file").write_text("the victim's")
    before = snapshot(victim)
    yield victim
    assert differences(before, snapshot(victim)) == []


@pytest.fixture
def shared(place: Path) -> Path:
    """A directory like /tmp."""
    shared = place / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    return shared


def plant(link: Path, target: Path | str, owner: int = NOBODY) -> Path:
    link.symlink_to(target)
    os.lchown(link, owner, owner)
    return link


def extract(image: Path, root: Path | str, progress: Any = None, **options: Any) -> None:
    with ociroot.open(image) as source:
        source.image().extract(root, ociroot.ExtractOptions(**options), progress=progress)


# Links that other users have planted.


@pytest.mark.root
@pytest.mark.parametrize("below", ["", "new", "empty", "etc/new", ".."])
@pytest.mark.parametrize("how", ["absolute", "relative", "by a link of ours", "by two of theirs"])
def test_a_planted_link_is_not_followed(
    image: Path, shared: Path, victim: Path, below: str, how: str
) -> None:
    link = plant(shared / "link", "../victim" if how == "relative" else victim)
    if how == "by two of theirs":
        link = plant(shared / "second", "link")
    elif how == "by a link of ours":
        link = shared.parent / "ours"
        link.symlink_to("tmp/link")
    for options in ({}, {"replace_anything": True}, {"parents": True}):
        with pytest.raises(DestinationError, match="link of another user") as caught:
            extract(image, link / below, **options)
        assert caught.value.exit_code == 7
    assert {path.name for path in shared.iterdir()} <= {"link", "second"}


@pytest.mark.root
def test_what_the_setting_of_the_kernel_is_makes_no_difference(
    image: Path, shared: Path, victim: Path
) -> None:
    plant(shared / "link", victim)
    setting = Path("/proc/sys/fs/protected_symlinks")
    before = setting.read_text()
    for value in "01":
        try:
            setting.write_text(value)
        except OSError:
            pytest.skip("the kernel's setting cannot be changed here")
        try:
            with pytest.raises(DestinationError, match="link of another user"):
                extract(image, shared / "link" / "new")
        finally:
            setting.write_text(before)


@pytest.mark.root
@pytest.mark.parametrize("what", ["/etc/b", "/etc"])
@pytest.mark.parametrize("at", ["link", "link/new", "link/empty"])
def test_cp_follows_none_either(
    image: Path, shared: Path, victim: Path, what: str, at: str
) -> None:
    plant(shared / "link", victim)
    before = snapshot(shared)
    done = run("cp", f"{image}:{what}", shared / at)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert differences(before, snapshot(shared), {"mtime_ns"}) == []


@pytest.mark.root
def test_cp_replaces_a_planted_link_and_not_what_it_leads_to(
    image: Path, shared: Path, victim: Path
) -> None:
    plant(shared / "link", victim / "etc" / "file")
    assert run("cp", "--force", f"{image}:/etc/b", shared / "link").returncode == 0
    assert not (shared / "link").is_symlink()


@pytest.mark.root
def test_a_compressed_archive_is_not_decompressed_behind_one(
    place: Path, image: Path, shared: Path, victim: Path
) -> None:
    subprocess.run(["gzip", image], check=True)
    plant(shared / "link", victim)
    done = run("extract", image.with_suffix(".gz"), shared / "link" / "new")
    assert done.returncode == 7
    assert "link of another user" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize(
    ("owner", "mode", "directory"),
    [
        (0, 0o1777, 0),  # owned by the user who follows it
        (OTHER, 0o1777, OTHER),  # owned by the owner of the directory
        (OTHER, 0o777, 0),  # not sticky: any user with write permission can rename everything
        (OTHER, 0o1775, 0),  # not world-writable
    ],
)
def test_a_link_that_the_kernel_would_follow_is_followed(
    image: Path, place: Path, owner: int, mode: int, directory: int
) -> None:
    (place / "real").mkdir()
    holder = place / "holder"
    holder.mkdir()
    os.chown(holder, directory, directory)
    holder.chmod(mode)
    link = plant(holder / "link", place / "real", owner)
    extract(image, link)
    extract(image, link / "new")
    assert sorted(path.name for path in (place / "real").iterdir()) == ["bin", "etc", "new"]
    assert link.is_symlink()


@pytest.mark.root
def test_an_ordinary_user_follows_those_of_root(image: Path, shared: Path) -> None:
    real = shared / "real"
    real.mkdir()
    os.chown(real, NOBODY, NOBODY)
    (shared / "link").symlink_to("real")
    plant(shared / "other", "real", OTHER)

    def work() -> str:
        extract(image, shared / "link" / "root")
        with pytest.raises(DestinationError) as caught:
            extract(image, shared / "other" / "more")
        return str(caught.value)

    assert "link of another user" in as_ordinary_user(work)
    assert [path.name for path in real.iterdir()] == ["root"]


@pytest.mark.root
def test_two_users_without_a_number_are_not_one(image: Path, shared: Path, victim: Path) -> None:
    """In a user namespace, all unmapped users appear as nobody."""
    os.chown(shared, NOBODY, NOBODY)
    shared.chmod(0o1777)
    plant(shared / "link", victim, NOBODY)
    with pytest.raises(DestinationError, match="link of another user"):
        extract(image, shared / "link" / "new")


@pytest.mark.root
def test_the_way_is_swapped_for_a_planted_link(
    image: Path, place: Path, shared: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call that opens a component of the path, and after the last."""
    real = os.open
    outcomes = set()
    for number in range(1, 200):
        (shared / "a" / "b").mkdir(parents=True)
        count, done = 0, False

        def hooked(name: Any, *rest: Any, dir_fd: int | None = None) -> int:
            nonlocal count, done
            count += 1
            if count == number:  # noqa: B023 - it is called before the next one
                done = True
                (shared / "a").rename(shared / f"a-{number}")  # noqa: B023
                plant(shared / "a", victim)
            return real(name, *rest, dir_fd=dir_fd)

        with ociroot.open(image) as source:
            chosen = source.image()
            with monkeypatch.context() as patched:
                patched.setattr(os, "open", hooked)
                try:
                    chosen.extract(shared / "a" / "b" / "root")
                    outcomes.add("done")
                except DestinationError:
                    outcomes.add("refused")
        for path in shared.iterdir():
            if path.is_symlink():
                path.unlink()
            else:
                subprocess.run(["rm", "-r", path], check=True)
        if not done:
            break
    assert outcomes == {"done", "refused"}
    assert 10 < number < 199


# Interpretation of paths.


def test_links_without_end(image: Path, place: Path) -> None:
    for number in range(41):
        (place / f"l{number + 1}").symlink_to(f"l{number}")
    (place / "round").symlink_to("round")
    (place / "l0").mkdir()
    extract(image, place / "l40" / "root")  # the maximum that the kernel follows
    for name in ("l41", "round"):
        with pytest.raises(DestinationError, match="ELOOP"):
            extract(image, place / name / "new")
    assert (place / "l0" / "root" / "bin").is_dir()


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("new", "new"),
        ("./sub/../new", "new"),
        ("sub//new/", "sub/new"),
        ("sub/.", "sub"),
        ("sub/deep/..", "sub"),
        ("link/../new", "sub/new"),
        ("link", "sub/deep"),
        ("dangling", "sub/absent"),
        ("up/new", "new"),
        ("{place}/sub/../new", "new"),
        ("/{place}/link/new", "sub/deep/new"),
    ],
)
def test_what_a_path_means(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch, path: str, result: str
) -> None:
    (place / "sub" / "deep").mkdir(parents=True)
    (place / "link").symlink_to("sub/deep")
    (place / "dangling").symlink_to("sub/absent")
    (place / "up").symlink_to(place / "sub" / "..")
    monkeypatch.chdir(place)
    if path in ("sub/.", "sub/deep/.."):
        (place / "sub" / "deep").rmdir()
        if path == "sub/deep/..":
            (place / "sub" / "deep").mkdir()
            with pytest.raises(DestinationError, match="not empty"):
                extract(image, path)
            extract(image, path, replace_anything=True)
    if not (place / result / "bin").exists():
        extract(image, path.format(place=place))
    assert sorted(each.name for each in (place / result).iterdir()) == ["bin", "etc"]


def test_the_current_directory_by_any_name(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate((".", "", "../here", "/proc/self/cwd")):
        here = place / f"{number}" / "here"
        here.mkdir(parents=True)
        monkeypatch.chdir(here)
        if path:
            extract(image, path)
            assert sorted(each.name for each in here.iterdir()) == ["bin", "etc"]
        else:
            with pytest.raises(DestinationError, match="empty name"):
                extract(image, path)


@pytest.mark.parametrize("path", ["root", ".", "..", "root/more", "./root"])
@pytest.mark.parametrize("option", [(), ("--parents",)])
def test_a_current_directory_that_is_gone(
    image: Path, place: Path, path: str, option: tuple[str, ...]
) -> None:
    gone = place / "gone"
    gone.mkdir()
    done = run("extract", *option, image, path, cwd=gone, preexec_fn=gone.rmdir)
    if path == ".." and done.returncode == 7:
        return  # it leads to an existing directory that is not empty
    assert done.returncode == 7
    assert done.stderr.startswith(f"ociroot: {path}: ")
    assert "removed" in done.stderr or "does not exist" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_path_longer_than_the_kernel_takes(image: Path, place: Path) -> None:
    path = place
    for _ in range(30):
        path = path / ("d" * 200)
    extract(image, path / "root", parents=True)
    names = [name for _, _, files, _ in os.fwalk(place) for name in files]
    assert sorted(names) == ["a", "b", "image"]


# Parents.


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000, 0o777])
def test_parents_are_made(image: Path, place: Path, umask: int) -> None:
    def work() -> None:
        before = os.umask(umask)
        try:
            extract(image, place / "a/b/../c/root", parents=True)
        finally:
            os.umask(before)

    extract(image, place / "first")  # imports modules that an ordinary user may not be able to read
    as_ordinary_user(work)
    for name in ("a", "a/b", "a/c"):
        assert (place / name).stat().st_mode & 0o7777 == 0o755
    assert sorted(path.name for path in (place / "a/c/root").iterdir()) == ["bin", "etc"]


def test_a_missing_parent_is_named(image: Path, place: Path) -> None:
    done = run("extract", image, "a/b/root", cwd=place)
    assert done.returncode == 7
    assert done.stderr == (
        "ociroot: a/b/root: its parent directory a does not exist (--parents makes it)\n"
    )
    (place / "link").symlink_to("away")
    done = run("extract", image, place / "link/root")
    assert f"its parent directory {place}/away does not exist" in done.stderr
    assert not (place / "a").exists()


@pytest.mark.parametrize("when", ["the image is bad", "a caller stops it"])
def test_parents_go_when_it_fails(place: Path, when: str) -> None:
    bad = archive(place / "bad", [[Member(b"h", "link", target=b"absent")]])
    (place / "kept").mkdir()

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    stops: Callable[[object], None] | None = stop if when == "a caller stops it" else None
    with suppress(KeyboardInterrupt), pytest.raises(ociroot.OcirootError):
        extract(bad, place / "kept/a/b/root", parents=True, progress=stops)
    assert list((place / "kept").iterdir()) == []


def test_parents_of_others_stay(image: Path, place: Path) -> None:
    """A created parent that another user has put something into is not removed."""

    def interfere(_: object) -> None:
        (place / "a/mine").touch()
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        extract(image, place / "a/b/root", parents=True, progress=interfere)
    assert [path.name for path in (place / "a").iterdir()] == ["mine"]
