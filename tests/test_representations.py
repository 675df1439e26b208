"""The ``repr`` of public objects, and errors after a source has been closed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ociroot
from tests.support import build


@pytest.fixture
def archive(tmp_path: Path) -> str:
    layers = [
        [build.directory(b"etc"), build.file(b"etc/motd", b"hello")],
        [build.file(b"x", b"1")],
    ]
    return str(build.archive(tmp_path / "image.tar", layers))


def test_representations_tell_what_it_is(archive: str) -> None:
    with ociroot.open(archive) as source:
        image = source.image()
        merged = image.merged()
        found = merged.tree.find(b"etc/motd")
        assert found is not None
        etc, _, node = found
        assert repr(source) == f"<OpenedSource {archive} oci-archive>"
        assert repr(image).endswith(f"{image.platform} {image.digest.short} layers=2>")
        layer = image.layers[0]
        assert layer.digest is not None
        assert repr(layer) == f"<Layer 1/2 {layer.digest.short} size={layer.size}>"
        assert repr(merged) == f"<Merged {archive} layers=2>"
        assert repr(merged.tree) == "<Tree entries=3 layers=2>"
        assert repr(etc) == "<Directory /etc entries=1>"
        assert repr(node) == f"<Node file size=5 mode=0644 {os.geteuid()}:{os.getegid()}>"


def test_representations_are_short(archive: str) -> None:
    """What they hold may be a million names."""
    with ociroot.open(archive) as source:
        image = source.image()
        assert repr(image.usage()) == "<Usage size=6 waste=0 layers=2>"
        assert repr(image.snapshot()) == "<Snapshot files=2>"
        listing = next(iter(image.merged().walk()))
        assert repr(listing) == "<DirectoryListing entries=2>"
    assert repr(ociroot.Limits()) == "Limits()"
    assert repr(ociroot.Limits(spool=7, entries=5)) == "Limits(spool=7, entries=5)"
    assert len(str(inspect.signature(ociroot.SourceOptions))) < 200
    assert repr(ociroot.PathPattern(b"*\x1b")) == r"<PathPattern *\x1b>"
    some = ociroot.PathFilter(subtree=b"srv", excludes=[b"*.o\n"])
    assert repr(some) == r"<PathFilter subtree='srv' excludes=['*.o\n'] includes=[]>"


WRONG: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "image": (lambda source, image: source.image("linux/amd64"), r"ImageSelector, not 'linux/am"),
    "open": (lambda source, image: ociroot.open("x", {"tmpdir": "y"}), "SourceOptions, not dict"),  # type: ignore[arg-type]
    "extract": (lambda source, image: image.extract("x", {"replace": True}), "ExtractOptions, not"),
    "export": (lambda source, image: image.export("x", {"format": "oci"}), "ExportOptions, not"),
    "limits": (lambda source, image: ociroot.SourceOptions(limits={}), "Limits, not dict"),  # type: ignore[arg-type]
    "limit": (lambda source, image: ociroot.Limits(entries="3"), "limit entries is '3', and must"),  # type: ignore[arg-type]
    "none": (lambda source, image: ociroot.Limits(entries=None), "limit entries is None"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG.keys())
def test_an_argument_of_a_wrong_type(
    archive: str, call: Callable[[Any, Any], object], said: str
) -> None:
    with ociroot.open(archive) as source, pytest.raises(TypeError, match=said):
        call(source, source.image())


def test_representations_tell_what_is_closed(archive: str) -> None:
    with ociroot.open(archive) as source:
        fs, other = source.image().filesystem(), source.image().filesystem()
        assert repr(fs) == f"<FileSystem of {archive}>"
        fs.close()
        assert repr(fs) == f"<FileSystem of {archive}, closed>"
        assert repr(other) == f"<FileSystem of {archive}>"
        with pytest.raises(ociroot.ClosedSource, match="the file system is closed"), fs:
            pass
    assert repr(source) == f"<OpenedSource {archive} oci-archive, closed>"
    assert repr(other) == f"<FileSystem of {archive}, closed>"


READS: dict[str, Callable[[Any, Any, Any], object]] = {
    "listing": lambda source, image, merged: source.listing(),
    "image": lambda source, image, merged: source.image(),
    "load": lambda source, image, merged: source.load(source_listing[0]),
    "extract": lambda source, image, merged: image.extract("/nonexistent/x"),
    "merged": lambda source, image, merged: image.merged(),
    "tree": lambda source, image, merged: image.tree(),
    "layer": lambda source, image, merged: image.verified_layer(1),
    "entries": lambda source, image, merged: next(image.layers[0].entries()),
    "compression": lambda source, image, merged: image.layers[0].compression,
    "files": lambda source, image, merged: next(merged.files([])),
    "read": lambda source, image, merged: next(merged.read(ociroot.Node("file", 0))),
    "filesystem": lambda source, image, merged: image.filesystem(),
    "usage": lambda source, image, merged: image.usage(),
    "events": lambda source, image, merged: next(image.layer_events("x")),
    "snapshot": lambda source, image, merged: image.snapshot(),
    "export": lambda source, image, merged: image.export("/nonexistent/x.tar"),
    "again": lambda source, image, merged: source.__enter__(),
}
source_listing: list[ociroot.FoundImage] = []


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_closed_source_says_so(archive: str, read: Callable[[Any, Any, Any], object]) -> None:
    with ociroot.open(archive) as source:
        image = source.image()
        merged = image.merged()
        source_listing[:] = source.listing().images
    with pytest.raises(ociroot.ClosedSource, match="the source is closed"):
        read(source, image, merged)
    with pytest.raises(ValueError, match=r"image\.tar: the source is closed"):
        read(source, image, merged)


@pytest.mark.parametrize("path", [b"/nonexistent/x.tar", b"", b"n\xff.tar"])
def test_a_path_in_bytes_that_is_absent(path: bytes) -> None:
    with pytest.raises(ociroot.SourceError, match="No such file"):
        ociroot.open(path)  # type: ignore[arg-type]


def test_no_name_has_a_lone_surrogate(archive: str) -> None:
    with ociroot.open(archive) as source, source.image().filesystem() as fs:
        assert not fs.exists("\ud800")
