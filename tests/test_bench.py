"""Run every program of the benchmark once on a tiny image, so that the benchmark stays usable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ociroot
from bench import __main__ as command
from bench import cases, inputs, peers, synthetic
from bench.goals import GOALS, Verdict, judge
from bench.images import COMPRESSIONS, Image, make, single, stored
from bench.measure import Failed, Run, interleaved, ratio, run
from bench.places import Place, place
from bench.report import Results, table
from bench.scale import scaled, tree_size

from .support.build import Member, directory, file, link, symlink, tar
from .support.needs import need_tools
from .support.room import roomy_directory
from .support.snapshot import differences, snapshot

LONG = b"long/" + b"n" * 90 + b"/" + b"m" * 90
BOTTOM = [
    directory(b"./", mode=0o711, mtime=1_600_000_000),
    directory(b"etc", mode=0o750, uid=3, gid=4),
    file(b"etc/one", b"one", mode=0o4755, uid=1000, gid=1000),
    link(b"etc/two", b"etc/one"),
    file(b"implied/large", b"0123456789" * 100_000),
    symlink(b"bin", b"etc"),
    file(LONG, b"a long name"),
    symlink(b"long-target", b"t" * 150),
    Member(b"null", "char", mode=0o666, rdev=(1, 3)),
    Member(b"pipe", "fifo", mode=0o600),
    directory(b"gone/below"),
    file(b"gone/below/file"),
    directory(b"emptied"),
    file(b"emptied/file"),
]
TOP = [
    file(b".wh.gone"),
    directory(b"emptied", mode=0o700),
    file(b"emptied/.wh..wh..opq"),
    file(b"emptied/new", b"new", mtime=1_600_000_001),
    file(b"etc/one", b"another", uid=5),
    directory(b"bin"),
    directory(b"etc", mode=0o755),
]


@pytest.fixture
def where() -> Iterator[Path]:
    """A directory with a short path, as podman requires, on a file system that supports images."""
    with roomy_directory(2**30) as given:
        yield given


@pytest.fixture
def floor(where: Path) -> Path:
    need_tools("cc")
    try:
        return peers.compile_floor(where)
    except Failed:
        libraries = ("isa-l.h", "zstd.h", "openssl/evp.h")
        if all(Path("/usr/include", header).exists() for header in libraries):
            raise
        need_tools("the headers " + ", ".join(libraries))
        raise


def image(where: Path, compression: str) -> Image:
    layers = [where / "bottom.tar", where / "top.tar"]
    for path, members in zip(layers, (BOTTOM, TOP), strict=True):
        path.write_bytes(tar(members))
    need_tools(COMPRESSIONS[compression][1][0])
    return make(where, "tiny", layers, compression)


def extracted(made: Image, root: Path) -> Path:
    with ociroot.open(made.archive) as source:
        source.image().extract(root)
    return root


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
def test_images_are_whole_and_the_same_each_time(where: Path, compression: str) -> None:
    made = image(where, compression)
    (where / "again").mkdir()
    again = image(where / "again", compression)
    assert made.archive.read_bytes() == again.archive.read_bytes()
    for path in (made.archive, made.layout):
        with ociroot.open(path) as source:
            source.image(strict=True).merged()  # which verifies all of it
    for blob, place_ in zip(made.blobs, stored(made), strict=True):
        data = made.archive.read_bytes()[place_.offset : place_.offset + place_.size]
        assert data == blob.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("compression", list(COMPRESSIONS))
@pytest.mark.parametrize("spared", [False, True])
def test_the_floor_does_the_same_work(
    where: Path, floor: Path, compression: str, spared: bool
) -> None:
    made = image(where, compression)
    ours, theirs = extracted(made, where / "ours"), where / "theirs"
    theirs.mkdir()
    options = ["-s"] if spared else []
    printed = subprocess.run(
        [floor, *options, made.archive, theirs, *map(str, stored(made))],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert differences(snapshot(ours), snapshot(theirs)) == []
    with ociroot.open(made.archive) as source:
        layers = source.image().layers
    hashed = [f"{each.digest} {each.diff_id}".replace("sha256:", "") for each in layers]
    assert printed.splitlines() == hashed


CASES = [(peer, c) for c in COMPRESSIONS for peer in peers.usable(None, c)]


@pytest.mark.root
@pytest.mark.parametrize(("peer", "compression"), CASES, ids=lambda v: getattr(v, "name", v))
def test_every_peer(
    where: Path, request: pytest.FixtureRequest, peer: peers.Peer, compression: str
) -> None:
    need_tools(*peer.tools)
    floor = request.getfixturevalue("floor") if "{floor}" in peer.script else Path("none")
    made = image(where, compression)
    given = Place(where, keep=False)
    with given.fresh() as out:
        used = peers.measure(peer, made, out, floor)
        assert used.seconds > 0 and used.peak > 0
        root = out / peer.tree
        assert (root / "etc/one").read_text() == "another"
        assert (root / "etc/two").read_text() == "one"
        assert (root / "implied/large").stat().st_size == 1_000_000
        by_layers = "{blob}" in peer.script  # these do not handle whiteouts
        assert (root / "gone").exists() is by_layers
    assert not out.exists()


def test_a_failing_peer_is_told_of_and_left_out() -> None:
    said: list[str] = []
    with pytest.raises(Failed, match="exit 3: why"):
        run("echo why >&2; exit 3")

    def one(name: str, number: int) -> Run:
        return run("exit 1" if name == "bad" else "true")

    samples, failures = interleaved(["good", "bad"], 3, one, said.append)
    assert (len(samples["good"]), list(samples), list(failures)) == (3, ["good"], ["bad"])
    assert len(said) == 1


def test_what_a_pipeline_uses_is_summed_up() -> None:
    busy = f"{sys.executable} -c 'sum(range(3_000_000)); bytearray(90_000_000)'"
    alone, several = run(busy), run(f"{busy} | {busy} | {busy}")
    assert several.peak >= 90_000_000 and alone.peak >= 90_000_000
    assert several.user > alone.user


def test_ratios_are_of_pairs_and_goals_are_judged() -> None:
    def runs(*seconds: float) -> list[Run]:
        return [Run(each, 0.0, 0.0, 1) for each in seconds]

    ours, theirs = runs(1, 2, 30), runs(2, 4, 3)
    assert ratio(ours, theirs) == 0.5
    samples = {"ociroot": ours, "bsdtar": theirs, "floor": runs(1, 2, 30)}
    assert judge("wheels", "gzip", "bsdtar", samples, "ociroot") == Verdict(0.5, 0.6)
    assert judge("tiny", "gzip", "bsdtar", samples, "ociroot") == Verdict(0.5, None)
    assert judge("debian", "none", "floor", samples, "ociroot").ratio < 1
    names = {peers.BEFORE, *(peer.name for peer in peers.PEERS)}
    assert {goal.peer for goal in GOALS} <= names
    assert not any("," in name for name in names), "the command line takes them with commas"
    assert {name for goal in GOALS for name in goal.inputs} == set(inputs.INPUTS)


def test_a_table_keeps_bars_in_their_cells() -> None:
    assert table(("a", "b"), [("gzip | tar", "1")])[2] == r"| gzip \| tar | 1 |"


@pytest.mark.slow
@pytest.mark.root
def test_the_whole_command(
    where: Path, floor: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a local input instead of one from the network."""
    need_tools("taskset", "gzip", "tar", "bsdtar")

    def made(out: Path, work: Path, cache: Path) -> None:
        for number, members in enumerate((BOTTOM, TOP)):
            (out / f"{number:02}.tar").write_bytes(tar(members))

    monkeypatch.setitem(inputs.INPUTS, "layers", made)
    arguments = ["--runs=2", "--inputs=layers", "--compressions=gzip", f"--cache={where / 'c'}"]
    arguments += [f"--results={where / 'r'}", "--peers=floor,gzip | tar,bsdtar"]
    arguments += [f"--before={sys.executable}"]
    assert command.main(arguments) == 0
    assert capsys.readouterr().out == ""
    found = json.loads((where / "r/results.json").read_text())
    assert set(found["extract"]) == {"tmpfs/layers/gzip", "disk/layers/gzip"}
    figures = found["extract"]["tmpfs/layers/gzip"]["peers"]
    ours = {"ociroot", "ociroot on a layout", "before"}
    assert set(figures) == {*ours, "floor", "gzip | tar", "bsdtar"}
    assert "limit" not in found["extract"]["disk/layers/gzip"]["peers"]["floor"]
    assert figures["floor"]["limit"] == 1.25 and len(figures["floor"]["runs"]) == 2
    assert found["layers"]["gzip"]["sum"] > 0
    assert "1 core" in found["cores"]["layers, gzip"]["peers"]
    assert set(found["startup"]["tmpfs"]["peers"]) >= {"ociroot --help", "ociroot extract"}
    shown = (where / "r/results.md").read_text()
    for title in (
        "Overview",
        "The goals",
        "layers, gzip -6, disk",
        "Start-up",
        "one by one",
        "Cores",
    ):
        assert title in shown
    left = {path.name for path in (where / "c").iterdir()}
    assert left == {"layers", "images", "synthetic"}, "trees and the floor are removed"


