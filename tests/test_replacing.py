"""What --replace removes, and what needs a further option."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.errors import DestinationError
from ociroot.publish.replacing import check_old

from .support.build import Member, archive
from .support.command import run
from .support.snapshot import differences, snapshot
from .support.user import NOBODY, as_ordinary_user, workshop

MEMBERS = [Member(b"bin/a"), Member(b"etc/b")]


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


def with_volumes(path: Path, *volumes: str) -> Path:
    config: dict[str, Any] = {"Volumes": {volume: {} for volume in volumes}}
    return archive(path, [MEMBERS], config={"config": config})


@pytest.fixture
def image(place: Path) -> Path:
    return archive(place / "image", [MEMBERS])


def extract(image: Path, root: Path, **options: Any) -> None:
    with ociroot.open(image) as source:
        source.image().extract(root, ociroot.ExtractOptions(**options))


def make(root: Path, *names: str) -> Path:
    """Create a directory with these entries; names that end in `/` are directories."""
    root.mkdir()
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("mine")
    return root


HOME = (".bashrc", ".ssh/id_ed25519", "Documents/", "bin/", "tmp/", "src/x.py")


@pytest.mark.parametrize(
    "names",
    [
        HOME,
        ("mine",),
        ("bin/",),
        ("home/", "tmp/", "mnt/", "opt/"),
        ("bin", "etc"),  # files
        ("lost+found/",),
        ("rootfs/bin/", "rootfs/etc/"),
        ("bin/", "dev/", "Documents/thesis"),
        ("bin/", "include/", "lib/", "lib64/", "pyvenv.cfg"),
    ],
    ids=[
        *("a home", "a file", "one alone", "others", "files", "lost and found", "one deeper"),
        *("a developer's home", "a Python environment"),
    ],
)
def test_what_does_not_look_like_a_root_is_refused(
    image: Path, place: Path, names: tuple[str, ...]
) -> None:
    root = make(place / "root", *names)
    before = snapshot(root)
    done = run("extract", "--replace", image, root)
    assert done.returncode == 7
    assert done.stderr == (
        f"ociroot: {root}: it does not look like a root file system, and would be removed "
        "(--replace-anything replaces it anyway)\n"
    )
    assert differences(before, snapshot(root)) == []
    assert sorted(path.name for path in place.iterdir()) == ["image", "root"]
    # That option implies the other one.
    assert run("extract", "--replace-anything", image, root).returncode == 0
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


@pytest.mark.parametrize(
    "names",
    [
        ("bin/", "etc/"),
        ("usr/", "var/", "mine"),
        ("lib/", "sbin/", ".dockerenv"),
        ("dev/", "proc/", "sys/"),
    ],
)
def test_what_looks_like_one_is_replaced(image: Path, place: Path, names: tuple[str, ...]) -> None:
    root = make(place / "root", *names)
    extract(image, root, replace=True)
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


def test_links_to_usr_count(image: Path, place: Path) -> None:
    """With a merged /usr, `bin` is a link."""
    root = make(place / "root", "mine")
    (root / "bin").symlink_to("usr/bin")
    (root / "sbin").symlink_to("usr/sbin")
    extract(image, root, replace=True)
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


def test_without_the_option_it_is_refused_as_before(image: Path, place: Path) -> None:
    root = make(place / "root", "bin/", "etc/")
    for options in ({}, {"discard_volumes": True}, {"parents": True}):
        with pytest.raises(DestinationError, match=r"not empty.*--replace replaces it"):
            extract(image, root, **options)


# Volumes.


@pytest.mark.parametrize("option", ["replace", "replace_anything"])
@pytest.mark.parametrize(
    ("volume", "names"),
    [
        ("/data", ["data/db"]),
        ("/data/", ["data/deep/down/file"]),
        ("/var/lib/pg", ["var/lib/pg/1", "data/x"]),
        ("data", ["data/db"]),
        ("/a/../data/./", ["data/db"]),
        ("/../../data", ["data/db"]),
        ("/data/file", ["data/file"]),
        ("/", ["x"]),
    ],
)
def test_files_in_a_volume_are_not_removed(
    place: Path, volume: str, names: list[str], option: str
) -> None:
    image = with_volumes(place / "image", volume, "/other", "/empty")
    root = make(place / "root", "bin/", "etc/", "empty/deep/", *names)
    before = snapshot(root)
    with pytest.raises(DestinationError, match="files in volumes of the image") as caught:
        extract(image, root, **{option: True})
    assert "--discard-volumes" in str(caught.value)
    shown = "/" + os.path.normpath("/" + volume).strip("/")
    assert f"would be removed: '{shown}' (" in str(caught.value)
    assert differences(before, snapshot(root)) == []
    extract(image, root, discard_volumes=True, **{option: True})
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


@pytest.mark.parametrize("target", ["/run", "../run", "../../../run", "/a/link"])
def test_links_on_the_way_to_a_volume_are_followed_inside(place: Path, target: str) -> None:
    """`/var/run` is a link to `/run` in most images."""
    image = with_volumes(place / "image", "/var/run/pg")
    root = make(place / "root", "bin/", "etc/", "var/", "a/", "run/pg/db")
    (root / "var/run").symlink_to(target)
    (root / "a/link").symlink_to("../run")
    with pytest.raises(DestinationError, match="'/var/run/pg'"):
        extract(image, root, replace=True)
    (root / "run/pg/db").unlink()
    extract(image, root, replace=True)
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


def test_links_in_a_circle_may_lead_to_a_volume(place: Path) -> None:
    image = with_volumes(place / "image", "/a/b")
    root = make(place / "root", "bin/", "etc/")
    (root / "a").symlink_to("a")
    with pytest.raises(DestinationError, match="'/a/b'"):
        extract(image, root, replace=True)


@pytest.mark.parametrize(
    "names",
    [["data/deep/er/"], ["var/x"], [], ["database/x"]],
    ids=["directories", "else", "", "begins so"],
)
def test_volumes_without_files_are_no_obstacle(place: Path, names: list[str]) -> None:
    image = with_volumes(place / "image", "/data", "/absent/deep")
    root = make(place / "root", "bin/", "etc/", *names)
    extract(image, root, replace=True)
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


def test_links_in_the_old_tree_are_not_followed(place: Path) -> None:
    """Their targets are elsewhere, possibly outside."""
    make(place / "outside", "file")
    image = with_volumes(place / "image", "/data", "/link/data", "/far")
    root = make(place / "root", "bin/", "etc/")
    (root / "data").symlink_to("/etc")
    (root / "link").symlink_to(place)
    (root / "far").symlink_to(place / "outside")
    (place / "data").mkdir()
    (place / "data/file").write_text("outside")
    extract(image, root, replace=True)
    assert (place / "data/file").read_text() == "outside"


def test_many_volumes_are_not_all_named(place: Path) -> None:
    image = with_volumes(place / "image", *(f"/v{number}" for number in range(50)))
    root = make(place / "root", "bin/", "etc/", *(f"v{number}/x" for number in range(40)))
    done = run("extract", "--replace", image, root)
    assert done.returncode == 7
    assert "'/v0', '/v1', '/v10' and 37 more" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "volume",
    [
        "/\x00",
        "/" + "x" * 300,
        "/" + "a/" * 5000,
        "/\x1b[31m",
        "",
        "..",
        "/etc/passwd/x",
    ],
)
def test_volumes_that_no_path_can_be(place: Path, volume: str) -> None:
    """The image can declare any text as a volume."""
    image = with_volumes(place / "image", volume)
    root = make(place / "root", "bin/", "etc/passwd")
    if volume in ("", ".."):
        with pytest.raises(DestinationError, match="files in volumes"):
            extract(image, root, replace=True)
    else:
        extract(image, root, replace=True)


def test_a_volume_in_a_volume_is_looked_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old tree is walked once, however many volumes an image declares."""
    names = ["/d", *(f"/d/{number}/{n}" for number in range(20) for n in range(20))]
    image = with_volumes(place / "image", *names, "/d/0", "/d/../d")
    root = make(place / "root", "bin/", "etc/", *(f"{name[1:]}/" for name in names))
    scanned = 0
    real = os.scandir

    def counted(*arguments: Any) -> Any:
        nonlocal scanned
        scanned += 1
        return real(*arguments)

    with ociroot.open(image) as source:
        chosen = source.image()
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", counted)
            chosen.extract(root, ociroot.ExtractOptions(replace=True))
    directories = 1 + 20 + 400
    # Twice for each directory to look, and once more to remove it.
    assert scanned < 3 * directories + 50


