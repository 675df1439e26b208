"""Left-overs of killed runs: who can see them, when they are removed, and what is kept."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import linux
from ociroot.errors import DestinationError

from .support.build import Member, archive
from .support.killed import killed_at, leave
from .support.mounts import mounted
from .support.snapshot import Snapshot, differences, snapshot
from .support.tally import tally
from .support.user import NOBODY, as_ordinary_user, workshop

MEMBERS = [
    Member(b"./", "dir", mode=0o755, uid=NOBODY, gid=7, mtime=1_500_000_000),
    Member(b"bin/a", data=b"a"),
    Member(b"etc", "dir", mode=0o500),
]
OLD = ("bin", "etc", "etc/old")
NAME = ".root.ociroot-0123456789ab"


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


@pytest.fixture
def image(place: Path) -> Path:
    return archive(place / "image", [MEMBERS])


def extract(image: Path, root: Path, progress: Any = None, **options: Any) -> dict[str, str]:
    with ociroot.open(image) as source:
        report = source.image().extract(root, ociroot.ExtractOptions(**options), progress=progress)
    # An ordinary user also gets the warning about owners.
    return {each.code: each.message for each in report.warnings if each.code != "owners"}


def left(where: Path) -> list[Path]:
    return sorted(where.glob(".*ociroot*"))


# At each moment.


def closed_to_others(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("kind", ["absent", "absent, sync", "empty", "full", "mount point"])
def test_killed_before_each_change(image: Path, place: Path, kind: str) -> None:
    """The destination is unchanged or complete; left-overs are private, and removed next time."""
    outside, root = place / "outside", place / "outside/root"
    outside.mkdir()
    extract(image, place / "whole")
    whole = snapshot(place / "whole")
    outcomes = {"before": 0, "whole": 0}
    for number in range(1, 300):
        before: Snapshot | None = None
        if not kind.startswith("absent"):
            root.mkdir()
            before = snapshot(root)
        if kind == "mount point":
            subprocess.run(["mount", "-t", "tmpfs", "ociroot-test", root], check=True)
        try:
            if kind == "full":
                for name in OLD:
                    (root / name).mkdir()
                before = snapshot(root)
            killed = killed_at(number, image, root, replace=kind == "full", sync="sync" in kind)
            holder = root if kind == "mount point" else outside
            rest = left(holder)
            assert all(map(closed_to_others, rest))
            if kind != "mount point":
                now = snapshot(root) if root.exists() else None
                is_whole = now is not None and not differences(whole, now)
                outcomes["whole" if is_whole else "before"] += 1
                if not is_whole:
                    assert now is None if before is None else not differences(before, now or {})
                assert extract(image, root, replace=True) == {}
                assert differences(whole, snapshot(root)) == []
            else:
                # It is filled name by name, and closed to other users until it is complete.
                done = {path.name for path in root.iterdir()} - {path.name for path in rest}
                if not done:
                    outcomes["before"] += 1
                    assert extract(image, root) == {}
                    assert snapshot(root).keys() == whole.keys()
                elif not differences(whole, snapshot(root)):
                    outcomes["whole"] += 1
                else:
                    # It is complete except for the time of the root, which is set last.
                    away = differences(whole, snapshot(root), {"mtime_ns"})
                    assert closed_to_others(root) or not root.stat().st_mode & 0o077 or not away
            assert left(holder) == [] or kind == "mount point"
        finally:
            if kind == "mount point":
                subprocess.run(["umount", root], check=True)
            subprocess.run(["rm", "-rf", root], check=True)
        if not killed:
            break
        tally("killed before a change", "as before, or whole")
    assert outcomes["before"] > 10
    assert outcomes["whole"] >= 1
    assert 20 < number < 299


@pytest.mark.slow
@pytest.mark.root
def test_an_ordinary_user_may_leave_a_root_that_is_not_writable(place: Path) -> None:
    """It is published in another way, whose moments are tried, too."""
    image = archive(place / "image", [[Member(b"./", "dir", mode=0o555), Member(b"bin/a")]])
    root = place / "own/root"
    root.parent.mkdir()
    extract(image, root)  # imports modules an ordinary user may not be able to read
    subprocess.run(["rm", "-rf", root], check=True)
    os.chown(root.parent, NOBODY, NOBODY)

    def work() -> int:
        extract(image, root)
        whole = snapshot(root)
        for replace in (False, True):
            for number in range(1, 300):
                if not replace:
                    subprocess.run(["chmod", "-R", "u+w", root], check=False, capture_output=True)
                    subprocess.run(["rm", "-rf", root], check=True)
                killed = killed_at(number, image, root, replace_anything=replace)
                assert not root.exists() or differences(whole, snapshot(root)) == []
                assert extract(image, root, replace_anything=True) == {}
                assert differences(whole, snapshot(root)) == []
                if not killed:
                    break
        return number

    assert as_ordinary_user(work) > 20
    assert left(root.parent) == []


# Directories that are not left-overs, or not known to be.


def stranger_owns(where: Path, mode: int = 0o755) -> None:
    os.chown(where, NOBODY, NOBODY)
    where.chmod(mode)


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
def test_in_a_directory_of_another_user_nothing_is_removed(
    image: Path, place: Path, mode: int
) -> None:
    """Its owner can rename anything of root's to a left-over's name: `mv data .root.ociroot-…`.

    Extraction itself continues, as with `sudo ociroot extract` in a home directory.
    """
    where = place / "home"
    (where / "data").mkdir(parents=True, mode=0o700)
    (where / "data/precious").write_text("root's")
    leave(image, where / "root")
    stranger_owns(where, mode)
    (real,) = left(where)
    (where / "data").rename(where / NAME)
    before = snapshot(where / NAME)
    told = extract(image, where / "root")
    assert ".root.ociroot-" in told["left-over-kept"]
    assert differences(before, snapshot(where / NAME)) == []
    assert real.exists()
    assert (where / "root/bin/a").read_text() == "a"
    assert sorted(each.name for each in where.iterdir()) == sorted([real.name, NAME, "root"])
    # The same for the destination itself.
    assert "left-over-kept" in extract(image, where / "root", replace=True)


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o777, 0o1777])
def test_what_only_has_the_name_is_kept(image: Path, place: Path, mode: int) -> None:
    """Other users who may write to our directory can do the same."""
    where = place / "where"
    where.mkdir()
    where.chmod(mode)
    for number, (name, inside) in enumerate(
        (("0" * 12, "precious"), ("1" * 12, "rootfs/precious"), ("2" * 12, "inode-1/precious"))
    ):
        (where / f".root.ociroot-{name}" / inside).mkdir(parents=True)
        (where / f".root.ociroot-{name}").chmod(0o700 if number else 0o755)
    (where / ".root.ociroot-link").symlink_to(place)
    (where / ".root.ociroot-333333333333").write_text("a file")
    before = snapshot(where)
    told = extract(image, where / "root")
    assert "left-over-kept" in told
    now = {path: record for path, record in snapshot(where).items() if b"ociroot" in path}
    assert differences({p: r for p, r in before.items() if p != b"."}, now) == []


@pytest.mark.root
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_in_a_directory_like_tmp(image: Path, place: Path, owner: int) -> None:
    """In a sticky directory users can rename only their own files, but its owner can rename all."""
    where = place / "tmp"
    where.mkdir()
    os.chown(where, owner, owner)
    where.chmod(0o1777)

    def work() -> None:
        leave(image, where / "root")
        told = extract(image, where / "root")
        assert ("left-over-kept" in told) is (os.geteuid() != where.stat().st_uid != 0)

    work()
    subprocess.run(["rm", "-r", where / "root", *left(where)], check=True)
    os.chown(where, owner or 4321 if owner else 0, owner)
    as_ordinary_user(work)


def test_an_empty_one_is_removed(image: Path, place: Path) -> None:
    """A run that is killed before it marks the directory leaves it empty."""
    (place / NAME).mkdir(mode=0o700)
    assert extract(image, place / "root") == {}
    assert left(place) == []


# Interference by other processes.


@pytest.mark.root
@pytest.mark.parametrize("what", ["of another user", "with something in it", "a link", "gone"])
def test_the_staging_directory_is_exchanged_when_it_has_been_made(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Between mkdir(2) and open(2), by a user who may write to the parent."""
    real = os.mkdir
    precious = place / "precious"
    precious.mkdir()
    (precious / "file").write_text("root's")
    mine: list[Path] = []

    def hooked(name: Any, *rest: Any, dir_fd: int | None = None) -> None:
        real(name, *rest, dir_fd=dir_fd)
        if str(name).startswith(".root.ociroot-") and not mine:
            mine.append(place / name)
            mine[0].rename(place / "away")
            if what == "of another user":
                mine[0].mkdir(mode=0o777)
                os.chown(mine[0], NOBODY, NOBODY)
            elif what == "with something in it":
                precious.rename(mine[0])
            elif what == "a link":
                mine[0].symlink_to(precious)

    monkeypatch.setattr(os, "mkdir", hooked)
    if what == "gone":  # removed by another run as a left-over
        assert extract(image, place / "root") == {}
        return
    with pytest.raises(DestinationError) as caught:
        extract(image, place / "root")
    words = {
        "of another user": "another user has exchanged",
        "with something in it": "was not empty",
        "a link": "ENOTDIR",
    }
    assert words[what] in str(caught.value)
    assert not (place / "root").exists()
    if what == "of another user":
        assert list(mine[0].iterdir()) == []
        assert mine[0].stat().st_uid == NOBODY
    else:
        assert (mine[0] / "file").read_text() == "root's"


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_what_has_its_name_at_the_end_is_not_removed(
    image: Path, place: Path, replace: bool, empty: bool
) -> None:
    """The staging directory is emptied through its descriptor, wherever it has been moved."""
    precious, root = place / "precious", place / "root"
    precious.mkdir(mode=0o700)
    if not empty:
        (precious / "file").write_text("root's")
    if replace:
        for name in OLD:
            (root / name).mkdir(parents=True)

    def progress(_: object) -> None:
        if precious.exists():
            (staging,) = left(place)
            staging.rename(place / "away")
            precious.rename(staging)

    assert "left-over" in extract(image, root, replace=replace, progress=progress)
    (staging,) = left(place)
    assert [path.name for path in staging.iterdir()] == ([] if empty else ["file"])
    assert (root / "bin/a").exists()
    assert [path.name for path in (place / "away").iterdir()] in ([], ["ociroot-staging"])


