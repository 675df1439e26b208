"""``ociroot export``: options, stdout, messages, and the programs that take what it writes."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from .support.build import Layer, archive, directory, file
from .support.command import run
from .support.needs import need_tools
from .support.real import podman_in
from .support.real import run as run_program
from .support.user import workshop

COMMAND = [sys.executable, "-m", "ociroot", "export"]
DOCS = Path(__file__).parent.parent / "docs/shapes.md"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    layers = [
        Layer([directory(b"etc", mtime=10), file(b"etc/hostname", b"box\n", mtime=99)], "gzip"),
        Layer([file(b"bin/sh", b"#!" * 100_000, mode=0o755, uid=0, gid=0)], "zstd"),
    ]
    return archive(tmp_path / "image.tar", layers)


def stdout_of(*arguments: str | Path, **environment: str) -> bytes:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, check=True, env=os.environ | environment
    )
    return done.stdout


def test_a_file(tmp_path: Path, image: Path) -> None:
    done = run("export", image, tmp_path / "out.tar.gz")
    assert done.returncode == 0
    assert done.stdout == ""
    shown = r"linux/\w+: 2 layers, tar gzip:6, [0-9]+ bytes in [0-9.]+ s → .*/out.tar.gz\n"
    assert re.fullmatch(shown, done.stderr)
    assert gzip.decompress((tmp_path / "out.tar.gz").read_bytes()) == stdout_of(image, "-")
    assert run("export", "-q", image, tmp_path / "out.tar").stderr == ""
    again = run("export", image, tmp_path / "out.tar")
    assert again.returncode == 7
    assert again.stderr.endswith("out.tar: it exists (--force replaces it)\n")
    assert run("export", "--force", "--sync", image, tmp_path / "out.tar").returncode == 0


def test_the_report(tmp_path: Path, image: Path) -> None:
    done = run("export", "--json", "-q", "--compress", "zstd", image, tmp_path / "out.tar")
    report = json.loads(done.stdout)
    assert report["format"] == "tar"
    assert report["compression"] == "zstd:3"
    assert report["size"] == (tmp_path / "out.tar").stat().st_size
    assert [layer["compression"] for layer in report["layers"]] == ["gzip", "zstd"]
    assert report["destination"] == str(tmp_path / "out.tar")
    assert done.stderr == ""


def test_stdout_and_stdin(image: Path) -> None:
    plain = stdout_of(image, "-")
    with image.open("rb") as source:
        done = subprocess.run([*COMMAND, "-", "-"], stdin=source, capture_output=True, check=True)
    assert done.stdout == plain
    assert "→ stdout" in done.stderr.decode()
    assert gzip.decompress(stdout_of(image, "-", "--compress", "gzip")) == plain
    assert sorted(stdout_of(image, "-", "--order", "layers")) == sorted(plain)


def test_times_are_clamped_to_the_environments(image: Path) -> None:
    for epoch, expected in (("50", {"etc": 10, "hostname": 50}), ("0", {"etc": 0, "hostname": 0})):
        data = stdout_of(image, "-", "--clamp-mtime", SOURCE_DATE_EPOCH=epoch)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            times = {Path(member.name).name: member.mtime for member in tar}
        assert times | expected == times
    assert stdout_of(image, "-", SOURCE_DATE_EPOCH="0") == stdout_of(image, "-")


@pytest.mark.parametrize("epoch", [None, "", "x", "-1", "1.5", "²", "9" * 20])
def test_a_clamp_needs_a_time(image: Path, epoch: str | None) -> None:
    environment = {key: os.environ[key] for key in os.environ if key != "SOURCE_DATE_EPOCH"}
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = epoch
    done = run("export", "--clamp-mtime", image, "x.tar", env=environment)
    assert done.returncode == 2
    assert "--clamp-mtime needs SOURCE_DATE_EPOCH" in done.stderr


def test_owners_and_paths(image: Path) -> None:
    data = stdout_of(image, "-", "--map", "0:100000:65536", "--exclude", "/bin", "--no-xattrs")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name: (member.uid, member.gid) for member in tar}
    assert found["./etc/hostname"][0] >= 100_000
    assert "./bin" not in found
    data = stdout_of(image, "-", "--no-owner", "--subtree", "etc")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(m.name, m.uid, m.gid) for m in tar] == [(".", 0, 0), ("./hostname", 0, 0)]


USAGE = {
    "no format": (["I", "out"], "out: its name does not end in .tar"),
    "unknown format": (["--format", "rar", "I", "out"], "unknown format rar: it is one of tar"),
    "unknown compression": (["--compress", "lz4", "I", "out.tar"], "unknown compression lz4"),
    "level": (["--compress", "xz:10", "I", "out.tar"], "the level of xz is 0 to 9, not 10"),
    "json and data": (["--json", "I", "-"], "--json writes to stdout, and so does OUT"),
    "order": (["--order", "size", "I", "-"], "'size' is not one of 'tree', 'layers'"),
}


@pytest.mark.parametrize(("words", "message"), USAGE.values(), ids=USAGE.keys())
def test_usage(tmp_path: Path, image: Path, words: list[str], message: str) -> None:
    given = [str(image) if word == "I" else word for word in words]
    done = run("export", *given, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]


def test_a_terminal_gets_no_archive(image: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, image, "-"], stdout=theirs, stderr=subprocess.PIPE, check=False
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert b"an archive is not written to a terminal" in done.stderr


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path) -> None:
    image = archive(tmp_path / "image.tar", [[file(b"f", bytes(4 << 20))]])
    with subprocess.Popen(
        [*COMMAND, image, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(512)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_full_device_is_an_error(image: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, image, "-"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("ociroot: cannot write to standard output: No space")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(tmp_path: Path, image: Path, number: signal.Signals) -> None:
    program = f"""
