"""squashfs is written by a program: how it is called, and what becomes of it when it fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import ExportOptions

from .support.build import archive, directory, file
from .support.mounts import disk
from .support.needs import need_root, need_tools
from .support.shapes import held, unexplained, unpack
from .support.snapshot import snapshot
from .test_export_shapes import EVERYTHING

LAYER = [
    directory(b"./", mode=0o711, uid=5, gid=6, mtime=1000, xattrs={b"user.root": b"r"}),
    file(b"etc/file", b"content" * 1000),
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return archive(tmp_path / "image.tar", [LAYER])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where nothing may be left."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there/out.squashfs"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs before those of the machine."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def program(programs: Path, text: str, name: str = "tar2sqfs") -> None:
    path = programs / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def export(image: Path, to: Path, **options: Any) -> ociroot.ExportReport:
    with ociroot.open(image) as source:
        return source.image().export(to, ExportOptions(**options))


def children() -> set[str]:
    """The processes that this one has, zombies as well."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = children(), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert (
        children(),
        threading.active_count(),
        len(list(Path("/proc/self/fd").iterdir())),
    ) == before


# -- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["squashfs", "sqfs", "sfs"])
def test_by_the_name_of_the_file(image: Path, tmp_path: Path, ending: str) -> None:
    need_tools("tar2sqfs")
    report = export(image, tmp_path / f"out.{ending}")
    assert (report.format, report.compression) == ("squashfs", "zstd:3")
    content = (tmp_path / f"out.{ending}").read_bytes()
    assert content.startswith(b"hsqs") and report.size == len(content)
    assert int.from_bytes(content[20:22], "little") == 6, "zstd"


