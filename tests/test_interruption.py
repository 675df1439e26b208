"""Signals during removal and publication, and the report of the resulting state."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.errors import DestinationError, MalformedImage

from .support.build import Layer, Member, archive
from .support.killed import leave
from .support.mounts import mounted
from .support.snapshot import differences, snapshot
from .support.user import workshop

FILES = [Member(b"bin/%d" % number, data=b"%d" % number) for number in range(9)]
BAD = [*FILES, Member(b"h", "link", target=b"absent")]
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])

# A program that sends itself a signal at some of its calls of a function.
DRIVER = """
import os, sys
from ociroot.cli import main
from ociroot import linux
name, number, at = sys.argv.pop(1), int(sys.argv.pop(1)), eval(sys.argv.pop(1))
module = os if hasattr(os, name) else linux
count = 0
def hooked(*arguments, **options):
    global count
    count += 1
    if count in at:
        os.kill(os.getpid(), number)
    return real(*arguments, **options)
real = getattr(module, name)
setattr(module, name, hooked)
main()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


@pytest.fixture
def image(place: Path) -> Path:
    return archive(place / "image", [[*FILES, Member(b"etc/b")]])


def old(root: Path) -> Path:
    """A root file system whose removal takes many calls."""
    for name in ("bin", "etc"):
        (root / name).mkdir(parents=True)
        for number in range(9):
            (root / name / f"{number}").write_text("old")
    return root


def extract(image: Path, root: Path, **options: Any) -> dict[str, str]:
    with ociroot.open(image) as source:
        report = source.image().extract(root, ociroot.ExtractOptions(**options))
    # An ordinary user also gets the warning about owners.
    return {each.code: each.message for each in report.warnings if each.code != "owners"}


