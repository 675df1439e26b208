"""Layers are counted from 1, and in the same way wherever a number of one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import ociroot

from .support.build import Layer, Member, archive
from .test_look import good, run

LAYERS = [
    [Member(b"one", data=b"1"), Member(b"d", "dir"), Member(b"gone", data=b"gone")],
    [Member(b"two", data=b"22"), Member(b".wh.gone")],
    [Member(b"three", data=b"333"), Member(b"d/three", "fifo")],
]


@pytest.fixture(params=["none", "gzip"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return archive(tmp_path / "image", [Layer(each, request.param) for each in LAYERS])


def test_in_the_library(path: Path) -> None:
    with ociroot.open(path) as source:
        image = source.image()
        assert [layer.number for layer in image.layers] == [1, 2, 3]
        merged = image.merged()
        assert [report.layer for report in merged.layers] == [1, 2, 3]
        entries = merged.tree.root.entries
        assert {name: node.layer for name, node in entries.items()} == {
            b"one": 1,
            b"two": 2,
            b"three": 3,
            b"d": 3,
        }
        assert merged.tree.root.layer == 3
        for name in (b"one", b"two", b"three"):
            node = entries[name]
            # The number leads to the report of just this layer.
            report = merged.layers[node.layer - 1]
            assert report.diff_id == str(image.layers[node.layer - 1].diff_id)
            assert b"".join(merged.read(node)) == str(node.layer).encode() * node.layer
        alone = image.merged(layer=2)
        assert [report.layer for report in alone.layers] == [2]
        assert alone.tree.root.entries[b"two"].layer == 2
        assert b"".join(alone.read(alone.tree.root.entries[b"two"])) == b"22"


def test_in_a_tree_without_layers(tmp_path: Path) -> None:
    with ociroot.open(archive(tmp_path / "image", [])) as source:
        tree = source.image().merged().tree
    assert isinstance(tree.root, ociroot.Directory)
    assert (tree.root.layer, tree.root.own) == (0, 0)


def test_in_the_commands(path: Path) -> None:
    numbers = {name: n for n, name in enumerate(("one", "two", "three"), 1)}
    listed = {each["path"]: each["layer"] for each in good("ls", "--json", path).json}
    shown = good("tree", "--json", path).json
    assert [each["layer"] for each in shown["layers"]] == [1, 2, 3]
    assert [each["waste"] for each in shown["layers"]] == [4, 0, 0]
    largest = {each["path"]: each["layer"] for each in shown["largest"]}
    described = good("inspect", "--json", path).json["image"]["layers"]
    assert [each["layer"] for each in described] == [1, 2, 3]
    for name, number in numbers.items():
        assert listed[f"/{name}"] == number
        assert largest[f"/{name}"] == number
        (event,) = good("find-layer", "--json", path, name).json
        assert (event["layer"], event["digest"]) == (number, described[number - 1]["digest"])
        found = good("cat", "--layer", str(number), path, name)
        assert found.out == str(number).encode() * number


def test_in_reports_and_errors(path: Path, tmp_path: Path) -> None:
    (outcome,) = run("verify", "--json", path).json
    assert [each["layer"] for each in outcome["layers"]] == [1, 2, 3]
    broken = archive(tmp_path / "broken", [*LAYERS[:2], [Member(b".wh.")]])
    with (
        ociroot.open(broken) as source,
        pytest.raises(ociroot.MalformedImage) as caught,
    ):
        source.image().merged()
    assert str(caught.value.layer).startswith("3/3 ")


def test_what_the_entries_of_a_layer_do(tmp_path: Path) -> None:
    """A program can list a layer as `ls --layer` does."""
    members = [
        Member(b"d/new"),
        Member(b"d/.wh.old"),
        Member(b"d/.wh..wh..opq"),
        Member(b".wh..wh.plnk"),
        Member(b"d/.wh."),
    ]
    with ociroot.open(archive(tmp_path / "image", [members])) as source:
        (layer,) = source.image().layers
        found = [(change.action, change.path) for change in layer.changes()]
        (*_, last) = layer.changes()
    assert found == [
        ("add", b"d/new"),
        ("whiteout", b"d/old"),
        ("opaque", b"d"),
        ("ignored", b".wh..wh.plnk"),
        ("malformed", b"d/.wh."),
    ]
    assert last.problem
    assert [each for each in found if ociroot.PathPattern("/d/o*").matches(each[1])] == [found[1]]


def test_where_the_bytes_go(path: Path) -> None:
    """A program can show what `tree` and `find-layer` show."""
    with ociroot.open(path) as source:
        image = source.image()
        usage = image.usage()
        events = [(each.layer, each.event, each.path) for each in image.layer_events("/gone")]
        first, last = image.snapshots(1, 3)
    assert (usage.size, usage.waste) == (6, 4)
    assert [(each.layer, each.size, each.waste) for each in usage.layers] == [
        (1, 1, 4),
        (2, 2, 0),
        (3, 3, 0),
    ]
    assert [(each.path, each.size, each.layer) for each in usage.largest(1)] == [("/three", 3, 3)]
    assert [(each.path, each.size) for each in usage.directories()] == [("/", 6), ("/d", 0)]
    assert events == [(1, "added", "/gone"), (2, "removed", "/gone")]
    assert {each.path: each.change for each in first.compare(last)} == {
        "/d/three": "added",
        "/gone": "removed",
        "/three": "added",
        "/two": "added",
    }
