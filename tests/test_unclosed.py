"""Sources and file systems that nobody closes: their files are closed, and a warning says so."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest

import ociroot

from .support.build import Layer, archive, file


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image whose layer is compressed, of which a file system makes a temporary file."""
    layer = Layer([file(b"etc/motd", b"hello"), file(b"f", b"x" * 100_000)], "zstd")
    return archive(tmp_path / "image.tar", [layer])


def open_files() -> list[str]:
    """Return what this process has open: the image, and files without a name."""
    links = (each for each in Path("/proc/self/fd").iterdir() if each.is_symlink())
    names = [str(each.readlink()) for each in links]
    return [name for name in names if "image.tar" in name or "(deleted)" in name]


def test_a_source_that_is_forgotten(image: Path) -> None:
    before = open_files()
    with pytest.warns(ResourceWarning, match="was not closed"):
        ociroot.open(image)
        gc.collect()
    assert open_files() == before


def test_a_file_system_that_is_forgotten(image: Path) -> None:
    with ociroot.open(image) as source:
        before = open_files()
        with pytest.warns(ResourceWarning, match="its file system was not closed"):
            assert source.image().filesystem().read_bytes("etc/motd") == b"hello"
            # At once: nothing refers to the temporary file.
            assert open_files() == before
        assert source.image().filesystem().exists("etc/motd")  # has no temporary file


def test_an_open_file_keeps_what_it_reads(image: Path) -> None:
    with ociroot.open(image) as source:
        before = open_files()
        opened = source.image().filesystem().open("f")
        gc.collect()
        assert opened.read() == b"x" * 100_000
        with pytest.warns(ResourceWarning, match="was not closed"):
            del opened
            gc.collect()
        assert open_files() == before


def test_a_source_closes_its_file_systems(image: Path) -> None:
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ociroot.open(image) as source:
            fs = source.image().filesystem()
            fs.read_bytes("f")
            assert len(open_files()) == len(before) + 2
        assert open_files() == before
        with pytest.raises(ociroot.ClosedSource, match="the source is closed"):
            fs.exists("f")
        del fs
        gc.collect()


def test_a_source_that_its_progress_closes(image: Path) -> None:
    before = open_files()
    source = ociroot.open(image)

    def stop(progress: ociroot.Progress) -> None:
        source.close()

    fs = source.image().filesystem(progress=stop)
    with pytest.raises(ociroot.ClosedSource, match="is closed"):
        list(fs.files())
    assert open_files() == before
