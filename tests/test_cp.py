"""``ociroot cp``: where the copy goes, which attributes it keeps, and that it is verified."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ociroot
from ociroot.cli import command
from ociroot.errors import OcirootError

from .support import build
from .support.build import Layer, Member, archive
from .support.mounts import mounted
from .support.snapshot import differences, snapshot
from .support.user import as_ordinary_user, workshop
from .test_look import BASE, BIG, CONFIG, TOP, good, run


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cp")
    return archive(place / "image", [Layer(BASE, "gzip"), Layer(TOP)], config=CONFIG)


def copy(*arguments: str | Path) -> int:
    """Run `cp` in this process; return its exit code."""
    result = CliRunner().invoke(command, ["cp", *map(str, arguments)])
    if isinstance(result.exception, OcirootError):
        return result.exception.exit_code
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code


# Where the copy goes.

SOURCES = ("/etc", "/etc/", "etc/.", "/usr/bin/..", "/etc/a.conf", "/bin", "/bin/", "/bin/.", "/.")
DESTINATIONS = ("new", "new/", "empty", "empty/", "full", "file", ".", "link", "link/", "no/new")


def names(place: Path) -> dict[str, str]:
    """Return all entries of a directory, without following links."""
    found: dict[str, str] = {}
    for directory, below, files in os.walk(place):
        for name in below + files:
            path = Path(directory, name)
            kind = "link" if path.is_symlink() else "dir" if path.is_dir() else "file"
            found[str(path.relative_to(place))] = kind
    return found


def playground(place: Path) -> Path:
    place.mkdir()
    for name in ("empty", "full", "target"):
        (place / name).mkdir()
    (place / "full/there").touch()
    (place / "file").touch()
    (place / "link").symlink_to("target")
    return place


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("destination", DESTINATIONS)
def test_the_destination_is_what_it_is_to_cp(
    image: Path, tmp_path: Path, source: str, destination: str
) -> None:
    """In the first run and in a second one, except where it would change existing files."""
    root = tmp_path / "root"
    with ociroot.open(image) as opened:
        opened.image().extract(root)
    ours, theirs = playground(tmp_path / "ours"), playground(tmp_path / "theirs")
    taken = destination in ("full", "file", ".")
    for _ in ("the first run", "the second"):
        before = names(theirs)
        original = f"{root}/{source.lstrip('/')}"
        done = subprocess.run(
            ["cp", "-R", original, destination], cwd=theirs, capture_output=True, check=False
        )
        with chdir(ours):
            code = copy(f"{image}:{source}", destination)
        if code == 0:
            assert done.returncode == 0
            assert names(ours) == names(theirs)
            taken = True
            continue
        assert code == 7
        assert names(ours) == before
        # It has failed as well, or has merged with or overwritten existing files.
        whole = source in ("etc/.", "/usr/bin/..", "/bin/.", "/.")
        added = names(theirs).keys() - before.keys()
        assert done.returncode or (taken and (whole or not added))
        return


def test_the_first_and_the_second_run_differ_as_those_of_cp(image: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        for destination, found in (("copy", "copy"), ("there", "there/etc")):
            if destination == "there":
                Path("there").mkdir()
            good("cp", f"{image}:/etc", destination)
            assert Path(found, "a.conf").read_text() == "second\n"
        good("cp", f"{image}:/etc", "copy")
        assert Path("copy/etc/a.conf").is_file()
        again = run("cp", f"{image}:/etc", "copy")
        assert (again.code, again.out) == (7, b"")
        assert again.err == "ociroot: copy/etc: it exists and is not empty\n"


def test_what_is_there_is_not_touched(image: Path, tmp_path: Path) -> None:
    with chdir(tmp_path):
        Path("file").write_text("mine")
        Path("d/new").mkdir(parents=True)
        Path("d/etc").write_text("mine")
        for source, destination, problem in (
            ("/new", "file", "file: it exists (--force replaces it)"),
            ("/new", "d", "d/new: it is a directory"),
            ("/etc", "d", "d/etc: it exists and is not a directory"),
            ("/etc", "file", "file: it exists and is not a directory"),
            ("/new", "absent/", "absent/: there is no such directory"),
        ):
            refused = run("cp", f"{image}:{source}", destination)
            assert (refused.code, refused.err) == (7, f"ociroot: {problem}\n")
        assert copy("--force", f"{image}:/new", "d") == 7
        assert names(tmp_path) == {"file": "file", "d": "dir", "d/new": "dir", "d/etc": "file"}
        assert Path("file").read_text() == Path("d/etc").read_text() == "mine"
        assert copy("--force", f"{image}:/new", "file") == 0
        assert Path("file").read_text() == "n"


def test_what_the_image_does_not_have(image: Path, tmp_path: Path) -> None:
    for path, problem in (
        ("/nope", "there is no /nope"),
        ("/new/", "/new/ is a file, not a dir"),
        ("/bin/tool/.", "/bin/tool/. is a file, not a dir"),
    ):
        missing = run("cp", f"{image}:{path}", tmp_path / "x")
        assert (missing.code, missing.err) == (1, f"ociroot: {image}: {problem}\n")
    assert list(tmp_path.iterdir()) == []


def test_an_image_on_standard_input(image: Path, tmp_path: Path) -> None:
    for arguments in (
        ["-:/etc/a.conf", "copy"],
        ["--force", "-:/etc/a.conf", "copy"],
        ["-:/etc/a.conf", "copy", "-f"],
        ["--", "-:/etc/a.conf", "other"],
    ):
        with image.open("rb") as file:
            program = [sys.executable, "-m", "ociroot", "cp", *arguments]
            done = subprocess.run(
                program, stdin=file, cwd=tmp_path, capture_output=True, check=False
            )
        assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "copy", tmp_path / "other"]
    assert (tmp_path / "copy").read_text() == "second\n"
    with image.open("rb") as file:
        program = [sys.executable, "-m", "ociroot", "cp", "-:/bin/tool", "-"]
        assert (
            subprocess.run(program, stdin=file, capture_output=True, check=True).stdout == b"tool"
        )


# Attributes that are kept.

CAPABILITY = b"\x01\0\0\2\0\4\0\0" + bytes(12)
PRIVILEGED = [
    Member(b"d", "dir", mode=0o2775),
    Member(b"d/suid", data=b"s", mode=0o4755, uid=7),
    Member(b"d/sgid", data=b"s", mode=0o2711),
    Member(b"d/able", data=b"c", mode=0o755, xattrs={b"security.capability": CAPABILITY}),
    Member(b"d/again", "link", target=b"d/suid"),
]


def attributes(path: Path) -> tuple[int, list[str]]:
    return stat.S_IMODE(path.stat().st_mode), os.listxattr(path)


@pytest.fixture
def privileged(tmp_path: Path) -> Path:
    return archive(tmp_path / "image", [PRIVILEGED])


@pytest.mark.root
def test_a_single_file_lends_nobody_elses_rights(privileged: Path, tmp_path: Path) -> None:
    nothing: list[str] = []
    for name, dropped, kept in (
        ("suid", (0o755, nothing), (0o4755, nothing)),
        ("sgid", (0o711, nothing), (0o2711, nothing)),
        ("able", (0o755, nothing), (0o755, ["security.capability"])),
    ):
        good("cp", f"{privileged}:/d/{name}", tmp_path / name)
        assert attributes(tmp_path / name) == dropped
        good("cp", "-f", "--preserve=mode", f"{privileged}:/d/{name}", tmp_path / name)
        assert attributes(tmp_path / name) == kept
    assert (tmp_path / "suid").stat().st_uid == 7


@pytest.mark.root
def test_a_directory_keeps_what_root_can_keep(privileged: Path, tmp_path: Path) -> None:
    with ociroot.open(privileged) as source:
        source.image().extract(tmp_path / "root")
    good("cp", f"{privileged}:/d", tmp_path / "d")
    assert differences(snapshot(tmp_path / "root/d"), snapshot(tmp_path / "d")) == []


def test_an_ordinary_user_keeps_no_set_id_bits() -> None:
    with workshop() as place:
        path = archive(place / "image", [PRIVILEGED])
        path.chmod(0o644)

        def work() -> list[str]:
            results = [
                CliRunner().invoke(command, ["cp", *options, f"{path}:/d", str(place / name)])
                for name, options in (("dropped", []), ("kept", ["--preserve=mode"]))
            ]
            assert [result.exit_code for result in results] == [0, 0]
            return [result.stderr for result in results]

        work_before = CliRunner().invoke(command, ["cp", f"{path}:/d", str(place / "before")])
        assert work_before.exit_code == 0, "all that is imported has been, which nobody may read"
        first, second = as_ordinary_user(work)
        assert "set-id bits or capabilities were dropped" in first
        assert "--preserve=mode" in first
        assert "(3 times)" in first.partition("set-id")[2]
        assert "set-id" not in second
        for name, modes in (("dropped", (0o755, 0o711)), ("kept", (0o4755, 0o2711))):
            files = [place / name / file for file in ("suid", "sgid")]
            assert tuple(stat.S_IMODE(file.stat().st_mode) for file in files) == modes
            assert files[0].samefile(place / name / "again")
            assert "security.capability" not in os.listxattr(place / name / "able")


# Verification.


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """An image whose plain layer has one wrong byte in the content of one of two files."""
    path = archive(tmp_path / "image", [[Member(b"good", data=b"good"), Member(b"bad", data=BIG)]])
    content = bytearray(path.read_bytes())
    content[content.index(BIG) + 5] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("source", ["/bad", "/good", "/"])
def test_nothing_appears_that_is_not_verified(damaged: Path, tmp_path: Path, source: str) -> None:
    refused = run("cp", f"{damaged}:{source}", tmp_path / "copy")
    assert (refused.code, refused.out) == (4, b"")
    assert "digest" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
    good("cp", "--no-verify", f"{damaged}:{source}", tmp_path / "copy")


def test_all_layers_are_verified(tmp_path: Path) -> None:
    """A layer from which nothing is copied can hide files that are copied."""
    layers = [[Member(b"d/f", data=b"x")], [Member(b"else", data=BIG)]]
    path = archive(tmp_path / "image", layers)
    content = bytearray(path.read_bytes())
    content[content.index(BIG) + 5] ^= 1
    path.write_bytes(content)
    for source in ("/d", "/d/f"):
        assert run("cp", f"{path}:{source}", tmp_path / "copy").code == 4
        assert [each.name for each in tmp_path.iterdir()] == ["image"]


def test_nothing_goes_to_stdout_that_is_not_verified(damaged: Path) -> None:
    for name in ("bad", "good"):
        refused = run("cp", f"{damaged}:/{name}", "-")
        assert (refused.code, refused.out) == (4, b"")
        wrong = good("cp", "--no-verify", f"{damaged}:/{name}", "-").out
        assert len(wrong) == (len(BIG) if name == "bad" else 4)
    assert len(good("cat", damaged, "/bad").out) == len(BIG), "which cat says in its help"
    assert "Not everything is verified" in good("cat", "--help").text


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("source", ["/d", "/d/f", "/d/other"])
def test_what_changes_meanwhile_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: build.Compression, source: str
) -> None:
    """The image is changed after it was verified, while the copy is made."""
    noise = random.Random(4).randbytes(3000)
    layer = Layer([Member(b"d/f", data=noise), Member(b"d/other", data=b"x")], compression)
    path = archive(tmp_path / "image", [layer])
    files = ociroot.Merged.files

    def changing(*arguments: Any, **options: Any) -> Iterator[Any]:
        content = bytearray(path.read_bytes())
        content[content.index(layer.packed()) + 2000] ^= 1
        path.write_bytes(content)
        return files(*arguments, **options)

    monkeypatch.setattr(ociroot.Merged, "files", changing)
    assert copy(f"{path}:{source}", tmp_path / "copy") == 4
    assert [each.name for each in tmp_path.iterdir()] == ["image"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=20m", "ociroot-test") as place:
        yield place
    shutil.rmtree(tmp_path / "small")


@pytest.mark.root
def test_a_reserve_is_left(tmp_path: Path, small: Path) -> None:
    # Nearly all of 20 MiB; the reserve is a hundredth.
    members = [Member(b"d/%d" % n, data=bytes(1 << 20)) for n in range(19)]
    members += [Member(b"d/last", data=bytes(900 << 10)), Member(b"all", data=bytes(20840000))]
    path = archive(tmp_path / "image", [Layer(members, "gzip")])
    for source in ("/d", "/all"):
        refused = run("cp", f"{path}:{source}", small / "copy")
        assert refused.code == 7
        assert "a reserve of 209715 bytes is kept" in refused.err
        assert list(small.iterdir()) == []
        good("cp", "--max-size=1G", f"{path}:{source}", small / "copy")
        shutil.rmtree(small / "copy") if source == "/d" else (small / "copy").unlink()


@pytest.mark.root
def test_what_is_kept_for_stdout_leaves_the_reserve(tmp_path: Path, small: Path) -> None:
    """It is verified before it is written, so it is kept in a file; cat reads it again instead."""
    noise = random.Random(5).randbytes(1 << 20)
    path = archive(tmp_path / "image", [Layer([Member(b"all", data=noise * 20)], "gzip")])
    refused = run("cp", "--tmpdir", small, f"{path}:/all", "-")
    assert (refused.code, refused.out) == (7, b"")
    assert "no space to keep a file of 20971520 bytes" in refused.err
    assert "--tmpdir" in refused.err
    assert good("cat", "--tmpdir", small, path, "/all").out == noise * 20
    assert good("cp", f"{path}:/all", "-").out == noise * 20
    assert list(small.iterdir()) == []


# Files that a later layer removed.

LAYERS = [
    Layer([Member(b"etc/gone", data=b"secret"), Member(b"etc/kept", data=b"1")], "gzip"),
    Layer(
        [
            Member(b"etc/.wh.gone"),
            Member(b"etc/kept", data=b"2"),
            Member(b"bin/new", data=b"new"),
            Member(b"bin/more", "link", target=b"bin/new"),
            Member(b"bin/linked", "link", target=b"etc/kept"),
            Member(b"bin/below", "link", target=b"usr/below"),
        ]
    ),
]


@pytest.fixture(params=["in its order", "in another order"])
def layers(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Three layers, of which the middle one hides some files of the lowest."""
    lowest = Layer([Member(b"usr/below", data=b"below")], "zstd")
    stack = [lowest, *LAYERS]
    diff_ids = [build.digest(layer.unpacked()) for layer in stack]
    if request.param == "in another order":
        stack = stack[::-1]
    return archive(tmp_path / "image", stack, diff_ids=diff_ids)


