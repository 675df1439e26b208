"""The command as a process: signals, destinations, streams and exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .support.build import (
    HOST_ARCHITECTURE,
    Layer,
    archive,
    compress,
    digest,
    directory,
    entry,
    file,
    link,
    symlink,
)
from .support.needs import besides_owners, need_tools
from .support.snapshot import Snapshot, differences, snapshot
from .support.user import NOBODY, unprivileged, workshop

COMMAND = (sys.executable, "-m", "ociroot")
# A user who is not root and cannot write files of others, but can read the interpreter and our
# sources wherever the tests are installed.
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
TREE = [
    directory(b".", mode=0o751, mtime=1_600_000_000),
    directory(b"etc", mode=0o755),
    file(b"etc/shadow", b"secret", mode=0o640),
    directory(b"tmp", mode=0o1777),
    file(b"bin/tool", b"tool", mode=0o4755),
    link(b"bin/same", b"bin/tool"),
    symlink(b"sbin", b"bin"),
]
NAMES = {b".", b"etc", b"etc/shadow", b"tmp", b"bin", b"bin/tool", b"bin/same", b"sbin"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that any user may enter, unlike pytest's."""
    with workshop() as path:
        path.chmod(0o755)
        yield path


@pytest.fixture
def image(place: Path) -> Path:
    return archive(place / "image.tar", [TREE])


@pytest.fixture
def expected(image: Path, place: Path) -> Snapshot:
    """The tree at a destination that did not exist before."""
    good(extract(image, place / "expected"))
    tree = snapshot(place / "expected")
    assert tree.keys() == NAMES
    return tree


def extract(
    *arguments: str | Path, before: tuple[str, ...] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "timeout": 120} | options
    options.setdefault("stdout", subprocess.PIPE)
    command = [*before, *COMMAND, "extract", *arguments]
    return subprocess.run(command, text=True, check=False, **options)


