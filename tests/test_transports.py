"""Images named by the transports of skopeo, podman and buildah."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ociroot
from ociroot import OcirootError, SourceError, Unsupported, UsageError

from .support.build import Image, archive_of, directory, file, unpacked

NAMES = {
    "1": b"one",
    "2": b"two",
    "localhost/app:1.0": b"three",
    "docker.io/library/alpine:latest": b"four",
}


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with images under several names in an archive and in layouts."""
    images = [
        Image(
            [[directory(b"etc"), file(b"etc/motd", content)]],
            descriptor={"annotations": {"org.opencontainers.image.ref.name": name}},
        )
        for name, content in NAMES.items()
    ]
    archive = archive_of(tmp_path / "image.tar", images)
    for name in ("layout", "lay:out", "lay:out:2"):
        unpacked(archive, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(name: str | Path, ref: str = "") -> bytes:
    """Return the content of the file that identifies the chosen image."""
    with ociroot.open(name) as source:
        merged = source.image(ref=ref).merged()
        found = merged.tree.find(b"/etc/motd")
        assert found is not None
        return b"".join(merged.read(found[2]))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ociroot", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oci:layout:1", b"one"),
        ("oci:layout:2", b"two"),
        ("oci:layout:localhost/app:1.0", b"three"),
        ("oci:layout:app:1.0", b"three"),
        ("oci:layout:docker.io/library/alpine:latest", b"four"),
        ("oci:layout:alpine", b"four"),
        ("oci:./layout:2", b"two"),
        ("oci:layout/:2", b"two"),
        ("oci-archive:image.tar:2", b"two"),
        ("oci-archive:./image.tar:localhost/app:1.0", b"three"),
        # The format is detected from the content, not from the name.
        ("docker-archive:image.tar:2", b"two"),
        ("oci:image.tar:2", b"two"),
        # The longest path that exists.
        ("oci:lay:out:1", b"one"),
        ("oci:lay:out:localhost/app:1.0", b"three"),
        ("oci:lay:out:2:1", b"one"),
    ],
)
def test_a_name_with_a_ref(name: str, expected: bytes) -> None:
    assert content(name) == expected


@pytest.mark.parametrize("name", ["oci:layout", "oci:layout:", "oci:lay:out:2", "layout"])
def test_a_name_without_a_ref(name: str) -> None:
    assert content(name, ref="2") == b"two"
    with pytest.raises(UsageError, match=r"several images"):
        content(name)


def test_a_ref_that_is_given_twice() -> None:
    assert content("oci:layout:1", ref="1") == b"one"
    for name in ("oci:layout:1", "oci-archive:image.tar:1"):
        with pytest.raises(UsageError, match=r"two names are given, '1' .* and '2'"):
            content(name, ref="2")


def test_a_ref_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"^layout: there is no image named 'nope'; there is"):
        content("oci:layout:nope")
    assert run("inspect", "oci:layout:nope").returncode == 2


def test_what_is_there_by_that_very_name(place: Path) -> None:
    (place / "oci:layout").mkdir()
    with pytest.raises(OcirootError, match=r"^oci:layout: "):
        ociroot.open("oci:layout")
    (place / "oci:layout").rmdir()
    (place / "image.tar").rename(place / "docker:x")
    assert content("docker:x", ref="2") == b"two"
    assert content("./docker:x", ref="2") == b"two"


def test_a_path_is_no_name() -> None:
    with pytest.raises(SourceError, match=r"^oci:layout: "):
        ociroot.open(Path("oci:layout"))
    with pytest.raises(SourceError, match=r"^./oci:layout: "):
        ociroot.open("./oci:layout")


def test_nothing_is_there(place: Path) -> None:
    with pytest.raises(SourceError, match=r"^nope: cannot open: No such file"):
        ociroot.open("oci:nope:1")
    with pytest.raises(UsageError, match=r"'oci:' names no file: oci:PATH"):
        ociroot.open("oci:")


def test_the_source_tells_its_ref() -> None:
    for name, ref in (("oci:layout:1", "1"), ("oci:layout", ""), ("layout", "")):
        with ociroot.open(name) as source:
            assert source.ref == ref
            assert source.form == "oci-layout"


