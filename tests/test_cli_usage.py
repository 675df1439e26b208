"""The command line: usage errors, help, and the exit code of each failure."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import pytest

from ociroot import Limits, OcirootError
from ociroot.cli import command

from .support.build import archive, directory, file
from .support.user import as_ordinary_user, workshop

_CONTEXT = click.Context(command)
COMMANDS = {
    name: each
    for name in command.list_commands(_CONTEXT)
    if (each := command.get_command(_CONTEXT, name)) is not None
}
TREE = [
    directory(b"etc"),
    file(b"etc/motd", b"hello\n"),
    file(b".hidden/tool", b"", mode=0o4755),
    file(b"bin/tool", b"", mode=0o2755),
    file(b"bin/plain", b"", mode=0o755),
    directory(b"shared", mode=0o2775),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return archive(tmp_path / "image.tar", [TREE])


def run(
    *arguments: str | Path, before: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "ociroot", *arguments],
        env=os.environ | {"COLUMNS": "80"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check an error: exit code, empty stdout, and a first line that contains all of the words."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    line, *more = done.stderr.splitlines()
    assert line.startswith("ociroot: ")
    assert not line.endswith(".")
    for word in words:
        assert word in line
    if code == 2:
        (hint,) = more
        assert re.fullmatch(r"Usage: (ociroot .*) \(try 'ociroot( [a-z-]+)? --help'\)", hint)
    else:
        assert more == []


# Usage errors.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ls",), ("missing argument 'IMAGE'",)),
        (("ls", "--depth", "x"), ("no such option: --depth",)),
        (("tree", "--depth", "x", "image"), ("invalid value for '--depth': 'x'",)),
        (("tree", "--depth"), ("'--depth' requires an argument",)),
        (("extract", "a", "b", "c"), ("unexpected extra argument (c)",)),
        (("ls", "--max-size", "x", "image"), ("'--max-size': 'x' is not a positive number",)),
        (("diff", "image"), ("give a second image",)),
        (("cp", "image", "to"), ("image is not IMAGE:PATH",)),
        (("--platform", "linux/arm", "ls", "image"), ("no such option", "--platform")),
        (("extract", "-q", "-v", "image", "root"), ("--quiet and --verbose",)),
        (("extract", "--verbose", "--quiet", "image", "root"), ("--quiet and --verbose",)),
        (("ls\x1b[31m", "image"), ("no such command: ls\\x1b[31m",)),
        (("ls", "--\nx", "image"), ("no such option: --",)),
    ],
)
def test_a_usage_error(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    failed(run(*arguments), 2, *words)


def test_nothing_at_all_is_a_usage_error_with_the_help() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run("--help").stdout


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("unpack", "extract"),
        ("flatten", "export"),
        ("extrakt", "extract or export"),
        ("unpakc", "extract"),
        ("list", "ls"),
        ("show", "inspect"),
        ("copy", "cp"),
        ("check", "verify"),
        ("validate", "verify"),
        ("compare", "diff"),
        ("du", "tree"),
        ("find", "find-layer"),
        ("verfy", "verify"),
    ],
)
def test_an_unknown_command_gets_a_suggestion(asked: str, meant: str) -> None:
    failed(run(asked, "image"), 2, f"no such command: {asked} (did you mean {meant}?)")


def test_a_suggestion_is_made_only_where_there_is_one() -> None:
    done = run("quux")
    failed(done, 2)
    assert done.stderr.splitlines()[0] == "ociroot: no such command: quux"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("extract", "--force", "image", "root"), "--replace"),
        (("extract", "--overwrite", "image", "root"), "--replace"),
        (("ls", "--arch", "arm64", "image"), "--platform"),
        (("ls", "--tag=x", "image"), "--ref"),
        (("ls", "--platfrom", "linux/arm64", "image"), "--platform"),
        (("verify", "--max-entires=5", "image"), "--max-entries"),
    ],
)
def test_an_unknown_option_gets_a_suggestion(arguments: tuple[str, ...], meant: str) -> None:
    failed(run(*arguments), 2, f"(did you mean {meant}")


def values() -> list[tuple[str, str]]:
    """Return every option with a value, of every command."""
    return [
        (name, option)
        for name, each in COMMANDS.items()
        for parameter in each.params
        if isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.multiple
        for option in parameter.opts
    ]


def test_an_option_that_is_given_twice(image: Path) -> None:
    """For each option in this process, which is fast; then for some as a separate command."""
    assert len(values()) > 100
    for name, option in values():
        for first, second in ("12", "11"):
            with pytest.raises(click.UsageError, match=f"{option} is given 2 times"):
                COMMANDS[name].make_context(name, [option, first, "x", option, second, "y"])
    failed(run("ls", "--ref", "a", image, "--ref=b"), 2, "--ref is given 2 times")
    failed(run("diff", "--ref", "a", image, image, "--ref", "b"), 2, "--ref is given 2 times")
    failed(run("verify", *["--max-size=1G"] * 3, image), 2, "--max-size is given 3 times")
    assert run("ls", "-a", "-a", "--json", "--json", image).returncode == 0


def test_a_dash_is_no_directory(image: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ociroot", "extract", image, "-"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    failed(done, 2, "./-")
    assert list(tmp_path.iterdir()) == [image]
    (place := tmp_path / "place").mkdir()
    subprocess.run(
        [sys.executable, "-m", "ociroot", "extract", "-q", image, "./-"], cwd=place, check=True
    )
    assert (place / "-/etc/motd").read_bytes() == b"hello\n"


# Exit codes.


READING: dict[str, tuple[str, ...]] = {
    "cat": ("I", "/etc/motd"),
    "cp": ("I:/etc/motd", "-"),
    "diff": ("I", "I"),
    "export": ("I", "-"),
    "extract": ("I", "R"),
    "find-layer": ("I", "/etc/motd"),
    "inspect": ("I",),
    "ls": ("I",),
    "tree": ("I",),
    "verify": ("I",),
}


def test_every_command_is_tried() -> None:
    assert READING.keys() == COMMANDS.keys() - {"apply-owners"}, "which reads no image"


def reading(name: str, image: Path, root: Path) -> list[str]:
    words = (w.replace("I", str(image)) if w.startswith("I") else w for w in READING[name])
    return [name, *(str(root) if word == "R" else word for word in words)]


def in_process(arguments: list[str]) -> tuple[int, str]:
    """Call a command as :func:`ociroot.cli.main` does; return its exit code and message."""
    try:
        command.main(arguments, "ociroot", standalone_mode=False)
    except (OcirootError, click.ClickException) as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.mark.parametrize("name", READING)
def test_an_image_that_cannot_be_read(name: str) -> None:
    with workshop() as place:
        # As root, because an ordinary user may not be able to read modules that are imported later.
        readable = archive(place / "readable.tar", [TREE])
        assert in_process(reading(name, readable, place / "first"))[0] in (0, 1)
        closed = archive(place / "closed.tar", [TREE])
        closed.chmod(0)
        os.mkfifo(place / "fifo")
        socket.socket(socket.AF_UNIX).bind(str(place / "socket"))
        (place / "loop").symlink_to("loop")
        (layout := place / "layout").mkdir(0)
        cases = {
            closed: "Permission denied",
            layout: "Permission denied",
            closed / "below": "Not a directory",
            place / "absent": "No such file or directory",
            place / "fifo": "not a regular file",
            place / "socket": "No such device or address",
            place / "loop": "Too many levels of symbolic links",
        }
        for path, problem in cases.items():
            arguments = reading(name, path, place / "root")
            code, wrong = as_ordinary_user(partial(in_process, arguments))
            assert code == 1, (path, wrong)
            assert wrong.startswith(f"{path}: ")
            assert problem in wrong
        assert not (place / "root").exists()


def test_a_destination_that_cannot_be_read() -> None:
    with workshop() as place:
        image = archive(place / "image.tar", [TREE])
        assert in_process(["extract", "-q", str(image), f"{place}/first"])[0] == 0
        (place / "root").mkdir(0)
        arguments = ["extract", str(image), f"{place}/root"]
        code, wrong = as_ordinary_user(partial(in_process, arguments))
        assert (code, f"{place}/root" in wrong) == (7, True)


@pytest.mark.parametrize("path", ["/absent", "/etc/motd/below", "/etc/absent"])
def test_a_path_that_the_image_does_not_have(image: Path, tmp_path: Path, path: str) -> None:
    failed(run("ls", image, path), 1, str(image), path)
    failed(run("cat", image, path), 1, str(image), path)
    failed(run("cp", f"{image}:{path}", tmp_path / "to"), 1, str(image), path)
    failed(run("find-layer", image, path), 1, str(image), path)
    assert not (tmp_path / "to").exists()


# Help.


def test_version() -> None:
    done = run("-V")
    assert done.returncode == 0
    assert re.fullmatch(r"ociroot, version \d+\.\d+\.\d+\S*\n", done.stdout)
    assert run("--version").stdout == done.stdout


@pytest.mark.parametrize("width", [80, 81, 90, 100, 200])
def test_help_is_not_cut_off(width: int) -> None:
    shown = " ".join(run("--help", COLUMNS=str(width)).stdout.split())
    for name, each in COMMANDS.items():
        assert each.help is not None
        sentence = " ".join(each.help.split("\n\n")[0].split())
        assert f"{name} {sentence}" in shown
    assert "..." not in shown.replace("[ARGS]...", "")
    assert all(len(line) <= width for line in run("--help", COLUMNS=str(width)).stdout.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_limits_have_a_help_of_their_own(name: str) -> None:
    options = {"--max-" + limit.replace("_", "-") for limit in Limits.__struct_fields__}
    short, long = run(name, "--help"), run(name, "--help-limits")
    assert (short.returncode, short.stderr) == (long.returncode, long.stderr) == (0, "")
    assert not options & set(re.findall(r"--max[a-z-]+", short.stdout))
    assert "--help-limits" in short.stdout
    assert set(re.findall(r"^  (--[a-z-]+)", long.stdout, re.MULTILINE)) == options
    assert "exit code is 6" in long.stdout


def test_the_example_for_set_id_programs_finds_hidden_ones(image: Path) -> None:
    """Check the output that it pipes to jq, and the jq filter."""
    shown = run("ls", "--help").stdout
    (example,) = re.findall(r"^ *(ociroot ls .*) \| (jq .*)$", shown, re.MULTILINE)
    words = [str(image) if w == "app.tar" else w for w in shlex.split(example[0])[1:]]
    listed = json.loads(run(*words).stdout)
    assert '.type == "file" and .mode >= "2000"' in example[1]
    found = [e["path"] for e in listed if e["type"] == "file" and e["mode"] >= "2000"]
    assert sorted(found) == ["/.hidden/tool", "/bin/tool"]