def good(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check an error: the exit code, empty stdout, and one line that contains all of the words."""
    assert done.returncode == code, done.stderr
    assert not done.stdout
    assert done.stderr.endswith("\n")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("ociroot: ")
    for word in words:
        assert word in done.stderr


# Signals.

LARGE = 2**36  # too large to be written in the time of a test


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small blob with some files and a huge one, whose extraction does not finish in the test."""
    member = tarfile.TarInfo("large")
    member.size = LARGE
    some = [file(b"some/%d/file" % number, b"content") for number in range(500)]
    head = b"".join(entry(one) for one in some) + member.tobuf(tarfile.GNU_FORMAT)
    zeros = compress(bytes(2**26), "zstd")
    blob = compress(head, "zstd") + zeros * (LARGE // 2**26)
    path = tmp_path_factory.mktemp("endless") / "image.tar"
    # The layer is never read to its end, so its diff_id is not checked.
    return archive(path, [Layer(b"", "zstd", blob=blob)], diff_ids=[digest(b"")])


@contextmanager
def in_the_middle(*arguments: str | Path, beside: Path) -> Iterator[subprocess.Popen[str]]:
    """Run until the huge file exists in a staging directory below `beside`; stop it at exit."""
    process = subprocess.Popen(
        [*COMMAND, "extract", "--max-size=1T", "--max-ratio=1000000", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A failure here must not fill the machine's memory.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**33, 2**33)),
    )
    try:
        while not list(beside.glob(".*ociroot*/rootfs/large")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == ""
    assert len(err.splitlines()) == 1
    assert number.name in err


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@SIGNALS
def test_a_signal_leaves_nothing(endless: Path, place: Path, number: signal.Signals) -> None:
    with in_the_middle(endless, place / "root", beside=place) as process:
        (staging,) = place.iterdir()
        assert staging.stat().st_mode & 0o777 == 0o700
        stopped(process, number)
    assert list(place.iterdir()) == []


@SIGNALS
def test_a_signal_leaves_an_empty_directory_as_it_was(
    endless: Path, place: Path, number: signal.Signals
) -> None:
    root = place / "root"
    root.mkdir(0o710)
    before = snapshot(root)
    with in_the_middle(endless, root, beside=place) as process:
        stopped(process, number)
    assert list(place.iterdir()) == [root]
    assert snapshot(root) == before


@SIGNALS
def test_a_signal_leaves_the_old_tree(endless: Path, place: Path, number: signal.Signals) -> None:
    root = place / "root"
    (root / "old/sub").mkdir(parents=True)
    (root / "old/file").write_text("old")
    before = snapshot(root)
    with in_the_middle("--replace-anything", endless, root, beside=place) as process:
        assert snapshot(root) == before
        stopped(process, number)
    assert list(place.iterdir()) == [root]
    assert snapshot(root) == before


@pytest.mark.root
@SIGNALS
def test_a_signal_leaves_a_mount_point_empty(
    endless: Path, place: Path, number: signal.Signals
) -> None:
    with volume(place) as root:
        with in_the_middle(endless, root, beside=root) as process:
            stopped(process, number)
        assert sorted(path.name for path in root.iterdir()) == ["lost+found"]
    assert list(place.iterdir()) == [root]


@SIGNALS
def test_a_second_signal_does_not_stop_the_cleaning_up(
    endless: Path, place: Path, number: signal.Signals
) -> None:
    with in_the_middle(endless, place / "root", beside=place) as process:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        while process.poll() is None:
            process.send_signal(number)
        assert process.returncode == 128 + number
    assert list(place.iterdir()) == []


# Destinations.


@contextmanager
def volume(place: Path) -> Iterator[Path]:
    """A newly mounted volume, empty except for what mkfs creates."""
    root = place / "volume"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "ociroot-test", root], check=True)
    try:
        (root / "lost+found").mkdir(0o700)
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


def test_absent(image: Path, place: Path, expected: Snapshot) -> None:
    assert expected[b"."].mode == 0o751
    assert expected[b"."].mtime_ns == 1_600_000_000 * 10**9
    assert {path.name for path in place.iterdir()} == {"image.tar", "expected"}


def test_an_empty_directory(image: Path, place: Path, expected: Snapshot) -> None:
    root = place / "root"
    root.mkdir(0o700)
    good(extract(image, root))
    assert differences(snapshot(root), expected) == []
    assert len(list(place.iterdir())) == 3


def test_a_path_with_a_slash_behind_it(image: Path, place: Path, expected: Snapshot) -> None:
    good(extract(image, f"{place}/root/"))
    assert differences(snapshot(place / "root"), expected) == []


@pytest.mark.root
def test_a_mount_point(image: Path, place: Path, expected: Snapshot) -> None:
    with volume(place) as root:
        good(extract(image, root))
        tree = snapshot(root)
        assert tree.pop(b"lost+found").mode == 0o700
        assert differences(tree, expected) == []
        assert os.path.ismount(root)


@pytest.mark.root
@pytest.mark.parametrize("option", [(), ("--replace",)])
def test_a_mount_point_that_holds_something(
    image: Path, place: Path, option: tuple[str, ...]
) -> None:
    with volume(place) as root:
        (root / "mine").write_text("mine")
        refused(extract(*option, image, root), 7, str(root))
        assert sorted(path.name for path in root.iterdir()) == ["lost+found", "mine"]


@pytest.mark.root
def test_a_bind_mount(image: Path, place: Path, expected: Snapshot) -> None:
    root, other = place / "root", place / "other"
    root.mkdir()
    other.mkdir()
    subprocess.run(["mount", "--bind", other, root], check=True)
    try:
        good(extract(image, root))
        assert differences(snapshot(other), expected) == []
    finally:
        subprocess.run(["umount", root], check=True)
    assert list(root.iterdir()) == []


def test_lost_and_found_elsewhere_is_something(image: Path, place: Path) -> None:
    root = place / "root"
    (root / "lost+found").mkdir(parents=True)
    refused(extract(image, root), 7, str(root), "--replace")


def test_what_holds_something_is_refused(image: Path, place: Path) -> None:
    root = place / "root"
    root.mkdir()
    (root / "mine").write_text("mine")
    before = snapshot(root)
    refused(extract(image, root), 7, str(root), "--replace")
    assert snapshot(root) == before
    assert {path.name for path in place.iterdir()} == {"image.tar", "root"}


def test_replace(image: Path, place: Path, expected: Snapshot) -> None:
    root = place / "root"
    (root / "old/closed").mkdir(parents=True)
    (root / "old/closed/file").write_text("old")
    (root / "old/closed").chmod(0)
    good(extract("--replace-anything", image, root))
    assert differences(snapshot(root), expected) == []
    good(extract("--replace-anything", image, root))  # and again over its own result
    assert differences(snapshot(root), expected) == []
    assert {path.name for path in place.iterdir()} == {"image.tar", "expected", "root"}


def test_replace_keeps_the_old_tree_when_the_image_is_bad(place: Path) -> None:
    bad = archive(place / "bad.tar", [TREE], diff_ids=[digest(b"another")])
    root = place / "root"
    (root / "old").mkdir(parents=True)
    before = snapshot(root)
    refused(extract("--replace-anything", bad, root), 4, str(bad))
    assert snapshot(root) == before
    assert {path.name for path in place.iterdir()} == {"bad.tar", "root"}


def test_the_current_directory(image: Path, place: Path, expected: Snapshot) -> None:
    root = place / "root"
    root.mkdir()
    seen = subprocess.run(
        ["sh", "-c", '"$@" && ls -A . && cd etc && ls', "sh", *COMMAND, "extract", image, "."],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert seen.stdout.split() == ["bin", "etc", "sbin", "tmp", "shadow"]
    assert differences(snapshot(root), expected) == []


def test_a_link_to_an_empty_directory(image: Path, place: Path, expected: Snapshot) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    good(extract(image, place / "link"))
    assert (place / "link").is_symlink()
    assert differences(snapshot(place / "real"), expected) == []


@pytest.mark.parametrize("where", ["file", "absent/root", "file/root", "dangling/root"])
def test_what_cannot_be_a_destination(image: Path, place: Path, where: str) -> None:
    (place / "file").write_text("mine")
    (place / "dangling").symlink_to("nowhere")
    before = snapshot(place)
    refused(extract(image, place / where), 7, where)
    assert snapshot(place) == before


@pytest.mark.root
def test_a_parent_that_may_not_be_written(image: Path, place: Path) -> None:
    need_tools("setpriv")
    refused(extract(image, place / "root", before=AS_NOBODY), 7, str(place / "root"))
    own = place / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    done = extract(image, own, before=AS_NOBODY)
    assert done.returncode == 0, done.stderr
    tree = snapshot(own)
    assert tree.keys() == NAMES
    assert {record.uid for record in tree.values()} == {NOBODY}
    assert tree[b"bin/tool"].links == (b"bin/same", b"bin/tool")
    assert {path.name for path in place.iterdir()} == {"image.tar", "own"}


def test_nothing_comes_from_the_parent(image: Path, place: Path, expected: Snapshot) -> None:
    need_tools("setfacl")
    parent = place / "parent"
    parent.mkdir()
    if os.geteuid() == 0:
        os.chown(parent, -1, 1234)
    parent.chmod(0o2775)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx,g:2345:rwx", parent], check=True)
    (parent / "inside").mkdir()
    assert os.listxattr(parent / "inside")
    good(extract(image, parent / "absent"))
    good(extract(image, parent / "inside"))
    assert differences(snapshot(parent / "absent"), expected) == []
    assert differences(snapshot(parent / "inside"), expected) == []


@pytest.mark.root
def test_nothing_comes_from_a_mount_point(image: Path, place: Path, expected: Snapshot) -> None:
    need_tools("setfacl")
    with volume(place) as root:
        os.chown(root, -1, 1234)
        root.chmod(0o2775)
        subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", root], check=True)
        good(extract(image, root))
        tree = snapshot(root)
        del tree[b"lost+found"]
        assert differences(tree, expected) == []


def test_the_umask_means_nothing(image: Path, place: Path, expected: Snapshot) -> None:
    done = extract(image, place / "root", umask=0o077)
    good(done)
    assert differences(snapshot(place / "root"), expected) == []


# Errors.


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as image:
        image.truncate(size)


def damage(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"secret") == 1
    path.write_bytes(data.replace(b"secret", b"Secret"))


def unknown_type(path: Path) -> None:
    archive(path, [Layer(TREE, media_type="application/vnd.example.layer")])


def another_kind(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, tuple[int, Callable[[Path], object]]] = {
    "absent": (1, Path.unlink),
    "a directory": (3, another_kind),
    "empty": (3, lambda path: cut(path, 0)),
    "text": (3, lambda path: path.write_text("no archive\n" * 1000)),
    "zeros": (3, lambda path: path.write_bytes(bytes(10240))),
    "cut in a header": (3, lambda path: cut(path, 700)),
    "cut in half": (3, lambda path: cut(path, path.stat().st_size // 2)),
    "damaged": (4, damage),
    "diff_id": (4, lambda path: archive(path, [TREE], diff_ids=[digest(b"")])),
    "not JSON": (3, lambda path: archive(path, [TREE], index=b"{")),
    "no tar inside": (3, lambda path: archive(path, [b"no tar\n" * 1000])),
    "a layer of another type": (5, unknown_type),
    "a member without a name": (3, lambda path: archive(path, [[file(b"")]])),
}


@pytest.mark.parametrize("option", [(), ("--json",), ("--quiet",), ("-v",)], ids=str)
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive(image: Path, place: Path, case: str, option: tuple[str, ...]) -> None:
    code, spoil = BROKEN[case]
    spoil(image)
    refused(extract(*option, image, place / "root"), code, str(image))
    assert list(place.iterdir()) in ([image], [])


def test_a_platform_that_is_not_there(image: Path, place: Path) -> None:
    done = extract("--platform", "linux/s390x", image, place / "root")
    problem, *choices = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{image}: there is no image for linux/s390x" in problem
    # The available images, and the option that selects each.
    assert choices[-1].split()[-2:] == ["--platform", f"linux/{HOST_ARCHITECTURE}"]
    assert list(place.iterdir()) == [image]


@pytest.mark.parametrize(
    "arguments", [(), ("image",), ("a", "b", "c"), ("--no-such-option", "a", "b")], ids=str
)
def test_usage(arguments: tuple[str, ...], place: Path) -> None:
    done = extract(*arguments, cwd=place)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: ociroot extract" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_data(option: str) -> None:
    done = extract(option)
    assert done.returncode == 0
    assert "--replace" in done.stdout
    assert done.stderr == ""


@pytest.mark.root
def test_no_space(place: Path) -> None:
    root = place / "small"
    root.mkdir()
    plain = archive(place / "plain.tar", [[file(b"large", bytes(2**22))]])
    large = archive(place / "large.tar", [Layer([file(b"large", bytes(2**22))], "gzip")])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "ociroot-test", root], check=True)
    try:
        refused(extract(plain, root), 7, str(root), "no space", "nothing was left behind")
        refused(extract(large, root), 7, str(root), "large", "no space for", "behind")
        assert list(root.iterdir()) == []
    finally:
        subprocess.run(["umount", root], check=True)


# Streams.


def test_json_is_one_document_and_all_of_stdout(place: Path) -> None:
    twice = archive(place / "image.tar", [[*TREE, file(b"etc/shadow", b"again")]])
    done = extract("--json", twice, place / "root")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["layers"][0]["entries"] == len(TREE) + 1
    codes = [warning["code"] for warning in report["warnings"]]
    assert besides_owners(codes) == ["duplicate-path"]
    assert "warning: " in done.stderr
    done = extract("--json", "--quiet", twice, place / "quiet")
    assert json.loads(done.stdout)["config"] == report["config"]
    assert done.stderr == ""


def test_output_that_nobody_takes(image: Path, place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = extract("--json", image, place / "root", stdout=full)
    assert done.returncode == 1
    assert unprivileged(done.stderr).count("\n") == 2
    assert done.stderr.splitlines()[-1].endswith("standard output: No space left on device")
    assert "Traceback" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = extract("--json", image, place / "other", stdout=write)
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_no_progress_where_there_is_no_terminal(place: Path) -> None:
    done = extract(slow(place), place / "root", env=os.environ | {"TERM": "xterm-256color"})
    good(done)
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stderr) is None
    lines = done.stderr.splitlines()
    assert len([line for line in lines if not line.startswith("ociroot: warning: owners ")]) == 1


def slow(place: Path) -> Path:
    """An image whose extraction takes long enough for a progress bar."""
    size = 2**29
    member = tarfile.TarInfo("large")
    member.size = size
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(size + 1024)
    return archive(place / "slow.tar", [Layer(content, "zstd")])


def on_a_terminal(*arguments: str | Path, **environment: str) -> str:
    """Run with a terminal as stderr and return its output."""
    terminal, end = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(
        [*COMMAND, "extract", "--max-size=1T", "--max-ratio=1000000", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=end,
        env=clean | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
    ) as process:
        os.close(end)
        shown = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(terminal)
    assert process.returncode == 0, shown
    return shown.decode()


COLOUR = re.compile(r"\x1b\[(\d+;)*(3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


def test_a_terminal_shows_progress_in_colour_unless_told_otherwise(place: Path) -> None:
    image = slow(place)
    shown = on_a_terminal(image, place / "colour")
    assert "layer 1/1" in shown
    assert COLOUR.search(shown)
    shown = on_a_terminal(image, place / "plain", NO_COLOR="1")
    assert "layer 1/1" in shown
    assert COLOUR.search(shown) is None
    assert on_a_terminal("--quiet", image, place / "quiet") == ""
