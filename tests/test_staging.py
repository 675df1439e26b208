"""Kills, crashes and concurrent runs: the destination is complete or unchanged."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import linux
from ociroot.errors import DestinationError
from ociroot.publish import leftovers, staging

from .support.build import Layer, Member, archive
from .support.snapshot import Snapshot, differences, snapshot
from .support.tally import tally
from .support.user import as_ordinary_user, workshop

KILLS = int(os.environ.get("OCIROOT_KILLS", "200"))


def layers() -> list[Layer]:
    """Return layers with many small files, directories and removals, and one large file."""
    files = [Member(b"d%d/f%d" % (n % 40, n), data=b"%d" % n * 50) for n in range(1500)]
    change = [Member(b".wh.d3"), Member(b"d4/.wh..wh..opq"), Member(b"d5", data=b"now a file")]
    big = [Member(b"big", data=random.Random(1).randbytes(4_000_000))]
    return [Layer(files, "gzip"), Layer(change), Layer(big, "zstd")]


def extract(path: Path, root: Path | str, progress: Any = None, **options: Any) -> None:
    with ociroot.open(path) as source:
        source.image().extract(root, ociroot.ExtractOptions(**options), progress=progress)


def left(where: Path) -> list[str]:
    return sorted(p.name for p in where.iterdir() if p.name.startswith(".") and "ociroot" in p.name)


def leave(image: Path, root: Path, *, at: str = "the work", **options: Any) -> None:
    """Kill a run at its first progress report, or at a system call."""
    child = os.fork()
    if child == 0:
        try:
            os.chdir("/")

            def die(*_: object, **__: object) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            if at != "the work":
                setattr(linux if at == "syncfs" else os, at, die)
                extract(image, root, **options)
            extract(image, root, progress=die, **options)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def run(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ociroot", "extract", "-q", *map(str, arguments)]
    return subprocess.Popen(command)


def kill(process: subprocess.Popen[bytes], where: Path, delay: float) -> None:
    """Kill a run this many seconds after it began to stage, unless it ends before."""
    before = set(left(where))
    while process.poll() is None and not set(left(where)) - before:
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
def test_killed_at_any_moment(replace: bool) -> None:
    """SIGKILL leaves the destination absent (or unchanged) or complete; the next run cleans up.

    The moments are spread over the duration of a run; the assertion does not depend on which they
    are.
    """
    with workshop() as where:
        image, root = archive(where / "image", layers()), where / "root"
        begin = time.monotonic()
        assert run(image, root).wait() == 0
        took = time.monotonic() - begin
        whole = snapshot(root)
        before: Snapshot | None = None
        subprocess.run(["rm", "-r", root], check=True)
        outcomes = {"before": 0, "whole": 0}
        staged = 0
        for number in range(KILLS // 2):
            if replace and not root.exists():
                root.mkdir()
                (root / "mine").write_text("as before")
                os.utime(root, (5, 5))
                before = snapshot(root)
            options = ["--replace-anything"] if replace else []
            # Some at the beginning, the others at any time in the rest of a run.
            delay = 0 if number % 10 == 0 else took * random.Random(number).random()
            kill(run(*options, image, root), where, delay)
            found = left(where)
            staged += bool(found)
            runs = {name.rstrip("~") for name in found}
            assert len(runs) <= 1, "the next run removes what the last one left"
            assert all(name.startswith(".root.ociroot-") for name in found)
            if not root.exists():
                assert not replace
                outcomes["before"] += 1
                continue
            tree = snapshot(root)
            if before is not None and not differences(before, tree):
                outcomes["before"] += 1
                continue
            assert differences(whole, tree) == []
            outcomes["whole"] += 1
            subprocess.run(["rm", "-r", root], check=True)
        assert outcomes["before"] and staged, (outcomes, staged)
        assert run(*(["--replace-anything"] if replace else []), image, root).wait() == 0
        assert left(where) == []
        tally("killed at a moment", "the destination was as before", outcomes["before"])
        tally("killed at a moment", "the destination was whole", outcomes["whole"])


def test_cleaned_up_by_another_before_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is locked, a new staging directory looks like a left-over."""
    real = leftovers.lock
    calls = 0

    def removed_first(fd: int) -> bool | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            Path(f"/proc/self/fd/{fd}").readlink().rmdir()
        return calls != 2 and real(fd)

    monkeypatch.setattr(staging, "lock", removed_first)
    extract(archive(tmp_path / "image", [[Member(b"a")]]), tmp_path / "root")
    assert (tmp_path / "root" / "a").exists()
    assert calls > 3
    # The directory that another run owned at the second try is removed by that run.
    (other,) = left(tmp_path)
    assert list((tmp_path / other).iterdir()) == []