@pytest.mark.root
def test_a_volume_that_may_not_be_read_may_hold_files(place: Path) -> None:
    image = with_volumes(place / "image", "/data")
    extract(image, place / "warm")
    own = place / "own"
    make(own, "root/bin/", "root/etc/", "root/data/file")
    (own / "root/data").chmod(0o700)
    for path in (own, own / "root", own / "root/bin", own / "root/etc"):
        os.chown(path, NOBODY, NOBODY)

    def work() -> str:
        with pytest.raises(DestinationError) as caught:
            extract(image, own / "root", replace=True)
        return str(caught.value)

    assert "files in volumes of the image" in as_ordinary_user(work)
    assert (own / "root/data/file").exists()


@pytest.mark.parametrize("volume", ["/link/x", "/data/up/x"])
def test_no_descriptor_is_closed_twice(
    place: Path, monkeypatch: pytest.MonkeyPatch, volume: str
) -> None:
    """Even if the root cannot be opened again: another file may have the descriptor by then."""
    root = make(place / "root", "bin/a", "data/f")
    (root / "link").symlink_to("/data")
    (root / "data/up").symlink_to("..")
    real, tops = os.open, 0

    def refused(path: Any, flags: int, *rest: Any, dir_fd: int | None = None) -> int:
        nonlocal tops
        tops += path == "." and dir_fd == root_fd
        if tops == 2:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *rest, dir_fd=dir_fd)

    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    before = sorted(Path("/proc/self/fd").iterdir())
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refused)
            with pytest.raises(DestinationError, match="files in volumes"):
                check_old(root_fd, anything=True, volumes=[volume])
        assert sorted(Path("/proc/self/fd").iterdir()) == before
    finally:
        os.close(root_fd)
    assert tops == 2


def test_the_options_of_the_command(place: Path) -> None:
    image = with_volumes(place / "image", "/data")
    root = make(place / "root", "data/file")
    assert run("extract", "--replace-anything", image, root).returncode == 7
    done = run("extract", "--json", "-q", "--replace-anything", "--discard-volumes", image, root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["config"] == {"Volumes": {"/data": {}}}
    subprocess.run(["rm", "-r", root], check=True)
    assert run("extract", "--replace", image, root).returncode == 0
