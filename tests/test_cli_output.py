"""Where output goes, and errors when it cannot be written: one line and exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .support.build import archive, directory, file

COMMAND = (sys.executable, "-m", "ociroot")
# PYTHONUNBUFFERED may be set in the environment of the tests.
BUFFERING = pytest.mark.parametrize("unbuffered", [False, True], ids=["buffered", "unbuffered"])

# Each writes to stdout and, except for the last ones, nothing to stderr; `S` is the image.
WRITING = {
    "ls": ("ls", "S"),
    "ls-json": ("ls", "-R", "--json", "S"),
    "tree": ("tree", "S"),
    "cat": ("cat", "S", "/etc/motd"),
    "cat-much": ("cat", "S", "/large"),
    "cat-json": ("cat", "--json", "S", "/etc/motd"),
    "cp": ("cp", "S:/etc/motd", "-"),
    "cp-much": ("cp", "S:/large", "-"),
    "diff": ("diff", "--layers", "0..1", "S"),
    "find-layer": ("find-layer", "S", "/etc/motd"),
    "inspect": ("inspect", "S"),
    "verify": ("verify", "S"),
    "help": ("--help",),
    "help-of-a-command": ("extract", "--help"),
    "help-of-the-limits": ("ls", "--help-limits"),
    "version": ("--version",),
    "completion": (),
    "export": ("export", "--quiet", "S", "-"),
    "export-json": ("export", "--quiet", "--json", "S", "T"),
    "extract-json": ("extract", "--quiet", "--json", "S", "D"),
}
COMMANDS = pytest.mark.parametrize("name", WRITING)
DONE = {"diff": 1}  # the images differ


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    members = [directory(b"etc"), file(b"etc/motd", b"hello\n"), file(b"large", bytes(300_000))]
    return archive(tmp_path_factory.mktemp("image") / "image.tar", [members])


def words(name: str, image: Path, place: Path) -> list[str]:
    """Return the arguments of a command with its files."""
    known = {"S": str(image), "D": str(place / "root"), "T": str(place / "root.tar")}
    return [known.get(word, word.replace("S:", f"{image}:")) for word in WRITING[name]]


def environment(name: str = "", unbuffered: bool = False) -> dict[str, str]:
    """Return the environment of a user's shell."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if unbuffered:
        clean["PYTHONUNBUFFERED"] = "1"
    if name == "completion":
        clean |= {"_OCIROOT_COMPLETE": "bash_complete", "COMP_WORDS": "ociroot ", "COMP_CWORD": "1"}
    return clean


def run_to(
    stdout: int, name: str, image: Path, place: Path, unbuffered: bool
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words(name, image, place)],
        env=environment(name, unbuffered),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def run_closed(
    closed: str, name: str, image: Path, place: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command with descriptors that the shell closes."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *words(name, image, place)],
        env=environment(name),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def full() -> Iterator[int]:
    with Path("/dev/full").open("w") as stream:
        yield stream.fileno()


@contextmanager
def gone() -> Iterator[int]:
    """A pipe whose read end is closed."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@BUFFERING
@COMMANDS
def test_no_space_for_output(image: Path, tmp_path: Path, name: str, unbuffered: bool) -> None:
    with full() as stdout:
        done = run_to(stdout, name, image, tmp_path, unbuffered)
    assert done.stderr == "ociroot: cannot write to standard output: No space left on device\n"
    assert done.returncode == 1


@BUFFERING
@COMMANDS
def test_a_reader_that_has_gone(image: Path, tmp_path: Path, name: str, unbuffered: bool) -> None:
    with gone() as stdout:
        done = run_to(stdout, name, image, tmp_path, unbuffered)
    assert (done.returncode, done.stderr) == (1, "")


@COMMANDS
def test_a_closed_stdout(image: Path, tmp_path: Path, name: str) -> None:
    done = run_closed(">&-", name, image, tmp_path)
    assert done.stderr == "ociroot: cannot write to standard output: Bad file descriptor\n"
    assert done.returncode == 1


@COMMANDS
def test_a_closed_stderr(image: Path, tmp_path: Path, name: str) -> None:
    done = run_closed("2>&-", name, image, tmp_path)
    assert done.returncode == DONE.get(name, 0)
    assert done.stdout
    assert done.stderr == ""


@COMMANDS
def test_all_streams_closed(image: Path, tmp_path: Path, name: str) -> None:
    """No file that is opened becomes stdin, stdout or stderr, which would corrupt it."""
    before = image.read_bytes()
    done = run_closed("<&- >&- 2>&-", name, image, tmp_path)
    assert done.returncode == 1
    assert image.read_bytes() == before


def test_messages_that_cannot_be_written_fail_nothing(image: Path, tmp_path: Path) -> None:
    for number, where in enumerate(("2>/dev/full", "2>&-", "2>&- >&- <&-")):
        place = tmp_path / str(number)
        place.mkdir()
        command = [*COMMAND, "extract", "-v", str(image), str(place / "root")]
        script = ["sh", "-c", f'exec "$@" {where}', "sh", *command]
        assert subprocess.run(script, env=environment(), check=False).returncode == 0
        assert (place / "root/etc/motd").read_bytes() == b"hello\n"
        absent = ["sh", "-c", f'exec "$@" {where}', "sh", *COMMAND, "ls", "/absent"]
        assert subprocess.run(absent, env=environment(), check=False).returncode == 1


def test_a_closed_stdin_is_no_image() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "ls", "-"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ociroot: standard input: cannot read: Bad file descriptor\n"


def test_output_is_written_as_the_locale_has_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", [[file("grüße".encode()), file(b"\xff")]])
    for locale in ("C.UTF-8", "C", "POSIX"):
        done = subprocess.run(
            [*COMMAND, "ls", path],
            env=environment() | {"LC_ALL": locale},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.splitlines() == ["grüße".encode(), b"\\xff"]
