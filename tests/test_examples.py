"""The sample image, `make demo` and the examples of the README, as root and as another user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ociroot
from tests.support.needs import need_tools
from tests.support.snapshot import Snapshot, snapshot

CHECKOUT = Path(__file__).parent.parent
EXAMPLE = CHECKOUT / "examples/sample_image.py"
NOBODY = 65534
BUILT = 1_700_000_000
SECOND = 10**9

# kind, mode and uid
PROMISED = {
    ".": ("dir", 0o755, 0),
    "bin": ("symlink", 0o777, 0),
    "dev": ("dir", 0o755, 0),
    "dev/null": ("char", 0o666, 0),
    "etc": ("dir", 0o755, 0),
    "etc/os-release": ("file", 0o644, 0),
    "srv": ("dir", 0o755, 0),
    "srv/app": ("dir", 0o2775, 1000),
    "srv/app/grüße.txt": ("file", 0o644, 1000),
    "srv/app/plugins": ("symlink", 0o777, 0),
    "srv/app/plugins-2": ("dir", 0o755, 1000),
    "srv/app/plugins-2/two": ("file", 0o644, 1000),
    "srv/app/start": ("file", 0o755, 0),
    "tmp": ("dir", 0o1777, 0),
    "usr": ("dir", 0o755, 0),
    "usr/bin": ("dir", 0o755, 0),
    "usr/bin/become": ("file", 0o4755, 0),
    "usr/bin/hello": ("file", 0o755, 0),
    "usr/bin/hi": ("file", 0o755, 0),
    "var": ("dir", 0o755, 0),
    "var/cache": ("dir", 0o755, 0),
    "var/cache/apt": ("dir", 0o700, 0),
    "var/cache/apt/lock": ("file", 0o640, 0),
}

# Another user may be able to read neither the checkout nor the interpreter, so a first run imports
# all that is needed.
AS_ANOTHER = """
import os, sys
import ociroot

def extract(name):
    with ociroot.open("sample.tar") as source:
        return source.image().extract(name)

