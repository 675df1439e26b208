"""A failure of any system call: one OcirootError, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import linux
from ociroot.errors import DestinationError, SourceError, VerificationError

from .support.build import Layer, Member, archive
from .support.counting import kept_by_libraries
from .support.snapshot import differences, snapshot
from .support.tally import tally
from .support.user import workshop

LAYERS = [
    Layer(
        [
            Member(b"./", "dir", mode=0o750),
            Member(b"d", "dir", mode=0o700),
            Member(b"d/f", data=b"x" * 5000, mode=0o4755, pax={b"SCHILY.xattr.user.k": b"v"}),
            Member(b"d/l", "symlink", target=b"f"),
            Member(b"d/h", "link", target=b"d/f"),
            Member(b"d/p", "fifo", uid=7),
            Member(b"d/o", data=b"o", uid=7, gid=8),
        ],
        "gzip",
    ),
    Layer([Member(b"d/.wh.p"), Member(b"e/g/h/i", data=b"y" * 700)]),
]
# The calls that write the destination; those that read the image are tested elsewhere.
CALLS = (
    *("open", "mkdir", "write", "fchmod", "utime", "symlink", "link", "mknod", "unlink", "rmdir"),
    *("rename", "chmod", "fchown", "setxattr", "listdir", "stat", "fstat", "dup"),
)
ANSWERS = (errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENOSPC)


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


def extract(path: Path, root: Path, progress: Any = None, **options: Any) -> None:
    with ociroot.open(path) as source:
        source.image().extract(root, ociroot.ExtractOptions(**options), progress=progress)


class Faults:
    """Makes the nth call of a function of os fail."""

    def __init__(self, name: str, code: int) -> None:
        self.real: Callable[..., Any] = getattr(os, name)
        self.code = code
        self.fails_at = -1
        self.count = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.count += 1
        if self.count == self.fails_at:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*arguments, **options)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_each_call_fails_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, replace: bool
) -> None:
    """The destination is unchanged or complete; a fault in clean-up may leave the staging."""
    image, root = archive(place / "image", LAYERS), place / "root"
    if replace:
        (root / "old").mkdir(parents=True)
    before = snapshot(root) if replace else None
    extract(image, place / "whole")
    whole = snapshot(place / "whole")
    subprocess.run(["rm", "-r", place / "whole"], check=True)
    for number in range(1, 400):
        faults = Faults(name, ANSWERS[number % len(ANSWERS)])
        faults.fails_at = number
        failed = False
        with ociroot.open(image) as source:
            chosen = source.image()
            with monkeypatch.context() as patched:
                patched.setattr(os, name, faults)
                try:
                    chosen.extract(root, ociroot.ExtractOptions(replace_anything=replace))
                except (DestinationError, SourceError):
                    failed = True
        if not failed:
            assert differences(whole, snapshot(root)) == []
            subprocess.run(["rm", "-r", root], check=True)
            if replace:
                (root / "old").mkdir(parents=True)
                before = snapshot(root)
        else:
            now = snapshot(root) if root.exists() else None
            assert now is None if before is None else differences(before, now or {}) == []
        outcome = "refused, nothing changed" if failed else "the same tree"
        tally("a call to the kernel failed, each once", outcome)
        if faults.count < number:
            break  # no further such call
    else:
        raise AssertionError("it never ended")
    # The next run removes what is left when clean-up failed.
    extract(image, root, replace_anything=replace)
    assert differences(whole, snapshot(root)) == []
    assert sorted(path.name for path in place.iterdir()) == ["image", "root"]


@pytest.mark.parametrize("name", (*CALLS, "fsync"))
def test_each_call_fails_once_with_a_record(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As above; in the last step of all, that of the record, the tree may be there, and told."""
    image, root, record = archive(place / "image", LAYERS), place / "root", place / "root.mtree"
    options = ociroot.ExtractOptions(
        record="mtree",
        filter=ociroot.PathFilter(excludes=[b"/d/f"]),
        policy=ociroot.OutputPolicy(owners=ociroot.OwnerMap.parse("0:0:9", "0:0:9", "5:5")),
        sync=name == "fsync",
    )
    with ociroot.open(image) as source:
        source.image().extract(root, options)
    whole, lines = snapshot(root), record.read_bytes()
    assert b"./d/h type=file" in lines
    assert b"./d/f" not in lines
    for number in range(1, 400):
        subprocess.run(["rm", "-rf", root, record], check=True)
        faults = Faults(name, ANSWERS[number % len(ANSWERS)])
        faults.fails_at = number
        error: Exception | None = None
        with ociroot.open(image) as source:
            chosen = source.image()
            with monkeypatch.context() as patched:
                patched.setattr(os, name, faults)
                try:
                    chosen.extract(root, options)
                except (DestinationError, SourceError) as failed:
                    error = failed
        assert not record.exists() or (root.exists() and record.read_bytes() == lines)
        if error is None:
            assert record.exists()
        if root.exists():
            assert differences(whole, snapshot(root)) == []
            assert error is None or f"{root} is complete" in str(error)
        tally("a call to the kernel failed, with a record", "refused" if error else "the same tree")
        if faults.count < number:
            break  # no further such call
    else:
        raise AssertionError("it never ended")
    subprocess.run(["rm", "-rf", root, record], check=True)
    with ociroot.open(image) as source:
        source.image().extract(root, options)
    assert sorted(path.name for path in place.iterdir()) == ["image", "root", "root.mtree"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_source_that_cannot_be_read(
    place: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    image, root = archive(place / "image", LAYERS), place / "root"
    for number in range(1, 100):
        faults = Faults("pread", code)
        faults.fails_at = number
        with monkeypatch.context() as patched:
            patched.setattr(os, "pread", faults)
            try:
                extract(image, root)
            except SourceError as error:
                assert str(image) in str(error)
                assert os.strerror(code) in str(error)
                assert sorted(path.name for path in place.iterdir()) == ["image"]
            else:
                break
    assert number > 5


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ociroot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("handles", "enough"), [(64, True), (32, True), (9, True), (8, True), (7, False)]
)
def test_few_handles(place: Path, handles: int, enough: bool) -> None:
    """The number of directories kept open depends on the limit of descriptors."""
    members = [Member(b"%d/" % n + b"d/" * 60 + b"f", data=b"x") for n in range(60)]
    again = [Member(b"%d/" % n + b"d/" * 60 + b"g", data=b"x") for n in range(60)]
    image = archive(place / "image", [Layer(members, "gzip"), Layer(again, "gzip")])

    limit = handles + kept_by_libraries()

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    done = run("extract", "-q", image, place / "root", preexec_fn=few)
    if enough:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode in (1, 7)
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
        # With so few descriptors clean-up can fail, too; the next run does it.
        assert not (place / "root").exists()
        assert run("extract", "-q", image, place / "root").returncode == 0
    assert sorted(path.name for path in place.iterdir()) == ["image", "root"]


def test_signals_all_the_time(place: Path) -> None:
    """Users of the library may have timers: interrupted calls are retried."""
    image, root = archive(place / "image", LAYERS * 5), place / "root"
    extract(image, root)
    whole = snapshot(root)
    rung = 0

    def ring(number: int, frame: object) -> None:
        nonlocal rung
        rung += 1

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while rung < 200:
            extract(image, root, replace_anything=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert differences(whole, snapshot(root)) == []


def test_a_source_that_comes_slowly(place: Path) -> None:
    image, root = archive(place / "image", LAYERS), place / "root"
    content = image.read_bytes()
    command = [sys.executable, "-m", "ociroot", "extract", "-q", "-", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for at in range(0, len(content), 701):
            process.stdin.write(content[at : at + 701])
            process.stdin.flush()
    assert process.returncode == 0
    assert (root / "e/g/h/i").exists()


def big(path: Path) -> Path:
    """An image of which most is unread when the first file is written."""
    return archive(path, [[Member(b"%d" % n, data=b"%02d" % n * 1_500_000) for n in range(20)]])


def test_a_source_that_vanishes_when_it_is_open(place: Path) -> None:
    image, root = big(place / "image"), place / "root"
    with ociroot.open(image) as source:
        chosen = source.image()
        image.unlink()
        chosen.extract(root)
    assert len(list(root.iterdir())) == 20


@pytest.mark.parametrize("change", ["shrinks", "changes"])
def test_a_source_that_changes_under_our_hands(place: Path, change: str) -> None:
    image, root = big(place / "image"), place / "root"
    size = image.stat().st_size

    def interfere(progress: ociroot.Progress) -> None:
        if image.stat().st_mtime != 1:
            if change == "shrinks":
                os.truncate(image, size * 2 // 3)
            else:
                with image.open("r+b") as file:
                    file.seek(size * 2 // 3)
                    file.write(bytes(1000))
            os.utime(image, (1, 1))

    with pytest.raises((SourceError, VerificationError)) as caught:
        extract(image, root, progress=interfere)
    assert isinstance(caught.value, SourceError) == (change == "shrinks")
    assert sorted(path.name for path in place.iterdir()) == ["image"]


def test_a_file_system_that_cannot_exchange(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems do not support RENAME_EXCHANGE; that is found before the work."""
    image, root = archive(place / "image", LAYERS), place / "root"
    (root / "old").mkdir(parents=True)

    def never(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(linux, "renameat2", never)
    with pytest.raises(DestinationError, match="cannot exchange"):
        extract(image, root, replace_anything=True)
    assert (root / "old").is_dir()
    assert sorted(path.name for path in place.iterdir()) == ["image", "root"]