def test_without_locks_nothing_is_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks it is unknown whether another run is active."""
    (tmp_path / ".root.ociroot-123456").mkdir()

    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    extract(archive(tmp_path / "image", [[Member(b"a")]]), tmp_path / "root")
    assert left(tmp_path) == [".root.ociroot-123456"]


def test_what_a_killed_run_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    image = archive(tmp_path / "image", [[Member(b"a")]])
    leave(image, tmp_path / "root")
    (stale,) = left(tmp_path)
    leave(image, tmp_path / "other")
    leave(image, tmp_path / "root.ociroot-x")
    others = sorted({*left(tmp_path)} - {stale})
    (tmp_path / ".root.ociroot-link").symlink_to(tmp_path / others[0])

    def second(progress: object) -> None:
        if not (tmp_path / "root").exists():
            extract(image, tmp_path / "root")  # which does not touch the first one

    with pytest.raises(DestinationError, match="something else was put there"):
        extract(image, tmp_path / "root", progress=second)
    assert left(tmp_path) == sorted([*others, ".root.ociroot-link"])
    assert all((tmp_path / other / "rootfs").is_dir() for other in others)


def test_what_was_left_in_the_destination_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = archive(tmp_path / "image", [[Member(b"a")]])
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)  # a mount point: it is filled in place
    child = os.fork()
    if child == 0:
        try:
            extract(image, root, progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert left(root)
    extract(image, root)
    assert [p.name for p in root.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["absent", "empty", "full"])
def test_two_at_once_end_with_one_winner(tmp_path: Path, kind: str) -> None:
    image, root = archive(tmp_path / "image", [[Member(b"a"), Member(b"b")]]), tmp_path / "root"
    if kind != "absent":
        root.mkdir()
    if kind == "full":
        (root / "mine").touch()
    inner: list[DestinationError] = []

    def second(progress: object) -> None:
        """Begin and end another run in the middle of the first one."""
        if not inner:
            try:
                extract(image, root, replace_anything=kind == "full")
            except DestinationError as error:
                inner.append(error)
            else:
                inner.append(DestinationError("it went through"))

    if kind == "absent":
        with pytest.raises(DestinationError, match="something else was put there"):
            extract(image, root, progress=second)
        assert "went through" in str(inner[0])
    else:
        extract(image, root, progress=second, replace_anything=kind == "full")
        assert "another extraction" in str(inner[0])
    assert sorted(p.name for p in root.iterdir()) == ["a", "b"]
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", ["absent", "full", "inside"])
def test_sync_comes_before_the_result_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image, root = archive(tmp_path / "image", [[Member(b"a")]]), tmp_path / "root"
    if kind != "absent":
        root.mkdir()
    if kind == "full":
        (root / "mine").touch()
    if kind == "inside":
        monkeypatch.chdir(root)
    events: list[tuple[str, bool]] = []

    def note(name: str) -> Any:
        def call(fd: int) -> None:
            real(fd)
            events.append((name, (root / "a").exists()))

        real = getattr(linux, name, None) or getattr(os, name)
        return call

    monkeypatch.setattr(linux, "syncfs", note("syncfs"))
    monkeypatch.setattr(os, "fsync", note("fsync"))
    extract(image, root, replace_anything=kind == "full")
    assert events == [], "only when it is asked for"
    subprocess.run(["rm", "-r", root / "a"], check=True)
    if kind == "absent":
        root.rmdir()
    if kind == "full":
        (root / "mine").touch()
    extract(image, root, replace_anything=kind == "full", sync=True)
    assert events[0] == ("syncfs", False)
    assert {name for name, visible in events[1:] if visible} == {"fsync"}


# Data that must not be lost, and operations that fail.


@pytest.mark.root
def test_what_is_mounted_below_is_not_emptied() -> None:
    with workshop() as where:
        image, root = archive(where / "image", [[Member(b"a")]]), where / "root"
        mounted = root / "with a blank"
        mounted.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "ociroot-test", mounted], check=True)
        try:
            (mounted / "precious").write_text("mine")
            with pytest.raises(DestinationError, match="with a blank is mounted below"):
                extract(image, root, replace_anything=True)
            assert (mounted / "precious").read_text() == "mine"
            assert left(where) == []
        finally:
            subprocess.run(["umount", mounted], check=True)


@pytest.mark.root
def test_an_old_tree_that_cannot_be_removed_is_told_of() -> None:
    """The result is still published: the rest of the old tree is a warning."""
    with workshop() as where:
        image, root = archive(where / "image", [[Member(b"a")]]), where / "root"
        (root / "others").mkdir(parents=True)
        (root / "others" / "file").write_text("root's")
        os.chown(root, 65534, 65534)

        def work() -> list[tuple[str, str]]:
            with ociroot.open(image) as source:
                report = source.image().extract(root, ociroot.ExtractOptions(replace_anything=True))
            return [(warning.code, warning.message) for warning in report.warnings]

        codes = dict(as_ordinary_user(work))
        assert (root / "a").exists()
        rest = left(where)[-1]
        assert rest in codes["left-over"]
        assert (where / rest / "rootfs" / "others" / "file").read_text() == "root's"


@pytest.mark.root
def test_a_late_failure_leaves_nothing_in_a_mount_point() -> None:
    """The attributes of the root are set last, after the entries have been moved up."""
    attribute = {b"SCHILY.xattr.user.large": b"x" * 70_000}
    layer = [Member(b"./", "dir", pax=attribute), Member(b"a/b/c")]
    with workshop() as where:
        image, root = archive(where / "image", [layer]), where / "root"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "ociroot-test", root], check=True)
        try:
            limits = ociroot.Limits(xattr_size=1 << 20)
            with (
                ociroot.open(image, ociroot.SourceOptions(limits=limits)) as source,
                pytest.raises(DestinationError),
            ):
                source.image().extract(root)
            assert list(root.iterdir()) == []
        finally:
            subprocess.run(["umount", root], check=True)


def test_what_a_callback_raises_is_the_callers(tmp_path: Path) -> None:
    image, root = archive(tmp_path / "image", layers()), tmp_path / "root"

    def gone(progress: ociroot.Progress) -> None:
        raise ConnectionError("the caller's own")

    with pytest.raises(ConnectionError, match="the caller's own"):
        extract(image, root, progress=gone)
    assert not root.exists()
    assert left(tmp_path) == []


def test_an_empty_name_is_no_destination(tmp_path: Path) -> None:
    image = archive(tmp_path / "image", [[Member(b"a")]])
    with pytest.raises(DestinationError, match="empty name"):
        extract(image, "")


@pytest.mark.parametrize("form", ["archive", "shared blobs"])
def test_an_image_in_its_own_destination_is_kept(tmp_path: Path, form: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    image = archive(root / "image", [[Member(b"a")]])
    options: dict[str, Any] = {}
    if form == "shared blobs":
        subprocess.run(["tar", "-xf", image, "-C", root], check=True)
        image = tmp_path / "layout"
        image.mkdir()
        for name in ("oci-layout", "index.json"):
            (root / name).rename(image / name)
        options = {"shared_blobs": root / "blobs"}
    before = snapshot(root)
    with (
        ociroot.open(image, ociroot.SourceOptions(**options)) as source,
        pytest.raises(DestinationError, match="inside it"),
    ):
        source.image().extract(root, ociroot.ExtractOptions(replace_anything=True))
    assert differences(before, snapshot(root)) == []