extract("first")
if os.geteuid() == 0:
    user = int(sys.argv[1])
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
print(*(warning.code for warning in extract("second").warnings))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter and write to."""
    path = Path(tempfile.mkdtemp(prefix="ociroot-example-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def build(path: Path) -> Path:
    subprocess.run([sys.executable, EXAMPLE, path], check=True)
    return path


def check(tree: Snapshot, promised: dict[str, tuple[str, int, int]], *, with_xattrs: bool) -> None:
    found = {
        os.fsdecode(path): (record.kind, record.mode, record.uid) for path, record in tree.items()
    }
    assert found == promised
    assert tree[b"bin"].target == b"usr/bin"
    assert tree[b"srv/app/plugins"].target == b"plugins-2"
    names = (b"srv/app/start", b"usr/bin/hello", b"usr/bin/hi")
    assert all(tree[name].links == names for name in names)
    greeting = tree[os.fsencode("srv/app/grüße.txt")]
    assert greeting.mtime_ns == BUILT * SECOND + SECOND // 2
    assert greeting.xattrs == ({b"user.language": b"de, zh, ru"} if with_xattrs else {})
    # The whiteouts in these directories did not change their times, and "srv" was not named again.
    assert tree[b"etc"].mtime_ns == tree[b"srv"].mtime_ns == (BUILT - 3600) * SECOND
    assert tree[b"var/cache/apt"].mtime_ns == BUILT * SECOND
    assert tree[b"srv/app/plugins-2"].mtime_ns == (BUILT + 60) * SECOND
    assert tree[b"."].mtime_ns == 0


def carries_xattrs(path: Path) -> bool:
    probe = path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"")
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


def test_the_sample_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    assert build(tmp_path / "one").read_bytes() == build(tmp_path / "two").read_bytes()


def test_the_sample_breaks_no_rule(tmp_path: Path) -> None:
    with ociroot.open(build(tmp_path / "sample.tar")) as source:
        image = source.image(strict=True)
        report = image.extract(tmp_path / "rootfs", ociroot.ExtractOptions(strict=True))
    assert [layer.compression for layer in report.layers] == ["gzip", "gzip", "zstd", "none"]
    config = report.config.config
    assert (config.user, config.working_dir) == ("1000:1000", "/srv/app")
    assert (config.entrypoint, config.cmd) == (("/usr/bin/hello",), ("container",))
    assert config.env == ("PATH=/usr/bin:/bin", "GREETING=Grüße")
    assert config.labels == {"org.opencontainers.image.title": "ociroot sample"}


@pytest.mark.root
def test_the_sample_as_root(tmp_path: Path) -> None:
    with ociroot.open(build(tmp_path / "sample.tar")) as source:
        report = source.image().extract(tmp_path / "rootfs")
    with_xattrs = carries_xattrs(tmp_path)
    assert [w.code for w in report.warnings] == ([] if with_xattrs else ["xattrs-unsupported"])
    tree = snapshot(tmp_path / "rootfs")
    check(tree, PROMISED, with_xattrs=with_xattrs)
    assert tree[b"dev/null"].rdev == (1, 3)


def test_the_sample_as_an_ordinary_user(place: Path) -> None:
    build(place / "sample.tar").chmod(0o644)
    user = os.geteuid() or NOBODY
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(user)],
        cwd=place,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert {"owners", "devices"} <= set(done.stdout.split())
    promised = {
        path: (kind, mode, user) for path, (kind, mode, _) in PROMISED.items() if kind != "char"
    }
    check(snapshot(place / "second"), promised, with_xattrs=carries_xattrs(place))


# Output that depends on the versions of the compressors or on the machine.
CHANGING = re.compile(
    r"sha256:[0-9a-f]{12,64}|linux/[a-z0-9]+|\d+(\.\d)? (bytes|kB)(?= (gzip|zstd| ))"
)


def examples() -> list[tuple[str, str]]:
    """Return the README's commands on the sample image, with the output that it documents."""
    blocks = re.findall(r"```console\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if "$ ociroot inspect sample.tar" in block]
    steps = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def test_the_examples_of_the_readme(place: Path) -> None:
    build(place / "sample.tar")
    programs = place / "programs"
    programs.mkdir()
    (programs / "ociroot").write_text(f'#!/bin/sh\nexec {sys.executable} -m ociroot "$@"\n')
    (programs / "ociroot").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    assert len(examples()) > 8
    for command, said in examples():
        done = subprocess.run(
            command, shell=True, cwd=place, env=environment, capture_output=True, check=False
        )
        # An ordinary user gets a warning that owners are not kept.
        assert done.stderr == b"" or (os.geteuid() and "ociroot cp" in command), command
        printed = CHANGING.sub("…", done.stdout.decode()).split()
        wanted = CHANGING.sub("…", said).split()
        if wanted[-1:] == ["[…]"]:
            wanted.pop()
            printed = printed[: len(wanted)]
        assert printed == wanted, command


def first_steps() -> str:
    """Return the README's commands that need only a checkout."""
    blocks = re.findall(r"```sh\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if block.startswith("make venv\n")]
    return str(block)


def test_the_first_steps_of_the_readme(place: Path) -> None:
    need_tools("make")
    shutil.copy(CHECKOUT / "Makefile", place)
    shutil.copytree(CHECKOUT / "examples", place / "examples")
    # What `make venv` would create.
    programs = place / ".venv/bin"
    programs.mkdir(parents=True)
    for name, arguments in (("python", ""), ("ociroot", "-m ociroot")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-eu"],
        input=first_steps(),
        cwd=place,
        env={**os.environ, "MAKEFLAGS": "SETUP=:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "linux/" in done.stdout
    assert "plugins -> plugins-2" in done.stdout


def test_make_demo(place: Path) -> None:
    need_tools("make")
    # As in a separate shell, not as a part of the `make test` that runs this.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    }
    programs = Path(sys.executable).parent
    done = subprocess.run(
        ["make", "-C", CHECKOUT, "demo", "SETUP=:", f"BIN={programs}"],
        env={**environment, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for shown in ("ociroot extract", "./srv/app/grüße.txt", '"Entrypoint"'):
        assert shown in done.stdout
    assert not list(place.iterdir()), "it cleans up after itself"