def test_an_image_of_one_layer(where: Path) -> None:
    made = image(where, "gzip")
    with ociroot.open(made.archive) as source:
        diff_id = source.image().layers[0].diff_id.encoded
    root = extracted(single(made, 0, where, diff_id), where / "root")
    assert (root / "gone/below/file").exists()


def test_scale(where: Path) -> None:
    size = synthetic.Size("small", 3_000, 300_000, 3)
    layers = synthetic.layers_of(size, where / "layers")
    made = make(where, "small", layers, "gzip")
    with place("tmpfs" if os.geteuid() == 0 else "disk", where) as given:
        found = scaled(size, made, 1, given, pytest.fail)
    assert found["failures"] == {} and found["peak"] > 0
    assert 100 < tree_size(made) < 2_000
    root = extracted(made, where / "root")
    files = [path for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) in range(290_000, 300_001)
    assert len(list(root.glob("*/share/*"))) + len(files) == size.entries
    results = Results(where / "results")
    results.add("scale", "small", found)
    results.add("scale", "small again", found)
    assert "| small again |" in (where / "results/results.md").read_text()


def test_start_up_is_held_against_its_goal(where: Path) -> None:
    made = make(where, "tiny", synthetic.tiny(where / "layers"), "gzip")
    found = cases.startup(made, 1, Place(where, keep=False), pytest.fail)
    assert found["peers"]["ociroot extract"]["limit"] == 0.120
    assert "more" not in found["peers"]["python -c pass"]