import os, sys
from ociroot.cli import main
from ociroot.outputs.stream.output import FileOutput
write = FileOutput.write
def hooked(self, data):
    write(self, data)
    os.kill(os.getpid(), {int(number)})
FileOutput.write = hooked
main()
"""
    out = tmp_path / "out.tar.zst"
    done = subprocess.run(
        [sys.executable, "-c", program, "export", image, out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + number
    assert "nothing was left behind" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]


# -- the documentation's examples, with the real thing --------------------------------------------


def example(about: str) -> str:
    """Return the example of docs/shapes.md that follows some words."""
    found = re.search(rf"^\*\*{about}\.\*\*.*?```sh\n(.*?)```", DOCS.read_text(), re.M | re.S)
    assert found is not None
    return found[1]


def prepared(example: str, tmp_path: Path, image: Path) -> str:
    """Return an example as it is to be run: with this checkout's command, in this directory."""
    (tmp_path / "debian.tar").write_bytes(image.read_bytes())
    (tmp_path / "app.tar").write_bytes(image.read_bytes())
    return example.replace("ociroot export", " ".join(COMMAND))


@pytest.mark.root
def test_lxc_creates_a_container_of_it(tmp_path: Path, image: Path) -> None:
    need_tools("lxc-create", "xz")
    commands = prepared(example("LXC"), tmp_path, image)
    commands = commands.replace("lxc-create", f"lxc-create -P {tmp_path}/lxc")
    (tmp_path / "lxc").mkdir()
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
    root = tmp_path / "lxc/debian/rootfs"
    assert (root / "etc/hostname").read_text() == "box\n"
    assert (root / "bin/sh").stat().st_mode & 0o777 == 0o755
    assert (root / "etc").stat().st_mtime == 10
    assert "lxc.uts.name = debian" in (tmp_path / "lxc/debian/config").read_text()


@pytest.mark.root
def test_podman_imports_it(image: Path) -> None:
    need_tools("podman")
    # podman wants a short path.
    with workshop() as place:
        commands = prepared(example("Docker and Podman"), place, image)
        (line,) = [line for line in commands.splitlines() if "podman" in line]
        podman: Any = podman_in(place)
        storage = " ".join(map(str, podman.args))
        command = line.replace("podman import", f"{storage} import --quiet")
        run_program("sh", "-ec", command, cwd=place, env=podman.keywords["env"])
        name = "localhost/app:flat"
        podman("tag", podman("images", "--quiet"), name)
        mounted = Path(podman("image", "mount", name))
        try:
            assert (mounted / "etc/hostname").read_text() == "box\n"
            assert (mounted / "bin/sh").stat().st_size == 200_000
        finally:
            podman("image", "umount", "--force", name)
            podman("rmi", "--force", name)


@pytest.mark.root
def test_the_split_image_of_incus(tmp_path: Path, image: Path) -> None:
    need_tools("tar", "xz")
    commands = prepared(example("Incus"), tmp_path, image)
    # There is no Incus here: its own way of unpacking (internal/archive, `Unpack`).
    *rest, last = commands.strip().splitlines()
    assert last == "incus image import metadata.tar.xz rootfs.tar.xz --alias debian"
    subprocess.run(["sh", "-ec", "\n".join(rest)], cwd=tmp_path, check=True)
    options = ["--anchored", "--wildcards", "--exclude=dev/*", "--exclude=./dev/*", "--restrict"]
    options += ["--force-local", "--numeric-owner", "--xattrs-include=*", "-Jxf"]
    for name in ("metadata", "rootfs"):
        (tmp_path / name).mkdir()
        command = ["tar", *options, f"{name}.tar.xz", "-C", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    assert "architecture: x86_64\n" in (tmp_path / "metadata/metadata.yaml").read_text()
    assert (tmp_path / "rootfs/etc/hostname").read_text() == "box\n"
    assert (tmp_path / "rootfs/etc").stat().st_mtime == 10