def test_every_command(place: Path) -> None:
    for name in ("oci:layout:2", "oci-archive:image.tar:2"):
        assert run("ls", name).stdout == "etc\n"
        assert run("cat", name, "/etc/motd").stdout == "two"
        assert run("cp", f"{name}:/etc/motd", "-").stdout == "two"
        assert run("find-layer", name, "/etc/motd").returncode == 0
        assert run("tree", name).returncode == 0
        assert "image ID" in run("inspect", name).stdout
        assert run("verify", name).returncode == 0
        assert run("diff", name, name).returncode == 0
        assert run("diff", name, "oci:layout:1").returncode == 1
        assert run("extract", "--replace-anything", name, "root").returncode == 0
        assert (place / "root/etc/motd").read_bytes() == b"two"


def test_a_ref_and_options() -> None:
    done = run("ls", "--ref", "1", "oci:layout:2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ociroot: layout: two names are given, '2'")
    assert run("verify", "--all", "oci:layout:2").returncode == 2
    assert run("verify", "--all", "oci:layout").stdout.count("verified") == len(NAMES)


def test_an_image_in_its_own_destination_is_not_replaced(place: Path) -> None:
    done = run("extract", "--replace", "oci:layout:1", "layout")
    assert done.returncode == 7
    assert (place / "layout/index.json").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("oci:layout:2:/etc/motd", b"two"),
        ("oci:layout:2:etc/motd", b"two"),
        ("oci:layout:localhost/app:1.0:/etc/motd", b"three"),
        ("oci:lay:out:1:/etc/motd", b"one"),
        ("oci-archive:image.tar:alpine:latest:/etc/motd", b"four"),
    ],
)
def test_cp(place: Path, source: str, expected: bytes) -> None:
    assert run("cp", source, "got").stderr == ""
    assert (place / "got").read_bytes() == expected


def test_cp_of_paths_with_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(tmp_path / "a:b.tar", [Image([[file(b"x:y/z:1", b"found")]])])
    monkeypatch.chdir(tmp_path)
    unpacked(archive, tmp_path / "layout")
    for source in ("a:b.tar:/x:y/z:1", "oci:layout:/x:y/z:1", "oci-archive:a:b.tar:/x:y/z:1"):
        done = run("cp", source, "-")
        assert (done.stdout, done.stderr) == ("found", "")


ELSEWHERE = {
    "docker://alpine:3.20": "skopeo copy docker://alpine:3.20 oci-archive:image.tar",
    "docker:alpine": "skopeo copy docker://alpine oci-archive:image.tar",
    "containers-storage:app:1": "podman save --format oci-archive -o image.tar app:1",
    "docker-daemon:app:1": "docker save -o image.tar app:1",
    "dir:some where": "skopeo copy dir:'some where' oci-archive:image.tar",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_only_other_programs_reach(place: Path, name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        ociroot.open(name)
    assert ELSEWHERE[name] in str(caught.value)
    for arguments in (("ls", name), ("extract", name, "root"), ("cp", f"{name}:/etc", "to")):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith(f"ociroot: {name}: this is ")
        assert ELSEWHERE[name] in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    [
        "alpine:latest",
        "library/alpine:3.20",
        "quay.io/app/server",
        "localhost:5000/app",
        "docker.io/library/alpine@sha256:" + "0" * 64,
    ],
)
def test_a_reference_of_a_registry(place: Path, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        ociroot.open(name)
    assert f"skopeo copy docker://{name} oci-archive:image.tar" in str(caught.value)
    assert f"docker save -o image.tar {name}" in str(caught.value)
    done = run("ls", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"ociroot: {caught.value}\n"


@pytest.mark.parametrize(
    "name",
    ["image", "absent.tar", "./alpine:latest", "/alpine:latest", "there.d/image.tar", "A:b c"],
)
def test_an_ordinary_path(place: Path, name: str) -> None:
    (place / "there.d").mkdir()
    with pytest.raises(SourceError) as caught:
        ociroot.open(name)
    assert str(caught.value) == f"{name}: cannot open: No such file or directory"


def test_a_reference_that_is_a_file_after_all(place: Path) -> None:
    os.mkfifo(place / "alpine:latest")
    with pytest.raises(SourceError, match=r"not a regular file \(`-` reads standard input\)$"):
        ociroot.open("alpine:latest")