def test_ls_of_a_layer(layers: Path) -> None:
    listed = good("ls", "--layer", "3", layers).text.splitlines()
    assert listed[:3] == ["etc/.wh.gone  (whiteout of /etc/gone)", "etc/kept", "bin/new"]
    assert good("ls", "--layer", "2", layers).text.splitlines() == ["etc/gone", "etc/kept"]
    assert good("ls", "--layer", "3", layers, "/etc").text.splitlines() == listed[:2]
    assert good("ls", "--layer", "3", layers, "/etc/gone").text.splitlines() == listed[:1]
    some = good("ls", "--layer", "3", "--json", layers, "*/[kn]e*", "bin/more").json
    assert [each["path"] for each in some] == ["etc/kept", "bin/new", "bin/more"]
    missing = run("ls", "--layer", "3", layers, "/bin/*", "/nope", "*/.nope")
    assert (missing.code, missing.text.splitlines()) == (1, listed[2:])
    assert missing.err.splitlines() == [
        "ociroot: layer 3 has no /nope",
        "ociroot: layer 3 has no */.nope",
    ]


def test_cat_of_a_layer(layers: Path) -> None:
    assert good("cat", "--layer", "2", layers, "/etc/gone", "etc/kept").text == "secret1"
    assert run("cat", layers, "/etc/gone").code == 1
    text = good("cat", "--layer", "3", layers, "etc/kept", "bin/more", "bin/linked").text
    assert text == "2new2"
    [found] = good("cat", "--json", "--layer", "3", layers, "/bin/more").json
    assert found["layer"] == 3
    for layer, path, words in (
        ("3", "/etc/gone", "there is no such file in layer 3"),
        ("1", "/etc/kept", "there is no such file in layer 1"),
        ("3", "/bin/below", "hard links to files of lower layers were skipped: bin/below"),
    ):
        missing = run("cat", "--layer", layer, layers, path)
        assert (missing.code, missing.out) == (1, b"")
        assert words in missing.err
    for name in ("cat", "ls"):
        nothing = run(name, "--layer", "4", layers, "/etc/kept")
        assert (nothing.code, nothing.err) == (
            2,
            f"ociroot: {layers}: there is no layer 4, only 3\n",
        )