def stopped(
    call: str, number: int, at: set[int], *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run the command with signals at some of its calls."""
    return subprocess.run(
        [
            *(sys.executable, "-c", DRIVER, call, str(number), repr(at)),
            *("extract", *map(str, arguments)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def left(place: Path) -> list[Path]:
    return list(place.glob(".*ociroot*"))


# While the old tree is removed.


@SIGNALS
def test_the_first_one_waits_until_the_old_tree_is_gone(
    image: Path, place: Path, number: signal.Signals
) -> None:
    extract(image, place / "whole")
    root = old(place / "root")
    done = stopped("unlink", number, {3}, "--replace", image, root)
    assert done.returncode == 128 + number
    assert done.stderr == f"ociroot: stopped by {number.name}; {root} is complete\n"
    assert left(place) == []
    assert differences(snapshot(place / "whole"), snapshot(root)) == []


@SIGNALS
def test_the_second_one_stops_it_and_what_is_left_is_named(
    image: Path, place: Path, number: signal.Signals
) -> None:
    extract(image, place / "whole")
    root = old(place / "root")
    done = stopped("unlink", number, {3, 5}, "--replace", image, root)
    assert done.returncode == 128 + number
    (rest,) = left(place)
    assert done.stderr == (
        f"ociroot: stopped by {number.name}; {root} is complete; {rest} was left behind\n"
    )
    assert len(list(rest.rglob("rootfs/*/*"))) in range(10, 18)
    assert differences(snapshot(place / "whole"), snapshot(root)) == []
    # The next run removes it.
    extract(image, root, replace=True)
    assert left(place) == []


def test_many_signals_at_once(image: Path, place: Path) -> None:
    """A third signal while the second one is handled changes nothing."""
    root = old(place / "root")
    done = stopped("unlink", signal.SIGTERM, set(range(1, 99)), "--replace", image, root)
    assert done.returncode == 128 + signal.SIGTERM
    (rest,) = left(place)
    assert f"{rest} was left behind" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# While a failed attempt is removed.


@SIGNALS
def test_a_failed_run_is_cleaned_up_before_it_stops(place: Path, number: signal.Signals) -> None:
    bad = archive(place / "bad", [BAD])
    done = stopped("unlink", number, {3}, bad, place / "root")
    assert done.returncode == 128 + number
    assert done.stderr == f"ociroot: stopped by {number.name}; nothing was left behind\n"
    assert list(place.iterdir()) == [bad]
    done = stopped("unlink", number, {3, 5}, bad, place / "root")
    (rest,) = left(place)
    assert done.stderr == f"ociroot: stopped by {number.name}; {rest} was left behind\n"
    assert extract(archive(place / "image", [FILES]), place / "root") == {}
    assert left(place) == []


@SIGNALS
def test_what_a_killed_run_left_is_removed_before_it_stops(
    image: Path, place: Path, number: signal.Signals
) -> None:
    leave(image, place / "root")
    (rest,) = left(place)
    done = stopped("rmdir", number, {1, 2}, image, place / "root")
    assert done.stderr == f"ociroot: stopped by {number.name}; {rest.name} was left behind\n"
    assert left(place) == [rest]
    done = stopped("rmdir", number, {1}, image, place / "root")
    assert done.stderr == f"ociroot: stopped by {number.name}; nothing was left behind\n"
    assert sorted(path.name for path in place.iterdir()) == ["image"]


@pytest.mark.root
@pytest.mark.parametrize("call", ["rename", "renameat2", "fchmod", "rmdir"])
@pytest.mark.parametrize("kind", ["absent", "full", "mount point"])
def test_at_each_call(image: Path, place: Path, call: str, kind: str) -> None:
    """The destination is complete and reported as such, or unchanged."""
    extract(image, place / "whole")
    whole, root = snapshot(place / "whole"), place / "root"
    for at in range(1, 40):
        root.mkdir()
        if kind == "absent":
            root.rmdir()
        if kind == "full":
            old(root)
        before = snapshot(root) if root.exists() else None
        if kind == "mount point":
            with mounted(root, "-t", "tmpfs", "ociroot-test"):
                done = stopped(call, signal.SIGTERM, {at}, image, root)
                names = sorted(path.name for path in root.iterdir())
                complete = "is complete" in done.stderr or done.returncode == 0
                assert names == (["bin", "etc"] if complete else [])
        else:
            done = stopped(call, signal.SIGTERM, {at}, "--replace", image, root)
            complete = "is complete" in done.stderr or done.returncode == 0
            now = snapshot(root) if root.exists() else None
            if complete:
                assert now is not None
                assert differences(whole, now) == []
            else:
                assert now is None if before is None else not differences(before, now or {})
        assert left(place) == []
        subprocess.run(["rm", "-rf", root], check=True)
        if done.returncode == 0:
            break
        assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert at < 39


# With the library.


def test_an_interrupted_program(image: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own signal handlers are restored, and the exception reports the state."""
    root = old(place / "root")
    real, handlers = os.unlink, [signal.getsignal(number) for number in (2, 15, 1)]
    count = 0

    def hooked(*arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            signal.raise_signal(signal.SIGINT)
        real(*arguments, **options)

    monkeypatch.setattr(os, "unlink", hooked)
    with pytest.raises(KeyboardInterrupt) as caught:
        extract(image, root, replace=True)
    assert caught.value.__notes__ == [f"{root} is complete"]
    assert left(place) == []
    assert [signal.getsignal(number) for number in (2, 15, 1)] == handlers


CALLS = [(gc, "disable", 1), (sys, "setswitchinterval", 1), (sys, "setswitchinterval", 2)]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("module", "name", "at"), CALLS)
def test_the_settings_of_the_interpreter_are_restored(
    image: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, at: int, after: bool
) -> None:
    """Also when the exception comes while they are changed, or while they are restored."""
    before = sys.getswitchinterval(), gc.isenabled()
    real, count = getattr(module, name), 0

    def hooked(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if after or count != at:
            real(*arguments)
        if count == at:
            raise KeyboardInterrupt

    try:
        with ociroot.open(image) as source:
            monkeypatch.setattr(module, name, hooked)
            with pytest.raises(KeyboardInterrupt):
                source.image().tree()
            assert (sys.getswitchinterval(), gc.isenabled()) == before
            monkeypatch.undo()
            source.image().tree()
        assert (sys.getswitchinterval(), gc.isenabled()) == before
    finally:
        monkeypatch.undo()
        sys.setswitchinterval(before[0])
        gc.enable()


def test_a_thread_that_has_not_begun_is_joined(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception comes while the new thread exists, but does not run yet."""
    image = archive(place / "image", [Layer(FILES, "gzip")])
    start, enumerate_all = threading.Thread.start, threading.enumerate
    begin = threading.Event()
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread)
        if thread.name == "ociroot-decoder":
            bootstrap = thread._bootstrap  # type: ignore[attr-defined]

            def late() -> None:
                begin.wait()
                bootstrap()

            def interrupt() -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(thread, "_bootstrap", late)
            monkeypatch.setattr(thread._started, "wait", interrupt)  # type: ignore[attr-defined]
        start(thread)

    def listed() -> list[threading.Thread]:
        begin.set()
        return enumerate_all()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(threading, "enumerate", listed)
    try:
        with ociroot.open(image) as source, pytest.raises(KeyboardInterrupt):
            source.image().tree()
        assert [thread.name for thread in started] == ["ociroot-reader", "ociroot-decoder"]
        assert all(thread.ident is not None for thread in started)
        assert not any(thread.is_alive() for thread in started)
    finally:
        begin.set()


def test_a_handler_that_does_not_raise(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called once for each signal, and the removal continues."""
    root = old(place / "root")
    real, called = os.unlink, []
    count = 0

    def hooked(*arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count in (3, 5, 7):
            signal.raise_signal(signal.SIGTERM)
        real(*arguments, **options)

    before = signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        monkeypatch.setattr(os, "unlink", hooked)
        assert extract(image, root, replace=True) == {}
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == [signal.SIGTERM] * len(called)
    assert len(called) >= 2
    assert left(place) == []


def test_in_another_thread(image: Path, place: Path) -> None:
    root = old(place / "root")
    told: list[dict[str, str]] = []
    thread = threading.Thread(target=lambda: told.append(extract(image, root, replace=True)))
    thread.start()
    thread.join()
    assert told == [{}]
    assert left(place) == []


# The report of what could not be removed.


def test_a_failure_names_what_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = archive(place / "bad", [BAD])

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(MalformedImage) as caught:
        extract(bad, place / "root")
    (rest,) = left(place)
    assert f"{rest} was left behind" in str(caught.value)


def test_a_full_file_system_where_nothing_can_be_removed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message does not claim that nothing was left behind."""
    image = archive(place / "image", [[Member(b"a"), Member(b"large", data=bytes(1 << 20))]])
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(DestinationError, match="was left behind") as caught:
        extract(image, place / "root")
    assert caught.value.is_full
    assert "nothing was left" not in str(caught.value)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["absent", "full", "mount point"])
def test_a_name_that_cannot_be_synchronized(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The result is in place, so that is a warning."""
    root = place / "root"
    if kind != "absent":
        root.mkdir()
    if kind == "full":
        old(root)

    def refused(fd: int) -> None:
        if (root / "bin/1").exists() and (root / "bin/1").read_text() == "1":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refused)

    def work() -> None:
        told = extract(image, root, replace=kind == "full", sync=True)
        assert "fsync failed: Input/output error" in told["not-synced"]
        assert (root / "etc/b").exists()

    if kind == "mount point":
        with mounted(root, "-t", "tmpfs", "ociroot-test"):
            work()
    else:
        work()
    assert left(place) == []