def test_a_failed_one_is_emptied_wherever_it_is(place: Path) -> None:
    bad = archive(place / "bad", [[Member(b"a"), Member(b"h", "link", target=b"absent")]])

    def progress(_: object) -> None:
        for staging in left(place):
            staging.rename(place / "away")

    with pytest.raises(ociroot.MalformedImage, match="was left behind"):
        extract(bad, place / "root", progress=progress)
    assert list((place / "away").rglob("a")) == []


@pytest.mark.root
def test_what_stands_beside_it_is_emptied_wherever_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that its owner may not write to is beside the staging directory for a moment."""
    image = archive(place / "image", [[Member(b"./", "dir", mode=0o555), Member(b"bin/a")]])
    own = place / "own"
    own.mkdir()
    extract(image, own / "root")  # imports modules an ordinary user may not be able to read
    subprocess.run(["rm", "-rf", own / "root"], check=True)
    os.chown(own, NOBODY, NOBODY)
    real = os.rename

    def hooked(source: Any, target: Any, **options: Any) -> None:
        if target == "root":
            (own / source).rename(own / "away")
        real(source, target, **options)

    def work() -> str:
        monkeypatch.setattr(os, "rename", hooked)
        with pytest.raises(DestinationError) as caught:
            extract(image, own / "root")
        return str(caught.value)

    as_ordinary_user(work)
    assert list((own / "away").iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
def test_the_old_tree_is_exchanged_before_it_is_removed(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Only the tree that was checked is removed; otherwise the exchange is undone."""
    root, precious = place / "root", place / "precious"
    for name in OLD:
        (root / name).mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("root's")
    real = linux.renameat2
    calls = 0

    def hooked(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2 + times:  # the first two test whether it is supported
            root.rename(place / "away")
            precious.rename(root)
        real(*arguments)

    monkeypatch.setattr(linux, "renameat2", hooked)
    if times == 1:
        with pytest.raises(DestinationError, match="something else was put there meanwhile"):
            extract(image, root, replace=True)
        assert (root / "file").read_text() == "root's"
        assert (place / "away/etc/old").is_dir()
        assert left(place) == []
    else:
        assert extract(image, root, replace=True) == {}


def test_the_exchange_cannot_be_undone(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not removed, not even by the next run."""
    root, precious = place / "root", place / "precious"
    for name in OLD:
        (root / name).mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("root's")
    real = linux.renameat2
    calls = 0

    def hooked(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            root.rename(place / "away")
            precious.rename(root)
        if calls == 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(linux, "renameat2", hooked)
        with pytest.raises(DestinationError, match="was left behind"):
            extract(image, root, replace=True)
    (staging,) = left(place)
    assert (staging / "rootfs/file").read_text() == "root's"
    subprocess.run(["rm", "-rf", root], check=True)
    extract(image, root)
    assert (staging / "rootfs/file").read_text() == "root's"


# Locks of others.


@pytest.mark.root
@pytest.mark.parametrize("kind", ["empty", "full", "mount point", "current directory"])
def test_a_lock_of_a_stranger_is_no_obstacle(
    image: Path, place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user who may read the destination can lock it."""
    root = place / "root"
    root.mkdir()
    if kind == "full":
        for name in OLD:
            (root / name).mkdir()
    if kind == "current directory":
        monkeypatch.chdir(root)
    if kind == "mount point":
        with mounted(root, "-t", "tmpfs", "ociroot-test"):
            _extract_locked(image, root, {})
    else:
        _extract_locked(image, root, {"replace": True} if kind == "full" else {})


def _extract_locked(image: Path, root: Path, options: dict[str, Any]) -> None:
    fd = os.open(root, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert extract(image, root, **options) == {}
        assert (root / "bin/a").read_text() == "a"
    finally:
        os.close(fd)


@pytest.mark.slow
def test_a_lock_on_the_old_tree_does_not_keep_what_is_left_of_it(image: Path, place: Path) -> None:
    """A run that is killed after it has exchanged the trees leaves the old one."""
    root = place / "root"
    for number in range(1, 200):
        subprocess.run(["rm", "-rf", root], check=True)
        for name in OLD:
            (root / name).mkdir(parents=True)
        fd = os.open(root, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            killed = killed_at(number, image, root, replace=True)
            assert extract(image, root, replace=True) == {}
        finally:
            os.close(fd)
        assert left(place) == []
        if not killed:
            break
    assert number > 20


# Concurrent runs.


@pytest.mark.root
@pytest.mark.parametrize("kind", ["absent", "empty", "full", "mount point"])
def test_a_second_one_at_each_moment(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One of the two succeeds, and the other reports why it does not."""
    for number in range(1, 100):
        root = place / "root"
        root.mkdir()
        if kind == "full":
            for name in OLD:
                (root / name).mkdir()
        if kind == "absent":
            root.rmdir()
        real = os.mkdir
        calls, outcomes = 0, []

        def attempt() -> None:
            try:
                extract(image, root, replace=kind == "full")  # noqa: B023
                outcomes.append("done")  # noqa: B023
            except DestinationError as error:
                outcomes.append(str(error))  # noqa: B023

        def hooked(*arguments: Any, **options: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == number:  # noqa: B023
                attempt()
            real(*arguments, **options)  # noqa: B023

        with ExitStack() as stack:
            if kind == "mount point":
                stack.enter_context(mounted(root, "-t", "tmpfs", "ociroot-test"))
            stack.enter_context(monkeypatch.context()).setattr(os, "mkdir", hooked)
            attempt()
            assert (root / "bin/a").exists()
            assert left(root) == []
        assert left(place) == []
        assert outcomes.count("done") == 1, (number, outcomes)
        assert all(
            outcome == "done"
            or "another extraction" in outcome
            or "meanwhile" in outcome
            or "not empty" in outcome
            for outcome in outcomes
        ), outcomes
        with suppress(FileNotFoundError):
            subprocess.run(["rm", "-rf", root], check=True)
        if len(outcomes) == 1:
            break
    assert number > 3