def test_the_same_bytes_each_time(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SOURCE_DATE_EPOCH, which the program would heed, changes nothing by itself."""
    need_tools("tar2sqfs")
    export(image, tmp_path / "1.sqfs")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "500")
    export(image, tmp_path / "2.sqfs")
    assert (tmp_path / "1.sqfs").read_bytes() == (tmp_path / "2.sqfs").read_bytes()


@pytest.mark.parametrize(
    ("compress", "number"), [("gzip", 1), ("gzip:1", 1), ("xz", 4), ("zstd:19", 6), (None, 6)]
)
def test_compression(image: Path, tmp_path: Path, compress: str | None, number: int) -> None:
    need_tools("tar2sqfs")
    report = export(image, tmp_path / "out.sqfs", compress=compress)
    assert report.compression == (compress or "zstd:3")
    assert (tmp_path / "out.sqfs").read_bytes()[20] == number


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress": "none"}, "one of zstd, gzip, xz"),
        ({"compress": "lz4"}, "one of zstd, gzip, xz"),
        ({"compress": "xz:9"}, "no levels"),
        ({"compress": "zstd:23"}, "1 to 22"),
        ({"compress": "gzip:x"}, "1 to 9"),
        ({"tool": "rm"}, "one of tar2sqfs, sqfstar, mksquashfs"),
        ({"squash": True}, "of an image"),
    ],
)
def test_what_cannot_be_asked_for(
    image: Path, out: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ociroot.UsageError, match=message):
        export(image, out, **options)
    assert list(out.parent.iterdir()) == []


def test_options_for_a_program_where_none_is_run(image: Path, tmp_path: Path) -> None:
    for options in ({"tool": "sqfstar"}, {"tool_options": ("-x",)}):
        with pytest.raises(ociroot.UsageError, match="without a program"):
            export(image, tmp_path / "out.tar", **options)


def test_not_to_a_stream(image: Path) -> None:
    command = [sys.executable, "-m", "ociroot", "export", "--format", "squashfs", str(image), "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2 and b"stream" in done.stderr and done.stdout == b""


def test_options_are_passed_on(image: Path, out: Path, programs: Path, tmp_path: Path) -> None:
    """After our own, so that they count, and as they are; the file comes last."""
    said = tmp_path / "said"
    program(programs, f'cat > /dev/null; printf "%s\\n" "$@" > {said}; printf hsqs > "$8"')
    command = [sys.executable, "-m", "ociroot", "export", str(image), str(out), "--", "a b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said.read_text().splitlines() == [
        *("--quiet", "--no-skip", "--compressor", "zstd", "--comp-extra", "level=3"),
        *("a b", "./out.squashfs"),
    ]


def test_a_name_that_looks_like_an_option(image: Path, tmp_path: Path) -> None:
    need_tools("tar2sqfs")
    (tmp_path / "there").mkdir()
    export(image, tmp_path / "there/-x.sqfs")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["-x.sqfs"]


@pytest.mark.root
@pytest.mark.parametrize("tool", ["sqfstar", "mksquashfs"])
def test_other_programs(image: Path, out: Path, tool: str, tmp_path: Path) -> None:
    """From 4.6 on they keep the root's owner, mode and time; before, they are refused."""
    need_root()
    need_tools(tool)
    version = subprocess.run([tool, "-version"], capture_output=True, text=True, check=False).stdout
    if version.split()[2] < "4.6":
        with pytest.raises(ociroot.Unsupported, match="does not keep the root's owner"):
            export(image, out, tool=tool)
        assert list(out.parent.iterdir()) == []
        return
    # With times before 1970 and after 2106, at which they stop or which they store wrongly.
    image = archive(tmp_path / "image", [EVERYTHING])
    report = export(image, out, tool=tool)
    with ociroot.open(image) as source:
        source.image().extract(tmp_path / "rootfs")
    wanted, losses = held("squashfs", snapshot(tmp_path / "rootfs"))
    assert {warning.code for warning in report.warnings} == losses | {"xattrs-unsupported"}
    wanted[b"."].xattrs.clear()
    assert unexplained("unsquashfs", wanted, unpack("unsquashfs", out, tmp_path / "by")) == []


@pytest.mark.parametrize("version", ["4.5.1", "4.5", "3.9"])
def test_an_old_program(image: Path, out: Path, programs: Path, version: str) -> None:
    program(programs, f'echo "sqfstar version {version} (2022/03/17)"', "sqfstar")
    with pytest.raises(ociroot.Unsupported, match=rf"sqfstar {version} .*squashfs-tools-ng"):
        export(image, out, tool="sqfstar")


def test_how_the_others_are_called(image: Path, out: Path, programs: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    options = [
        *("-quiet", "-no-progress", "-exit-on-error", "-mkfs-time", "0", "-root-mode", "711"),
        *("-root-uid", "5", "-root-gid", "6", "-root-time", "1000", "-comp", "zstd"),
        *("-Xcompression-level", "3"),
    ]
    file = "./out.squashfs"
    calls = {"sqfstar": [*options, file], "mksquashfs": ["-", file, "-tar", *options]}
    for tool, call in calls.items():
        program(
            programs,
            f'if [ "$1" = -version ]; then echo "{tool} version 4.6.1 (x)"; exit; fi\n'
            f'printf "%s\\n" "$@" > {said}; cat > /dev/null; printf hsqs > out.squashfs',
            tool,
        )
        export(image, out, tool=tool, force=True)
        assert said.read_text().splitlines() == call


# -- what fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "package"), [(None, "squashfs-tools-ng"), ("sqfstar", "squashfs-tools")]
)
def test_the_package_of_a_missing_program_is_named(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch, tool: str | None, package: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ociroot.Unsupported) as caught:
        export(image, out, tool=tool)
    assert str(caught.value).endswith(f"Debian has it in the package {package})")
    assert caught.value.exit_code == 5
    assert list(out.parent.iterdir()) == []


FAILURES = {
    "at once": ("echo why >&2; exit 3", "tar2sqfs failed with exit code 3: why"),
    "at the end": (
        "cat > /dev/null; echo '  why '; echo 'see --help'; exit 4",
        "failed with exit code 4: why",
    ),
    "silently": ("cat > /dev/null; exit 5", "tar2sqfs failed with exit code 5"),
    "with a message of many lines": (
        "cat > /dev/null; yes x | head -n 100000; echo FATAL: why; yes y | head; exit 1",
        "exit code 1: FATAL: why",
    ),
    "with a usage": (
        "echo usage; echo \"x: unrecognized option '-y'\"; echo 'Try --help'; exit 1",
        "exit code 1: x: unrecognized option '-y'",
    ),
    "with a message of many lines, the first of which counts": (
        "cat > /dev/null; echo why; yes x | head -n 100000; exit 1",
        "exit code 1: why",
    ),
    "with a message that is no text": (
        "cat > /dev/null; printf '\\033[31mred\\377' >&2; exit 1",
        r"exit code 1: \\x1b\[31mred\\xff",
    ),
    "killed": ("cat > /dev/null; kill -9 $$", "tar2sqfs was killed by SIGKILL"),
    "killed while it reads": ("head -c 10 > /dev/null; kill -SEGV $$", "was killed by SIGSEGV"),
    "with nothing read, and no error": ("exit 0", "tar2sqfs failed: it stopped reading too early"),
    "with no file": ("cat > /dev/null", "tar2sqfs failed: it wrote no file"),
    "with another file": (
        "cat > /dev/null; echo no > out.squashfs",
        "tar2sqfs failed: what it wrote is not the format",
    ),
    "with a file, and an error": (
        "cat > /dev/null; printf hsqs > out.squashfs; exit 1",
        "exit code 1",
    ),
    "with a child that goes on": (
        "sleep 1000 > /dev/null 2>&1 < /dev/null & exit 1",
        "exit code 1",
    ),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_program_that_fails(tmp_path: Path, out: Path, programs: Path, how: str) -> None:
    """What it says of the cause is in our error, and nothing is left."""
    text, message = FAILURES[how]
    program(programs, text)
    # More than a pipe holds.
    image = archive(tmp_path / "image", [[file(b"big", bytes(8 << 20))]])
    with pytest.raises(ociroot.DestinationError, match=message) as caught:
        export(image, out)
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 7
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("read", ["", "cat > /dev/null;"], ids=["at once", "at the end"])
def test_what_a_program_has_started_ends_with_it(
    tmp_path: Path, out: Path, programs: Path, read: str, code: int
) -> None:
    started = tmp_path / "started"
    program(
        programs,
        f"sleep 1000 > /dev/null 2>&1 < /dev/null & echo $! > {started}\n"
        f"{read} printf hsqs > out.squashfs; exit {code}",
    )
    image = archive(tmp_path / "image", [[file(b"big", bytes(8 << 20))]])
    if code or not read:
        with pytest.raises(ociroot.DestinationError):
            export(image, out)
    else:
        export(image, out)
    assert has_ended(started.read_text().strip())


def has_ended(pid: str) -> bool:
    """Whether a process has ended, of which init may still have to take note."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "Z (zombie)" in status.read_text()


def test_a_real_message(image: Path, out: Path) -> None:
    need_tools("tar2sqfs")
    with pytest.raises(ociroot.DestinationError, match="unrecognized option '--nonsense'"):
        export(image, out, tool_options=("--nonsense",))


def test_an_argument_without_dashes_before_it(image: Path, out: Path) -> None:
    command = [sys.executable, "-m", "ociroot", "export", str(image), str(out), "extra"]
    for more in ([], ["--", "-x"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("ociroot: unexpected argument: extra\n")
    assert list(out.parent.iterdir()) == []


def test_a_warning_names_the_path(tmp_path: Path) -> None:
    need_tools("tar2sqfs")
    image = archive(tmp_path / "image", [[file(b"a/b/c", b"", mtime=-5)]])
    report = export(image, tmp_path / "out.squashfs")
    (warning,) = report.warnings
    assert warning.message.endswith("a/b/c"), warning


@pytest.mark.root
def test_no_space(tmp_path: Path) -> None:
    need_root()
    need_tools("tar2sqfs")
    image = archive(tmp_path / "image", [[file(b"noise", os.urandom(6 << 20))]])
    with disk(tmp_path / "small", "ext4", "4M", "-q", "-m0", "-O", "^has_journal") as small:
        with pytest.raises(ociroot.DestinationError) as caught:
            export(image, small / "out.sqfs")
        assert caught.value.is_full
        assert "bytes are free" not in str(caught.value)
        assert list(small.iterdir()) == []


def test_a_layer_that_changes_meanwhile(tmp_path: Path, out: Path, programs: Path) -> None:
    """It was read in place after it had been verified: then nothing appears."""
    image = archive(tmp_path / "image", [[file(b"big", bytes(8 << 20))]])
    program(
        programs,
        f"head -c 1000000 > /dev/null; touch {image}; cat > /dev/null; printf hsqs > out.squashfs",
    )
    with pytest.raises(ociroot.SourceError, match="was changed"):
        export(image, out)
    assert list(out.parent.iterdir()) == []


def test_a_file_that_is_there(image: Path, out: Path) -> None:
    need_tools("tar2sqfs")
    out.write_text("mine")
    with pytest.raises(ociroot.DestinationError, match="it exists"):
        export(image, out)
    assert out.read_text() == "mine"
    export(image, out, force=True)
    assert out.read_bytes().startswith(b"hsqs")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["reading", "writing"])
def test_interrupted(
    tmp_path: Path, out: Path, programs: Path, number: signal.Signals, phase: str
) -> None:
    """A program that hangs ends with us, and so does what it has started."""
    started = tmp_path / "started"
    os.mkfifo(started)
    waits = "cat > /dev/null; " if phase == "writing" else ""
    program(programs, f"{waits}sleep 1000 & echo $$ $! > {started}; wait; exec sleep 1000")
    image = archive(tmp_path / "image", [[file(b"big", bytes(8 << 20))]])
    process = subprocess.Popen(
        [sys.executable, "-m", "ociroot", "export", "--quiet", image, out], stderr=subprocess.PIPE
    )
    pids = started.read_text().split()
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 128 + number, said
    assert len(pids) == 2
    for pid in pids:
        assert has_ended(pid)
    assert list(out.parent.iterdir()) == []


def test_killed(tmp_path: Path, out: Path) -> None:
    """The program reads the end of the pipe and ends; the next run removes what is left."""
    need_tools("tar2sqfs")
    programs = tmp_path / "bin"
    programs.mkdir()
    ended = tmp_path / "ended"
    os.mkfifo(ended)
    real = shutil.which("tar2sqfs")
    started = tmp_path / "started"
    os.mkfifo(started)
    program(programs, f'echo > {started}; cat {ended} > /dev/null; {real} "$@"; echo $? > {ended}')
    image = archive(tmp_path / "image", [[file(b"big", bytes(8 << 20))]])
    process = subprocess.Popen(
        [sys.executable, "-m", "ociroot", "export", "--quiet", image, out],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stderr=subprocess.DEVNULL,
    )
    started.read_text()
    process.kill()
    process.wait()
    ended.write_text("")
    assert ended.read_text().strip().isdigit(), "whatever it makes of a part of an archive"
    assert not out.exists()
    export(image, out)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.root
@pytest.mark.parametrize("form", ["squashfs", "cpio"])
def test_owners_attributes_and_paths_are_chosen_as_for_a_directory(
    tmp_path: Path, form: str
) -> None:
    """The map is applied once, to the root and to all below it."""
    need_root()
    need_tools("tar2sqfs", "unsquashfs", "bsdcpio")
    layer = [
        directory(b"./", uid=5, gid=6, mtime=1000),
        directory(b"d", uid=7, gid=8),
        file(b"d/set-id", b"1", mode=0o4755, uid=9, gid=10, xattrs={b"user.a": b"1"}),
        file(b"skipped", b"2"),
    ]
    if form == "squashfs":
        layer[2].xattrs[b"trusted.b"] = b"2"
    image = archive(tmp_path / "image", [layer])
    shape: dict[str, Any] = {
        "policy": ociroot.OutputPolicy(
            owners=ociroot.OwnerMap.parse("0:100000:65536", "0:100000:65536"),
            xattrs=(b"trusted.*",),
        ),
        "filter": ociroot.PathFilter(excludes=[b"/skipped"]),
    }
    with ociroot.open(image) as source:
        source.image().extract(tmp_path / "rootfs", ociroot.ExtractOptions(**shape))
        report = source.image().export(tmp_path / f"out.{form}", ExportOptions(**shape))
    assert report.warnings == ()
    wanted, _ = held(form, snapshot(tmp_path / "rootfs"))
    assert wanted[b"."].uid == 100_005 and b"skipped" not in wanted
    by = "unsquashfs" if form == "squashfs" else "bsdcpio"
    assert unexplained(by, wanted, unpack(by, tmp_path / f"out.{form}", tmp_path / "by")) == []
