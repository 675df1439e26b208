"""Blobs that lie in no local file: everything works with them, and each is read once.

A second read may be a second download. Where one is asked for, it is asserted here how often.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ociroot
from ociroot.cli import command
from ociroot.sources.blob import STEP, Blob, LocalBlob
from ociroot.spec.descriptor import Descriptor

from .support.build import Layer, archive, digest, file, link, symlink
from .support.fetched import INDEX, FetchedBlob, FetchedSource
from .support.snapshot import differences, snapshot

BIG = bytes(range(256)) * 8192
LAYERS = {
    "gzip": [
        Layer([file(b"etc/motd", b"hello\n"), file(b"big", BIG), file(b"old", b"1")], "gzip"),
        Layer([file(b".wh.old"), file(b"etc/hosts", b"::1\n")], "gzip"),
    ],
    "plain": [
        Layer([file(b"etc/motd", b"hello\n"), file(b"big", BIG), file(b"old", b"1")]),
        Layer([file(b".wh.old"), link(b"etc/hosts", b"etc/motd")]),
    ],
    "zstd": [Layer([file(b"etc/motd", b"hello\n"), file(b"big", BIG), file(b"old")], "zstd")],
}


@pytest.fixture(params=LAYERS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return archive(tmp_path / "image.tar", LAYERS[request.param])


def node_of(merged: ociroot.Merged, path: bytes) -> ociroot.Node:
    place = merged.tree.find(path)
    assert place is not None
    return place[2]


def test_extracting(stored: Path, tmp_path: Path) -> None:
    source = FetchedSource(stored)
    report = ociroot.OpenedSource(source).image().extract(tmp_path / "fetched")
    with ociroot.open(stored) as local:
        theirs = local.image().extract(tmp_path / "local")
    assert differences(snapshot(tmp_path / "local"), snapshot(tmp_path / "fetched")) == []
    assert report.layers == theirs.layers
    assert set(source.layer_reads()) == {1}


def test_no_layer_is_read_before_it_is_merged(stored: Path) -> None:
    source = FetchedSource(stored)
    opened = ociroot.OpenedSource(source)
    image = opened.image()
    assert len(image.layers) == len(source.layers) and repr(image)
    assert set(source.layer_reads()) == {0}
    assert source.reads[INDEX] == 1


@pytest.mark.parametrize("verify", [True, False])
def test_merging(stored: Path, verify: bool) -> None:
    source = FetchedSource(stored)
    merged = ociroot.OpenedSource(source).image().merged(verify=verify)
    assert node_of(merged, b"etc/motd").size == 6
    assert set(source.layer_reads()) == {1}


@pytest.mark.parametrize("verify", [True, False])
def test_reading_files(stored: Path, verify: bool) -> None:
    """Of a plain layer, too, which cannot be read in place: read once more, and verified."""
    source = FetchedSource(stored)
    merged = ociroot.OpenedSource(source).image().merged(verify=verify)
    nodes = [node_of(merged, b"etc/motd"), node_of(merged, b"big")]
    found = {
        node: b"".join(stream.iter_chunks(node.stored_size))
        for node, stream in merged.files(nodes, verify=verify)
    }
    assert [found[node] for node in nodes] == [b"hello\n", BIG]
    assert source.layer_reads() == [2] + [1] * (len(source.layers) - 1)


def test_all_files_of_a_file_system(stored: Path) -> None:
    """Its layers go to a temporary file as they flow by, plain ones too."""
    source = FetchedSource(stored)
    with ociroot.OpenedSource(source).image().filesystem() as fs:
        found = {path: file.read() for path, _, file in fs.files()}
        assert fs.read_bytes("/big") == BIG
    assert found["/etc/motd"] == b"hello\n" and found["/big"] == BIG
    assert set(source.layer_reads()) == {1}


def test_a_file_of_a_file_system(stored: Path) -> None:
    """Its layer is read once more, but not for the next file of it."""
    source = FetchedSource(stored)
    with ociroot.OpenedSource(source).image().filesystem() as fs:
        assert fs.read_bytes("/etc/motd") == b"hello\n"
        assert fs.read_bytes("/big") == BIG
    assert source.layer_reads() == [2] + [1] * (len(source.layers) - 1)


def test_the_entries_of_a_layer(stored: Path) -> None:
    source = FetchedSource(stored)
    layer = ociroot.OpenedSource(source).image().layers[0]
    assert [entry.name for entry in layer.entries()] == [b"etc/motd", b"big", b"old"]
    assert source.layer_reads()[0] == 1


def test_the_compression_of_a_layer_is_in_its_first_bytes(stored: Path) -> None:
    source = FetchedSource(stored)
    layer = ociroot.OpenedSource(source).image().layers[0]
    assert layer.compression in ("gzip", "zstd", "none")
    assert source.fetched[source.layers[0]] < 1000


COMMANDS: dict[str, tuple[list[str], str]] = {
    "ls": (["ls", "IMAGE", "/etc"], "motd"),
    "tree": (["tree", "IMAGE"], "motd"),
    "cat": (["cat", "IMAGE", "/etc/motd"], "hello"),
    "verify": (["verify", "IMAGE"], "verified"),
    "find-layer": (["find-layer", "IMAGE", "/etc/motd"], "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_read_each_layer_once(
    stored: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arguments, expected = COMMANDS[name]
    result, source = run(monkeypatch, stored, arguments)
    assert expected in result.output, result.output
    assert set(source.layer_reads()) == {1}


def test_comparing_reads_each_layer_once(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, source = run(monkeypatch, stored, ["diff", "IMAGE", "IMAGE"])
    assert result.output == ""
    assert set(source.layer_reads()) <= {1, 2}, "there are two images"


def run(
    monkeypatch: pytest.MonkeyPatch, stored: Path, arguments: list[str]
) -> tuple[Result, FetchedSource]:
    """Run a command in this process, with the source in the place of the file."""
    source = FetchedSource(stored)

    def opened(*_: Any, **__: Any) -> FetchedSource:
        return source

    with monkeypatch.context() as patch:
        patch.setattr("ociroot.api.source.open_source", opened)
        patch.setattr(source, "close", lambda: None)
        result = CliRunner().invoke(
            command, [str(stored) if each == "IMAGE" else each for each in arguments]
        )
    assert result.exit_code == 0, result.output
    return result, source


# What breaks the protocol of blobs.


class _OddBlob(FetchedBlob):
    def __init__(self, source: FetchedSource, descriptor: Descriptor, fault: Fault) -> None:
        super().__init__(source, descriptor.digest, descriptor.size)
        self.fault = fault

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        return self.fault(super().chunks(step))


class _OddSource(FetchedSource):
    """All its layers have a fault."""

    fault: Fault

    def blob(self, descriptor: Descriptor) -> Blob | None:
        if descriptor.digest in self.layers:
            return _OddBlob(self, descriptor, self.fault)
        return super().blob(descriptor)


def _with_empty_ones(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield from (b"", chunk, b"")


def _without_more(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield next(chunks)
    raise OSError(errno.ENETRESET, os.strerror(errno.ENETRESET))


Fault = Callable[[Iterator[bytes]], Iterator[bytes]]
USES: dict[str, Callable[[ociroot.Image, Path], object]] = {
    "tree": lambda image, root: image.tree(),
    "extract": lambda image, root: image.extract(root),
}


@pytest.fixture(params=USES)
def use(request: pytest.FixtureRequest) -> Callable[[ociroot.Image, Path], object]:
    return USES[request.param]


def test_empty_chunks_are_no_end(
    stored: Path, tmp_path: Path, use: Callable[[ociroot.Image, Path], object]
) -> None:
    source = _OddSource(stored)
    source.fault = _with_empty_ones
    use(ociroot.OpenedSource(source).image(), tmp_path / "root")


def test_an_error_of_the_system_is_one_of_the_source(
    stored: Path, tmp_path: Path, use: Callable[[ociroot.Image, Path], object]
) -> None:
    source = _OddSource(stored)
    source.fault = _without_more
    with pytest.raises(ociroot.SourceError, match="cannot read: Network dropped") as caught:
        use(ociroot.OpenedSource(source).image(), tmp_path / "root")
    assert caught.value.layer is not None and caught.value.layer.startswith("1/")


# What reads a layer twice, as documented.


def test_whiteouts_first(tmp_path: Path) -> None:
    """They must be known before: all layers are read once to gather them, and once more."""
    below = [file(b"d/a"), file(b"d/b"), symlink(b"l", b"d")]
    layers = [Layer(below, "gzip"), Layer([file(b"l/x"), file(b"l/.wh.a")], "gzip")]
    source = FetchedSource(archive(tmp_path / "image.tar", layers))
    tree = ociroot.OpenedSource(source).image().tree()
    place = tree.find(b"d")
    assert place is not None and isinstance(place[2], ociroot.Directory)
    assert set(place[2].entries) == {b"b", b"x"}
    assert source.layer_reads() == [3, 3], "until it showed, to gather them, and to apply them"


def test_layers_in_another_order(tmp_path: Path) -> None:
    layers = [Layer([file(b"a", b"1")], "gzip"), Layer([file(b"a", b"2")], "gzip")]
    diff_ids = [digest(layer.unpacked()) for layer in reversed(layers)]
    source = FetchedSource(archive(tmp_path / "image.tar", layers, diff_ids=diff_ids))
    merged = ociroot.OpenedSource(source).image().merged()
    assert [warning.code for warning in merged.warnings] == ["layer-order"]
    assert source.layer_reads() == [3, 3], "until it showed, to find their order, and to apply them"


def test_it_has_no_place_in_a_file(stored: Path) -> None:
    source = FetchedSource(stored)
    blob = source.blob(_descriptor(source))
    assert blob is not None and not isinstance(blob, LocalBlob)


def _descriptor(source: FetchedSource) -> Any:
    image = ociroot.OpenedSource(source).image()
    assert image.manifest is not None
    return image.manifest.layers[0]