def test_cp_of_a_layer(layers: Path, tmp_path: Path) -> None:
    good("cp", "--layer", "2", f"{layers}:/etc/gone", tmp_path / "gone")
    assert (tmp_path / "gone").read_text() == "secret"
    good("cp", "--layer", "2", f"{layers}:/etc", tmp_path / "etc")
    assert names(tmp_path / "etc") == {"gone": "file", "kept": "file"}
    assert (tmp_path / "etc/kept").read_text() == "1"
    assert good("cp", "--layer=3", f"{layers}:/etc/kept", "-").text == "2"
    copied = run("cp", "--layer", "3", f"{layers}:/bin", tmp_path / "bin")
    assert copied.code == 0
    assert names(tmp_path / "bin").keys() == {"new", "more", "linked"}
    assert "bin/below" in copied.err
    assert run("cp", "--layer", "3", f"{layers}:/etc/gone", tmp_path / "x").code == 1


def test_a_layer_alone_is_verified(tmp_path: Path) -> None:
    """A layer with a wrong diff_id is neither listed nor read."""
    layer = Layer([Member(b"f", data=b"x")], "gzip")
    path = archive(tmp_path / "image", [layer], diff_ids=["sha256:" + "0" * 64])
    for arguments in (("ls", path), ("ls", "--json", path), ("cat", path, "f")):
        refused = run(*arguments, "--layer", "1")
        assert (refused.code, refused.out) == (4, b"")
    assert run("cp", "--layer", "1", f"{path}:f", tmp_path / "f").code == 4
