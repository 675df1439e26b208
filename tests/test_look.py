"""The commands that read without extracting agree with the result of extraction."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import ociroot

from .support import build
from .support.build import Image, Layer, Member, archive, archive_of
from .support.model import ModelRefusal, expected
from .support.snapshot import differences, snapshot
from .support.strategies import Stack, good_stacks
from .support.user import unprivileged, workshop

BIG = bytes(range(256)) * 10_000
BASE = [
    Member(b"etc", "dir", mode=0o750, uid=7, gid=8),
    Member(b"etc/a.conf", data=b"first\n"),
    Member(b"etc/b.conf", data=BIG, mode=0o4755, xattrs={b"user.k": b"\0v"}),
    Member(b"etc/.hidden"),
    Member(b"bin", "symlink", target=b"usr/bin"),
    Member(b"usr/bin/tool", data=b"tool"),
    Member(b"usr/bin/also", "link", target=b"usr/bin/tool"),
    Member(b"dev/null", "char", rdev=(1, 3), mode=0o666),
    Member(b"gone", data=b"x" * 1000),
    Member(b"n\xff\x1b[31m", data=b"odd"),
]
TOP = [
    Member(b".wh.gone"),
    Member(b"etc/a.conf", data=b"second\n"),
    Member(b"etc", "dir", mode=0o700, uid=7, gid=8),
    Member(b"new", data=b"n"),
]
CONFIG = {
    "config": {"Env": ["A=1", "B=2"], "Cmd": ["/bin/tool"]},
    "history": [
        {"created_by": "ADD base"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "RUN change"},
    ],
}


@dataclass
class Result:
    """The result of a command."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str | Path) -> Result:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "ociroot", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    err = done.stderr.decode()
    assert "Traceback" not in err
    assert "internal error" not in err
    return Result(done.returncode, done.stdout, err)


