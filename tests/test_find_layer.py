"""``ociroot find-layer``: one path, the paths of a pattern, and all paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from ociroot.cli import command

from .support import build
from .support.build import Layer, Member, archive
from .support.model import ModelRefusal, expected
from .support.strategies import Stack, good_stacks
from .support.user import workshop
from .test_look import good, run

STACK = [
    [
        Member(b"bin", "symlink", target=b"usr/bin"),
        Member(b"usr/bin/tool", data=b"1"),
        Member(b"usr/bin/.hidden"),
        Member(b"usr/lib/x/a.so"),
        Member(b"usr/lib/y/a.so"),
        Member(b"etc/motd"),
        Member(b"way", "symlink", target=b"usr/lib"),
    ],
    [
        Member(b"etc/.wh.motd"),
        Member(b"usr/bin/tool", data=b"2"),
        Member(b"usr/lib/.wh.x"),
        Member(b"usr/lib/y", "dir", mode=0o700),
    ],
    [
        # A directory is removed and created again.
        Member(b"usr/lib/.wh.y"),
        Member(b"usr/lib/y/a.so", "symlink", target=b"b.so"),
        Member(b"usr/lib/y/b.so"),
        Member(b"way", "dir"),
    ],
]
HISTORY = [{"created_by": "ADD  base"}, {"empty_layer": True}, {"created_by": "RUN 2"}]


def image(tmp_path: Path) -> Path:
    return archive(tmp_path / "image", STACK, config={"history": HISTORY})


def test_all_that_each_layer_does(tmp_path: Path) -> None:
    path = image(tmp_path)
    digests = [build.digest(build.tar(layer)) for layer in STACK]
    assert good("find-layer", path).text.splitlines() == [
        f"layer 1 {digests[0]}",
        "    ADD base",
        "+ /bin",
        "+ /etc",
        "+ /etc/motd",
        "+ /usr",
        "+ /usr/bin",
        "+ /usr/bin/.hidden",
        "+ /usr/bin/tool",
        "+ /usr/lib",
        "+ /usr/lib/x",
        "+ /usr/lib/x/a.so",
        "+ /usr/lib/y",
        "+ /usr/lib/y/a.so",
        "+ /way",
        f"layer 2 {digests[1]}",
        "    RUN 2",
        "- /etc/motd",
        "~ /usr/bin/tool  (replaced)",
        "- /usr/lib/x",
        "- /usr/lib/x/a.so",
        f"layer 3 {digests[2]}",
        "~ /usr/lib/y  (replaced)",
        "~ /usr/lib/y/a.so  (replaced by a symlink)",
        "+ /usr/lib/y/b.so",
        "~ /way  (replaced by a dir)",
    ]
    assert good("find-layer", archive(tmp_path / "empty", [[]])).out == b""


def found(path: Path, *arguments: str) -> list[tuple[int, str, str]]:
    events = good("find-layer", "--json", path, *arguments).json
    return [(each["layer"], each["event"], each["path"]) for each in events]


def test_a_pattern(tmp_path: Path) -> None:
    path = image(tmp_path)
    assert found(path, "/bin/*") == [
        (1, "added", "/usr/bin/tool"),
        (2, "replaced", "/usr/bin/tool"),
    ]
    assert found(path, "usr/bin/.h*") == [(1, "added", "/usr/bin/.hidden")]
    assert found(path, "/usr/lib/?") == [
        (1, "added", "/usr/lib/x"),
        (1, "added", "/usr/lib/y"),
        (2, "removed", "/usr/lib/x"),
        (3, "replaced", "/usr/lib/y"),
    ]
    # A link in its path changes: the old and the new location.
    assert found(path, "/way/y/*.so") == found(path, "/usr/lib/y/*.so")
    assert found(path, "*/lib/[xy]/a.*")[2:] == [
        (2, "removed", "/usr/lib/x/a.so"),
        (3, "replaced by a symlink", "/usr/lib/y/a.so"),
    ]
    text = good("find-layer", path, "/etc/*").text.splitlines()
    assert [line for line in text if line[0] in "+-~"] == ["+ /etc/motd", "- /etc/motd"]
    nothing = run("find-layer", path, "/usr/lib/*/c.so")
    assert (nothing.code, nothing.out) == (1, b"")
    assert nothing.err == f"ociroot: {path}: no layer has /usr/lib/*/c.so\n"
    assert run("find-layer", "--json", path, "/*/no").json == []


def test_one_path(tmp_path: Path) -> None:
    path = image(tmp_path)
    assert found(path, "/usr/lib/y") == [
        (1, "added", "/usr/lib/y"),
        (2, "attributes changed", "/usr/lib/y"),
        (3, "replaced", "/usr/lib/y"),
    ]
    assert found(path, "//bin/./tool") == [(1, "added", "/bin/tool"), (2, "replaced", "/bin/tool")]


def test_a_path_twice_in_a_layer(tmp_path: Path) -> None:
    """It did not exist in the layers below, whatever the layer itself replaced."""
    twice = [Member(b"d/f"), Member(b"d", data=b"x"), Member(b"e"), Member(b"e", "dir")]
    path = archive(tmp_path / "image", [twice])
    assert found(path) == [(1, "added", "/d"), (1, "added", "/e")]


def test_the_work_may_start_over(tmp_path: Path) -> None:
    """What the abandoned attempt has gathered is dropped."""
    lower = [Member(b"d/x"), Member(b"way", "symlink", target=b"d")]
    # Whether the link is followed is known only when the whiteout is read.
    upper = [Member(b"way/new"), Member(b"way/.wh.x")]
    layers = [Layer(lower, "gzip"), Layer(upper, "zstd")]
    diff_ids = [build.digest(layer.unpacked()) for layer in layers]
    path = archive(tmp_path / "image", layers[::-1], diff_ids=diff_ids)
    assert [event[:2] for event in found(path)] == [(1, "added")] * 3 + [
        (2, "added"),
        (2, "removed"),
    ]
    assert found(path, "/d/*") == [
        (1, "added", "/d/x"),
        (2, "added", "/d/new"),
        (2, "removed", "/d/x"),
    ]


def test_what_is_gathered_has_a_limit(tmp_path: Path) -> None:
    """The tree has few names at a time, but the layers change them often."""
    layers = [[Member(b"%d" % n, data=b"%d" % layer) for n in range(100)] for layer in range(20)]
    path = archive(tmp_path / "image", layers)
    assert len(found(path, "--max-memory=600K")) == 2000
    assert found(path, "--max-memory=100K", "/5") == [
        (number, "replaced" if number > 1 else "added", "/5") for number in range(1, 21)
    ]
    for pattern in ([], ["*"]):
        refused = run("find-layer", "--max-memory=300K", path, *pattern)
        assert (refused.code, refused.out) == (6, b"")
        assert "--max-memory" in refused.err


def test_what_is_gathered_is_not_the_way_to_it(tmp_path: Path) -> None:
    """Each layer changes only something deep in the tree."""
    layers = [[Member(b"d/" * 100 + name) for name in (b"f", b"g")] for _ in range(20)]
    path = archive(tmp_path / "image", layers)
    events = found(path, "--max-memory=200K")
    assert len(events) == 102 + 19 * 2
    assert events[-2:] == [(20, "replaced", "/" + "d/" * 100 + name) for name in "fg"]


def test_packed_paths_are_sorted_by_their_names(tmp_path: Path) -> None:
    names = [b"a/x/y/f", b"a.b/f", b"a-b/x/f", b"b/f"]
    layer = [Member(name) for name in names]
    events = found(archive(tmp_path / "image", [layer, layer]))
    assert [path for number, _, path in events if number == 2] == [
        "/a/x/y/f",
        "/a-b/x/f",
        "/a.b/f",
        "/b/f",
    ]


def in_process(*arguments: str) -> Any:
    return json.loads(CliRunner().invoke(command, list(arguments)).stdout)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), print_blob=True)
@given(good_stacks)
def test_it_agrees_with_diff(stack: Stack) -> None:
    """On random stacks: additions, removals and changes of type, layer by layer."""
    try:
        expected(stack)
    except ModelRefusal:
        return
    with workshop() as where:
        path = archive(where / "image", [Layer(layer, "gzip") for layer in stack])
        events = in_process("find-layer", "--json", str(path))
        for number in range(1, len(stack) + 1):
            layers = f"{number - 1}..{number}"
            differences = in_process("diff", "--json", "--layers", layers, str(path))["files"]
            wanted = {
                each["path"]: each["change"] if each["change"] != "changed" else "replaced by"
                for each in differences
                if each["change"] != "changed" or each["what"] == ["type"]
            }
            told = {
                each["path"]: each["event"].partition(" a ")[0]
                for each in events
                if each["layer"] == number and each["event"] != "replaced"
            }
            assert told == wanted