def good(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert (result.code, unprivileged(result.err)) == (0, ""), result.err
    return result


@pytest.fixture(params=["none", "gzip"])
def image(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    layers = [Layer(BASE, request.param), Layer(TOP, request.param)]
    return archive(tmp_path / "image", layers, config=CONFIG)


# ls


def test_ls(image: Path) -> None:
    assert good("ls", image).text.split("\n")[:-1] == [
        "bin",
        "dev",
        "etc",
        "new",
        "n\\xff\\x1b[31m",
        "usr",
    ]
    assert good("ls", "-a", image, "/etc").text.split() == [".hidden", "a.conf", "b.conf"]
    assert good("ls", image, "/etc/*.conf").text.split() == ["etc/a.conf", "etc/b.conf"]
    assert good("ls", "-d", image, "/etc").text.split() == ["etc"]
    assert good("ls", image, "/bin/").text.split() == ["also", "tool"]


def test_ls_long(image: Path) -> None:
    text = good("ls", "-l", "--xattrs", image, "etc", "bin", "dev/*").text
    owner = f"{os.geteuid()} {os.getegid()}"
    assert f"-rwsr-xr-x 1 {owner} 2560000 2017-07-14 02:40:00 #1 b.conf\n" in text
    assert "user.k=\\x00v" in text
    assert "-> usr/bin" in text
    assert "1, 3" in text
    assert "#2 a.conf" in text


def test_ls_recursive(image: Path) -> None:
    text = good("ls", "-R", image).text
    assert text.startswith("/:\nbin\n")
    assert "\n\n/usr/bin:\nalso\ntool\n" in text


def test_ls_of_what_is_not_there(image: Path) -> None:
    result = run("ls", image, "/nope", "/usr")
    assert (result.code, result.text) == (1, "bin\n")
    assert result.err == f"ociroot: {image}: there is no /nope\n"


def test_ls_json(image: Path) -> None:
    found = {each["path"]: each for each in good("ls", "-Ra", "--json", image).json}
    assert found["/etc/b.conf"] == {
        "path": "/etc/b.conf",
        "type": "file",
        "mode": "4755",
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "mtime_ns": 1_500_000_000 * 10**9,
        "layer": 1,
        "size": len(BIG),
        "xattrs": {"user.k": base64.b64encode(b"\0v").decode()},
    }
    assert found["/usr/bin/tool"]["links"] == 2
    assert found["/dev/null"]["device"] == [1, 3]
    assert found["/bin"]["target"] == "usr/bin"
    assert "/n\udcff\x1b[31m" in found


def test_ls_of_a_layer_shows_its_whiteouts(image: Path) -> None:
    lines = good("ls", "--layer", "2", image).text.splitlines()
    assert lines == [".wh.gone  (whiteout of /gone)", "etc/a.conf", "etc", "new"]
    assert run("ls", "--layer", "3", image).code == 2
    assert good("ls", "--layer", "1", "--json", image).json[5]["type"] == "file"


# cat


def test_cat(image: Path) -> None:
    assert good("cat", image, "/etc/a.conf").out == b"second\n"
    assert good("cat", image, "/bin/tool", "etc/b.conf", "/bin/also").out == b"tool" + BIG + b"tool"
    [found] = good("cat", "--json", image, "/bin/../bin/tool").json
    assert found["path"] in ("/usr/bin/tool", "/usr/bin/also")
    assert base64.b64decode(found["content"]) == b"tool"


def test_cat_of_what_is_no_file(image: Path) -> None:
    result = run("cat", image, "/etc", "/nope", "/dev/null", "new")
    assert (result.code, result.out) == (1, b"n")
    assert [line.split(": ")[-1] for line in result.err.splitlines()] == [
        "it is a dir, not a file",
        "there is no such file",
        "it is a char, not a file",
    ]


def test_cat_of_a_sparse_file(tmp_path: Path) -> None:
    pax = {b"GNU.sparse.size": b"200000", b"GNU.sparse.map": b"5,4,100000,4"}
    for compression in ("none", "zstd"):
        layer = Layer([Member(b"s", data=b"headtail", pax=pax)], compression)
        content = good("cat", archive(tmp_path / "image", [layer]), "s").out
        whole = bytearray(200000)
        whole[5:9], whole[100000:100004] = b"head", b"tail"
        assert content == bytes(whole)


def test_cat_reads_a_layer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content of a file with the requested name is kept in the first pass."""
    from click.testing import CliRunner

    from ociroot.cli import command
    from ociroot.compression import decompress

    path = archive(tmp_path / "image", [Layer(BASE, "gzip"), Layer(TOP, "zstd")])
    read: list[str] = []

    def counting(compression: str, *arguments: Any) -> Iterator[bytes]:
        read.append(compression)
        return decompress(compression, *arguments)

    monkeypatch.setattr("ociroot.layers.pipeline.decompress", counting)
    result = CliRunner().invoke(command, ["cat", str(path), "/etc/b.conf", "/etc/a.conf"])
    assert result.stdout_bytes == BIG + b"second\n"
    assert read == ["gzip", "zstd"]


END = b"%d" % (1 << 50)
HUGE = Member(b"evil/passwd", pax={b"GNU.sparse.size": END, b"GNU.sparse.map": END + b",0"})


def test_a_hole_without_end_does_not_get_in_the_way(tmp_path: Path) -> None:
    """It fills neither the disk nor memory, and is not hashed byte by byte."""
    for compression in ("none", "gzip"):
        members = [HUGE, Member(b"etc/passwd", data=b"root")]
        path = archive(tmp_path / "image", [Layer(members, compression)])
        raised = "--max-file-size=1P"
        assert good("cat", raised, path, "/etc/passwd").out == b"root"
        assert good("diff", raised, path, path).out == b""
        assert run("cat", raised, "--json", path, "/evil/passwd").code == 6
        assert run("cat", path, "/etc/passwd").code == 6


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_layers_in_another_order_are_looked_at_in_the_right_one(
    tmp_path: Path, compression: Any
) -> None:
    one, two = [Member(b"x", data=b"one")], [Member(b"x", data=b"two")]
    diff_ids = [build.digest(build.tar(layer)) for layer in (two, one)]
    layers = [Layer(one, compression), Layer(two, compression)]
    path = archive(tmp_path / "image", layers, diff_ids=diff_ids)
    assert good("cat", path, "/x").out == b"one"
    events = good("find-layer", "--json", path, "/x").json
    assert [each["digest"] for each in events] == [
        build.digest(layer.packed()) for layer in layers[::-1]
    ]


# cp


def test_cp_of_a_file(image: Path, tmp_path: Path) -> None:
    good("cp", f"{image}:/etc/b.conf", tmp_path / "b")
    status = (tmp_path / "b").stat()
    assert (tmp_path / "b").read_bytes() == BIG
    assert stat.S_IMODE(status.st_mode) == 0o755, "a single file loses its set-id bits"
    assert status.st_mtime == 1_500_000_000
    (tmp_path / "b").write_text("mine")
    again = run("cp", f"{image}:/etc/b.conf", tmp_path / "b")
    assert again.code == 7
    assert "--force" in again.err
    assert (tmp_path / "b").read_text() == "mine"
    good("cp", "--force", f"{image}:/etc/b.conf", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BIG
    (tmp_path / "into").mkdir()
    good("cp", f"{image}:/bin", tmp_path / "into")
    assert (tmp_path / "into/bin").readlink() == Path("usr/bin")
    good("cp", "-L", f"{image}:/bin/tool", tmp_path / "into")
    assert good("cp", f"{image}:/bin/tool", "-").out == b"tool"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "image", "into"]


@pytest.mark.root
def test_cp_of_a_directory(image: Path, tmp_path: Path) -> None:
    run("extract", image, tmp_path / "root")
    for path, copy in (("/etc", "etc"), ("/usr", "usr"), ("/", "all")):
        good("cp", f"{image}:{path}", tmp_path / copy)
        assert not differences(snapshot(tmp_path / "root" / path[1:]), snapshot(tmp_path / copy))
    assert run("cp", f"{image}:/etc", tmp_path / "etc").code == 0
    assert (tmp_path / "etc/etc/a.conf").exists(), "into a directory"


def test_cp_parts_image_and_path_where_there_is_an_image(tmp_path: Path) -> None:
    where = tmp_path / "a:b"
    where.mkdir()
    members = [Member(b"d:/x:y", data=b"1"), Member(b"l", "symlink", target=b"d:/x:y")]
    image = archive(where / "i:1", [members])
    for path in (":/d:/x:y", ":d:/x:y"):
        assert good("cp", f"{image}{path}", "-").out == b"1"
    (tmp_path / "into").mkdir()
    good("cp", "-L", f"{image}:/l", tmp_path / "into")
    assert (tmp_path / "into/l").read_bytes() == b"1", "by the name that was asked for"
    assert "absent: cannot open" in run("cp", "absent:/x", "y").err


def test_cp_usage(image: Path, tmp_path: Path) -> None:
    for arguments in ((image, "x"), (f"{image}:/etc", "-"), (":/x", "y")):
        assert run("cp", *arguments).code == 2
    assert run("cp", f"{image}:/nope", "x").code == 1
    assert run("cp", f"{image}:/new", tmp_path / "absent/x").code == 7
    assert [p.name for p in tmp_path.iterdir()] == ["image"]


# diff


def test_diff_of_layers(image: Path) -> None:
    result = run("diff", "--layers", "1..2", image)
    assert result.code == 1
    assert result.text.splitlines() == [
        "~ /etc  (mode)",
        "~ /etc/a.conf  (content, size)  6 bytes → 7 bytes",
        "- /gone  1.0 kB → 0 bytes",
        "+ /new  0 bytes → 1 bytes",
    ]
    names = run("diff", "--name-only", "--layers", "1..2", image).text.split()
    assert names == ["/etc", "/etc/a.conf", "/gone", "/new"]
    assert run("diff", "--layers", "0..2", image).code == 1
    assert good("diff", "--layers", "2..2", image).out == b""


def test_diff_of_images(image: Path, tmp_path: Path) -> None:
    same = archive(tmp_path / "same", [Layer(BASE, "zstd"), Layer(TOP, "zstd")], config=CONFIG)
    assert good("diff", image, same).out == b""
    changes = [
        Member(b"new", data=b"N"),
        Member(b"bin", "symlink", target=b"elsewhere"),
        Member(b"dev/null", "char", rdev=(1, 5), mode=0o666),
        Member(b"etc/b.conf", data=BIG, mode=0o4755, mtime=5),
        Member(b"usr/bin/tool", "dir"),
    ]
    other = archive(tmp_path / "other", [BASE, TOP, changes])
    result = run("diff", "--json", image, other)
    assert result.code == 1
    assert {each["path"]: each["what"] for each in result.json["files"]} == {
        "/bin": ["target"],
        "/dev/null": ["device"],
        "/etc/b.conf": ["xattrs"],
        "/new": ["content"],
        "/usr/bin/tool": ["type"],
    }
    with_times = run("diff", "--json", "--mtime", image, other).json["files"]
    assert ["mtime", "xattrs"] in [each["what"] for each in with_times]


def test_diff_is_of_what_would_be_extracted(tmp_path: Path) -> None:
    left_out = {b"security.selinux": b"a", b"user.overlay.origin": b"b"}
    one = [Member(b"f", xattrs=left_out), Member(b"l", "symlink", target=b"f")]
    two = [Member(b"f"), Member(b"l", "symlink", target=b"f", mode=0o700)]
    paths = [archive(tmp_path / str(n), [layer]) for n, layer in enumerate((one, two))]
    assert good("diff", *paths).out == b""


def test_diff_usage(image: Path) -> None:
    for arguments in ((image,), (image, image, "--layers", "1..2"), (image, "--layers", "1..9")):
        assert run("diff", *arguments).code == 2
    for option in ("--other-ref", "--other-digest", "--other-platform"):
        assert run("diff", image, "--layers", "1..2", option, "x").code == 2


def two(path: Path, **rest: Any) -> Path:
    """Write a source with two named images."""

    def named(name: str) -> dict[str, Any]:
        return {"annotations": {"org.opencontainers.image.ref.name": name}}

    return archive_of(
        path,
        [
            Image([BASE], CONFIG, descriptor=named("a"), platform=("linux", "s390x")),
            Image([BASE, TOP], descriptor=named("b"), platform=("linux", "ppc64le"), **rest),
        ],
    )


def test_diff_of_two_images_of_one_source(tmp_path: Path) -> None:
    path = two(tmp_path / "image", config=CONFIG)
    with ociroot.open(path) as source:
        digests = [str(each.digest) for each in source.listing().images]
    changed = ["/etc", "/etc/a.conf", "/gone", "/new"]
    ways = [
        ["--ref", "a", "--other-ref", "b"],
        ["--digest", digests[0], "--other-digest", digests[1]],
        ["--platform", "linux/s390x", "--other-platform", "linux/ppc64le"],
        ["--ref", "a", "--other-digest", digests[1]],
        ["--digest", digests[0], "--other-ref", "b"],
    ]
    for way in ways:
        for images in ([path], [path, path]):
            result = run("diff", "--name-only", *images, *way)
            assert (result.code, result.text.split()) == (1, changed), way
    swapped = run("diff", "--ref", "b", "--other-ref", "a", path).text
    assert "+ /gone" in swapped.splitlines()[2]
    assert good("diff", "--ref", "a", path, path).out == b"", "the options are for both"
    with path.open("rb") as file:
        command = [sys.executable, "-m", "ociroot", "diff", "-", "--ref=a", "--other-ref=b"]
        done = subprocess.run(command, stdin=file, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert b"~ /etc/a.conf" in done.stdout


CONFIGS: list[dict[str, Any]] = [
    {
        "config": {
            "User": "0",
            "Env": ["PATH=/bin", "GONE=x", "SAME=1"],
            "Cmd": ["/bin/sh"],
            "Labels": {"a": "1", "b": "\x1b[31m"},
            "Volumes": {"/data": {}},
        },
        "author": "somebody",
    },
    {
        "config": {
            "User": "1000:1000",
            "Env": ["SAME=1", "PATH=/usr/bin:/bin", "NEW=x=y"],
            "Entrypoint": ["/bin/app", "ü"],
            "Labels": {"a": "1", "b": "2"},
            "StopSignal": "SIGINT",
        },
        "created": "2025-01-01T00:00:00Z",
        "variant": "v9",
    },
]
CONFIG_DIFFERENCES: list[tuple[str, str, str, Any, Any]] = [
    ("variant", "", "added", None, "v9"),
    ("User", "", "changed", "0", "1000:1000"),
    ("Env", "GONE", "removed", "x", None),
    ("Env", "NEW", "added", None, "x=y"),
    ("Env", "PATH", "changed", "/bin", "/usr/bin:/bin"),
    ("Entrypoint", "", "added", None, ["/bin/app", "ü"]),
    ("Cmd", "", "removed", ["/bin/sh"], None),
    ("Volumes", "/data", "removed", {}, None),
    ("Labels", "b", "changed", "\x1b[31m", "2"),
    ("StopSignal", "", "added", None, "SIGINT"),
]


def test_diff_of_configurations(tmp_path: Path) -> None:
    """The execution parameters differ but no file does; the author is not compared."""
    paths = [archive(tmp_path / str(n), [BASE], config=each) for n, each in enumerate(CONFIGS)]
    result = run("diff", "--json", *paths)
    assert (result.code, result.err) == (1, "")
    assert result.json["files"] == []
    names = ("field", "name", "change", "before", "after")
    assert result.json["config"] == [
        dict(zip(names, each, strict=True)) for each in CONFIG_DIFFERENCES
    ]
    text = run("diff", *paths)
    assert text.code == 1
    assert text.text.splitlines() == [
        "Configuration",
        '+ variant: "v9"',
        '~ User: "0" → "1000:1000"',
        '- Env GONE: "x"',
        '+ Env NEW: "x=y"',
        '~ Env PATH: "/bin" → "/usr/bin:/bin"',
        '+ Entrypoint: ["/bin/app", "ü"]',
        '- Cmd: ["/bin/sh"]',
        "- Volumes /data",
        '~ Labels b: "\\u001b[31m" → "2"',
        '+ StopSignal: "SIGINT"',
    ]
    names_alone = run("diff", "--name-only", *paths)
    assert (names_alone.code, names_alone.out) == (1, b"")
    other = archive(tmp_path / "other", [BASE], config={**CONFIGS[0], "author": "somebody else"})
    assert good("diff", paths[0], other).out == b""
    assert good("diff", "--json", paths[0], other).json == {"files": [], "config": []}
    changed = archive(tmp_path / "changed", [BASE, TOP], config=CONFIGS[1])
    both = run("diff", paths[0], changed).text
    assert both.startswith("~ /etc")
    assert "\n\nConfiguration\n+ variant" in both


def test_diff_takes_the_last_value_of_a_variable(tmp_path: Path) -> None:
    """A process gets the last value; the order of other variables does not matter."""
    envs = (["A=1", "B=1", "A=2"], ["A=2", "B=1"], ["B=1", "A=2"])
    paths = [
        archive(tmp_path / str(n), [BASE], config={"config": {"Env": env}})
        for n, env in enumerate(envs)
    ]
    for one in paths:
        for other in paths:
            assert good("diff", one, other).out == b""


# find-layer


def test_find_layer(image: Path) -> None:
    events = good("find-layer", "--json", image, "/etc/a.conf").json
    assert [(e["layer"], e["event"], e["created_by"]) for e in events] == [
        (1, "added", "ADD base"),
        (2, "replaced", "RUN change"),
    ]
    text = good("find-layer", image, "gone").text
    assert "layer 2 " in text.splitlines()[2]
    assert text.splitlines()[2].endswith("removed")
    assert "attributes changed" in good("find-layer", image, "etc").text
    never = run("find-layer", image, "never")
    assert (never.code, never.out) == (1, b"")
    assert "no layer has never" in never.err


# tree


def test_tree(image: Path) -> None:
    shown = good("tree", "--json", image).json
    sizes = {each["path"]: each["size"] for each in shown["directories"]}
    assert sizes["/etc"] == len(BIG) + 7
    assert sizes["/usr/bin"] == 4, "a file with two names counts once"
    assert sizes["/"] == len(BIG) + 7 + 4 + 1 + 3
    assert [(each["size"], each["waste"]) for each in shown["layers"]] == [
        (len(BIG) + 4 + 3, 1000 + 6),
        (8, 0),
    ]
    assert shown["largest"][0] == {"path": "/etc/b.conf", "size": len(BIG), "layer": 1}
    assert [each["created_by"] for each in shown["layers"]] == ["ADD base", "RUN change"]
    assert (shown["size"], shown["waste"]) == (len(BIG) + 15, 1006)
    text = good("tree", "--depth", "0", "--largest", "1", image).text
    assert "    2.6 MB  /\n" in text
    assert "/etc/b.conf (layer 1)" in text


def test_tree_begins_with_the_answer(tmp_path: Path) -> None:
    """Entries that take no space are not shown."""
    layers = [
        [
            Member(b"big/x", data=b"x" * 3000),
            Member(b"big/gone", data=b"x" * 5000),
            Member(b"small/y", data=b"y" * 1000),
            Member(b"none/empty"),
        ],
        [Member(b".wh.nothing")],
        [Member(b"big/.wh.gone"), Member(b"z", data=b"z" * 1000)],
    ]
    history = [
        {"created_by": "ADD  base \n\x1b[31m"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "RUN nothing"},
        {"comment": "RUN rm"},
    ]
    image = archive(tmp_path / "image", layers, config={"history": history})
    with ociroot.open(image) as source:
        digests = [layer.diff_id.short for layer in source.image().layers]
    assert good("tree", "--depth", "1", image).text.splitlines() == [
        "5.0 kB in the file system; 5.0 kB wasted, 50 % of the layers",
        "",
        "The file system",
        "100 %     5.0 kB  /",
        " 60 %     3.0 kB    /big",
        " 20 %     1.0 kB    /small",
        "",
        "By layer: used, wasted by later layers, created by",
        f" 40 %     4.0 kB  50 %     5.0 kB   1 {digests[0]}  ADD base \\x1b[31m",
        f" 10 %     1.0 kB     -          -   3 {digests[2]}  RUN rm",
        "",
        "The largest files",
        " 60 %     3.0 kB  /big/x (layer 1)",
        " 20 %     1.0 kB  /small/y (layer 1)",
        " 20 %     1.0 kB  /z (layer 3)",
    ]
    nothing = good("tree", archive(tmp_path / "empty", [[Member(b"none/empty")]])).text
    assert nothing == "0 bytes in the file system; nothing wasted\n"


def test_tree_tells_files_of_one_size_apart_by_path(tmp_path: Path) -> None:
    members = [Member(name, data=b"x") for name in (b"c", b"a/z", b"b", b"a/a")]
    shown = good("tree", "--json", archive(tmp_path / "image", [members])).json
    assert [each["path"] for each in shown["largest"]] == ["/a/a", "/a/z", "/b", "/c"]


# inspect


def test_inspect(image: Path) -> None:
    shown = good("inspect", "--json", image).json
    assert shown["form"] == "oci-archive"
    chosen = shown["image"]
    assert chosen["config"]["config"]["Env"] == ["A=1", "B=2"]
    assert [each["layer"] for each in chosen["history"]] == [1, None, 2]
    plain = chosen["layers"][0]["compression"] == "none"
    size = len(build.tar(BASE))
    assert chosen["layers"][0]["unpacked_size"] == (size if plain else None)
    assert chosen["chain_ids"][0] == chosen["layers"][0]["diff_id"]
    assert len(chosen["chain_ids"]) == 2
    text = good("inspect", image).text
    for part in ("A=1", "/bin/tool", chosen["image_id"], chosen["layers"][1]["diff_id"]):
        assert part in text
    assert "  - ENV A=1" in text


def test_inspect_shows_layers_and_history_as_one(tmp_path: Path) -> None:
    """There can be fewer history entries than layers, or more."""
    compressions: tuple[build.Compression, ...] = ("gzip", "none", "zstd")
    layers = [Layer([Member(b"%d" % n)], each) for n, each in enumerate(compressions)]
    history = [{"created_by": "one  step"}, {"comment": "empty", "empty_layer": True}]
    path = archive(tmp_path / "image", layers, config={"history": history})
    shown = good("inspect", "--json", path).json["image"]
    digests = [each["digest"][:19] for each in shown["layers"]]
    sizes = [each["size"] for each in shown["layers"]]
    table = good("inspect", path).text.partition("Layers and history")[2].splitlines()[1:5]
    assert table == [
        f"  1 {f'{sizes[0]} bytes gzip':>15}  {digests[0]}  one step",
        "  - empty",
        f"  2    10.2 kB none  {digests[1]}",
        f"  3 {f'{sizes[2]} bytes zstd':>15}  {digests[2]}",
    ]
    history += [{"created_by": f"later {n}"} for n in range(3)]
    more = archive(tmp_path / "more", layers, config={"history": history})
    text = good("inspect", more).text
    assert f"{digests[2]}  later 1\n  - later 2\n\nDigest" in text


def test_inspect_of_several_images_and_other_things(tmp_path: Path) -> None:
    images = [
        Image([BASE], platform=("linux", "s390x")),
        Image([BASE, TOP], platform=("linux", "ppc64le")),
        Image(
            [TOP],
            platform=("unknown", "unknown"),
            descriptor={
                "annotations": {
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": "sha256:" + "a" * 64,
                }
            },
        ),
        Image([TOP], config_descriptor={"mediaType": "application/vnd.example.thing+json"}),
    ]
    path = archive_of(tmp_path / "image", images)
    result = run("inspect", "--json", path)
    assert result.code == 0
    assert "--platform linux/s390x" in result.err or "s390x" in result.err
    shown = result.json
    assert [each["platform"] for each in shown["images"]] == ["linux/s390x", "linux/ppc64le"]
    assert [each["kind"] for each in shown["others"]] == [
        "attestation",
        "application/vnd.example.thing+json",
    ]
    assert shown["others"][0]["subject"] == "sha256:" + "a" * 64
    assert shown["image"] is None
    assert good("inspect", "--platform", "linux/s390x", path).text.count("sha256:") > 5
    assert run("inspect", "--platform", "linux/amd64", path).code == 2


# verify


def test_verify(image: Path, tmp_path: Path) -> None:
    assert "verified, 2 layers, 14 entries" in good("verify", image).text
    before = sorted(tmp_path.iterdir())
    broken = [
        (4, {"diff_ids": ["sha256:" + "0" * 64] * 2}),
        (3, {"manifest": {"schemaVersion": 1}}),
        (5, {"config": {"rootfs": {"type": "lazy", "diff_ids": []}}}),
    ]
    for code, overrides in broken:
        result = run("verify", archive(image, [Layer(BASE, "gzip"), TOP], **overrides))  # type: ignore[arg-type]
        assert (result.code, result.out) == (code, b"")
        assert result.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_verify_all_goes_on_after_a_failure(tmp_path: Path) -> None:
    images = [
        Image([[Member(b"l", "link", target=b"nowhere")]], platform=("linux", "s390x")),
        Image([BASE], platform=("linux", "ppc64le")),
    ]
    path = archive_of(tmp_path / "image", images)
    result = run("verify", "--all", "--json", path)
    assert result.code == 3
    assert [each["ok"] for each in result.json] == [False, True]
    assert "nowhere" in result.json[0]["error"]
    twice = archive(tmp_path / "twice", [[Member(b"a"), Member(b"a")]])
    assert run("verify", twice).code == 0
    assert run("verify", "--strict", twice).code == 3


# Random stacks of layers.


@pytest.mark.root
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), print_blob=True)
@given(good_stacks)
def test_looking_agrees_with_extracting(stack: Stack) -> None:
    """Listings, contents and copies of random images, compared with extraction."""
    try:
        expected(stack)
    except ModelRefusal:
        return
    with workshop() as where:
        layers = [Layer(layer, "gzip" if n else "none") for n, layer in enumerate(stack)]
        path = archive(where / "image", layers)
        with ociroot.open(path) as source:
            chosen = source.image()
            chosen.extract(where / "root")
            merged = chosen.merged(verify=False)
            extracted = snapshot(where / "root")
            tree = {p.path_of(n): node for p, n, node in merged.tree.root.walk()}
            assert tree.keys() | {b"."} == extracted.keys()
            for name, node in tree.items():
                record = extracted[name]
                assert (record.kind, record.mode if node.kind != "symlink" else node.mode) == (
                    node.kind,
                    node.mode,
                )
                assert (record.uid, record.gid, record.mtime_ns) == (
                    node.uid,
                    node.gid,
                    node.mtime_ns,
                )
                if node.kind == "file":
                    real = os.fsencode(where) + b"/root/" + name
                    with open(real, "rb") as file:  # noqa: PTH123
                        assert b"".join(merged.read(node)) == file.read()
            merged.copy(merged.tree.root, where / "copy", keep_set_id=True, verify=False)
        assert not differences(extracted, snapshot(where / "copy"))
