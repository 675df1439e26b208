"""Images through fsspec, by its own test classes and as its users open them."""

from __future__ import annotations

import csv
import doctest
import errno
import gc
import importlib.metadata
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.tests import abstract
from upath import UPath

import ociroot
import ociroot.fsspec
from ociroot.fsspec import OciFileSystem

from .support.build import (
    HOST_ARCHITECTURE,
    Image,
    Layer,
    Member,
    archive,
    archive_of,
    file,
    symlink,
)

CHECKOUT = Path(__file__).parent.parent
SCENARIOS = {
    "bulk": "_bulk_operations_scenario_0",
    "globs": "_glob_edge_cases_files",
    "prefix": "_dir_and_file_with_same_name_prefix",
    "hashed": "_10_files_with_hashed_names",
}


def scenarios(place: Path) -> list[Member]:
    """What fsspec's tests write to a file system that can be written."""
    local = fsspec.filesystem("file", auto_mkdir=True)
    members = []
    for name, method in SCENARIOS.items():
        top = str(place / name)
        getattr(abstract.AbstractFixtures(), method)(local, lambda *parts: "/".join(parts), top)
        for path in local.find(top):
            inside = path.removeprefix(str(place)).encode()
            members.append(file(inside, Path(path).read_bytes()))
    return members


class OciFixtures(abstract.AbstractFixtures):  # type: ignore[misc]
    """What fsspec's test classes need of a file system, of one that is read-only."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        place = tmp_path / "scenarios"
        place.mkdir()
        return archive(place / "image.tar", [Layer(scenarios(place), "gzip")])

    @pytest.fixture
    def fs(self, image: Path) -> Any:
        return fsspec.filesystem("oci", fo=str(image))

    @pytest.fixture
    def fs_path(self) -> str:
        return ""

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return "bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return "globs/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return "prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return "hashed/source"


class TestGet(abstract.AbstractGetTests, OciFixtures):  # type: ignore[misc]
    """Everything that fsspec tests of copying files from a file system.

    Its other classes write to one, and so does one test of this class.
    """

    test_get_directory_recursive = None


# -- As its users open them ------------------------------------------------------------------------

CSV = "name,size\nüber,1\nb,2\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    members = [
        file(b"srv/data.csv", CSV.encode()),
        file(b"srv/more/x.txt", b"0123456789"),
        symlink(b"data", b"srv"),
        symlink(b"latest.csv", b"/srv/data.csv"),
        symlink(b"srv/nowhere", b"gone"),
        symlink(b"srv/more/up", b".."),
        Member(b"dev/null", "char", rdev=(1, 3)),
    ]
    return archive(tmp_path / "image.tar", [Layer(members, "zstd")])


@pytest.fixture
def fs(image: Path) -> OciFileSystem:
    opened = fsspec.filesystem("oci", fo=str(image))
    assert isinstance(opened, OciFileSystem)
    return opened


@pytest.mark.parametrize("chained", ["{}", "file://{}", "oci-archive:{}"])
@pytest.mark.parametrize("protocol", ["oci", "ociroot"])
def test_a_csv_by_its_url(image: Path, protocol: str, chained: str) -> None:
    if chained.startswith("oci-archive"):
        options: dict[str, Any] = {"fo": chained.format(image)}
        opened = fsspec.open(f"{protocol}://srv/data.csv", "rt", encoding="utf-8", **options)
    else:
        url = f"{protocol}://srv/data.csv::{chained.format(image)}"
        opened = fsspec.open(url, "rt", encoding="utf-8")
    with opened as lines:
        rows = list(csv.DictReader(lines))
    assert rows == [{"name": "über", "size": "1"}, {"name": "b", "size": "2"}]


@pytest.mark.parametrize("name", ["oci-archive:{}", "oci-archive:{}:b", "docker-archive:image.tar"])
def test_a_transport_in_a_chain(image: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image.parent)
    named = {"annotations": {"org.opencontainers.image.ref.name": "b"}}
    archive_of(image, [Image([[file(b"f", b"content")]], descriptor=named)])
    with fsspec.open(f"oci://f::{name.format(image)}") as opened:
        assert opened.read() == b"content"


@pytest.mark.filterwarnings("ignore:UPath .oci. filesystem not explicitly implemented")
def test_a_path_of_universal_pathlib(image: Path) -> None:
    path = UPath("oci://srv", fo=str(image))
    assert (path / "data.csv").read_text(encoding="utf-8") == CSV
    assert sorted(each.name for each in path.iterdir()) == ["data.csv", "more", "nowhere"]
    assert UPath(f"oci://srv/data.csv::file://{image}").read_text(encoding="utf-8") == CSV


def test_the_choice_of_an_image(tmp_path: Path) -> None:
    platforms = [("linux", HOST_ARCHITECTURE), ("linux", "s390x")]
    images = [Image([[file(b"f", p[1].encode())]], platform=p) for p in platforms]
    path = archive_of(tmp_path / "image.tar", images)
    for _, architecture in platforms:
        with fsspec.open(f"oci://f::{path}", oci={"platform": architecture}) as opened:
            assert opened.read() == architecture.encode()
    with ociroot.open(path) as source:
        wanted = str(source.image(platform="s390x").digest)
    assert fsspec.filesystem("oci", fo=path, digest=wanted).cat("f") == b"s390x"
    with pytest.raises(ociroot.UsageError, match="no image is named"):
        fsspec.open("oci://etc/os-release").open()


def test_an_image_of_another_file_system(image: Path) -> None:
    """It is copied to a temporary file, which goes."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/images/app.tar", image.read_bytes())
    for options in ({}, {"fo": "memory://images/app.tar"}):
        url = "oci://srv/more/x.txt" + ("" if options else "::memory://images/app.tar")
        with fsspec.open(url, **options) as opened:
            assert opened.read() == b"0123456789"
    memory.rm("/images", recursive=True)


# -- The file system -------------------------------------------------------------------------------


def test_lists(fs: OciFileSystem) -> None:
    assert fs.ls("", detail=False) == ["data", "dev", "latest.csv", "srv"]
    assert fs.ls("/srv/", detail=False) == ["srv/data.csv", "srv/more", "srv/nowhere"]
    types = {entry["name"]: entry["type"] for top in ("", "srv") for entry in fs.ls(top)}
    assert types == {
        "data": "directory",
        "dev": "directory",
        "latest.csv": "file",
        "srv": "directory",
        "srv/data.csv": "file",
        "srv/more": "directory",
        "srv/nowhere": "other",
    }
    assert fs.ls("srv/data.csv", detail=False) == ["srv/data.csv"]
    assert fs.ls("data/more", detail=False) == ["data/more/up", "data/more/x.txt"]
    with pytest.raises(FileNotFoundError):
        fs.ls("gone")


def test_info(fs: OciFileSystem) -> None:
    info = fs.info("oci://latest.csv")
    assert (info["name"], info["type"], info["size"]) == ("latest.csv", "file", len(CSV) + 1)
    assert (info["islink"], info["destination"], info["layer"]) == (True, "/srv/data.csv", 1)
    assert fs.info("data")["type"] == "directory" and fs.info("")["type"] == "directory"
    assert fs.isdir("data") and fs.isfile("latest.csv") and not fs.isfile("dev/null")
    assert fs.exists("srv/more") and not fs.exists("gone") and not fs.isdir("srv/data.csv/x")
    assert fs.size("srv/more/x.txt") == 10
    assert fs.modified("srv/data.csv").year == 2017
    assert fs.checksum("srv/data.csv") != fs.checksum("srv/more/x.txt")


def test_finds(fs: OciFileSystem) -> None:
    assert fs.glob("srv/*.csv") == ["srv/data.csv"]
    assert fs.glob("**/*.txt") == ["srv/more/x.txt"]
    assert fs.find("srv/more") == ["srv/more/x.txt"]
    assert fs.find("srv/more", withdirs=True) == ["srv/more", "srv/more/up", "srv/more/x.txt"]
    assert [top for top, _, _ in fs.walk("")] == ["", "dev", "srv", "srv/more"]
    assert fs.du("srv/more") == 10


def test_reads(fs: OciFileSystem, tmp_path: Path) -> None:
    assert fs.cat_file("srv/more/x.txt", 2, -3) == b"23456"
    assert fs.cat("srv/more/*.txt") == {"srv/more/x.txt": b"0123456789"}
    assert fs.read_text("data/data.csv") == CSV
    assert fs.head("srv/more/x.txt", 3) == b"012" and fs.tail("srv/more/x.txt", 3) == b"789"
    fs.get("srv/data.csv", str(tmp_path / "got.csv"))
    assert (tmp_path / "got.csv").read_text() == CSV
    with fs.open("srv/more/x.txt") as opened:
        assert opened.size == 10 and opened.readline() == b"0123456789"
    with pytest.raises(IsADirectoryError):
        fs.open("srv")
    with pytest.raises(OSError, match="not a file"):
        fs.cat_file("dev/null")
    mapper = fs.get_mapper("srv/more")
    assert mapper["x.txt"] == b"0123456789"


def test_an_open_file_keeps_the_image_open(image: Path) -> None:
    file = fsspec.filesystem("oci", fo=str(image), skip_instance_cache=True).open("srv/data.csv")
    gc.collect()
    with file:
        assert file.read().startswith(b"name,")


def test_what_is_found_can_be_read(fs: OciFileSystem) -> None:
    """No link to a directory is found as a file, none is followed, and a directory is the same
    to all methods.
    """
    for top in ("", "srv", "data", "srv/more"):
        assert {entry["name"]: entry["type"] for entry in fs.ls(top) if entry["islink"]} == {
            name: fs.info(name)["type"] if fs.exists(name) else "other"
            for name in fs.ls(top, detail=False)
            if fs.filesystem.is_symlink(name)
        }
    found = fs.find("")
    assert found == ["latest.csv", "srv/data.csv", "srv/more/x.txt"]
    assert set(fs.cat(found)) == set(found)
    assert dict(fs.get_mapper("data")) == {"data.csv": CSV.encode(), "more/x.txt": b"0123456789"}
    assert fs.find("srv/data.csv") == ["srv/data.csv"]
    tops = [top for top, _, _ in fs.walk("data", topdown=False)]
    assert tops == ["data/more", "data"]
    names = next(iter(fs.walk("srv/more")))[1]
    assert names == ["up"]


def test_a_link_to_a_directory_is_not_copied_silently(fs: OciFileSystem, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="links to directories are not followed: srv/more/up"):
        fs.get("srv/more", str(tmp_path / "more"), recursive=True)
    assert (tmp_path / "more/x.txt").read_bytes() == b"0123456789"
    assert [*(tmp_path / "more/up").iterdir()] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fs.get("data/data.csv", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got").read_text() == CSV


def test_the_links_of_a_listing_are_bounded_together(tmp_path: Path) -> None:
    there_and_back = b"/".join([b"x", b".."] * 50) + b"/file"
    members = [symlink(b"d%d/l%d" % (n % 5, n), b"/" + there_and_back) for n in range(100)]
    path = archive(tmp_path / "a", [[file(b"file"), file(b"x/file"), *members]])
    fs = fsspec.filesystem("oci", fo=str(path), limits={"steps": 5000})
    for ask in (fs.find, fs.glob, lambda path: list(fs.walk(path))):
        with pytest.raises(ociroot.LimitExceeded, match="--max-steps"):
            ask("**" if ask == fs.glob else "")
    assert [len(fs.ls(f"d{n}")) for n in range(5)] == [20] * 5  # the limit is on one call
    fs = fsspec.filesystem("oci", fo=str(path), limits={"steps": 1000})
    with pytest.raises(ociroot.LimitExceeded, match="--max-steps"):
        fs.ls("d0")
    assert fs.ls("d0", detail=False)


def test_limits(image: Path) -> None:
    """They hold for an image that is opened by a URL, and for its copy in a temporary file."""
    for limits in (ociroot.Limits(entries=1), {"entries": 1}):
        with pytest.raises(ociroot.LimitExceeded, match="entries"):
            fsspec.filesystem("oci", fo=str(image), limits=limits).ls("")
        with pytest.raises(ociroot.LimitExceeded, match="entries"):
            fsspec.open(f"oci://srv/data.csv::{image}", oci={"limits": limits}).open()
    assert fsspec.filesystem("oci", fo=str(image), limits={"entries": 1000}).ls("")
    memory = fsspec.filesystem("memory")
    memory.pipe("/image.tar", image.read_bytes())
    with pytest.raises(ociroot.LimitExceeded, match="temporary file"):
        fsspec.filesystem("oci", fo="memory://image.tar", limits={"spool": 100}).ls("")
    memory.rm("/image.tar")
    with pytest.raises(TypeError, match="entrys"):
        fsspec.filesystem("oci", fo=str(image), limits={"entrys": 1})
    with pytest.raises(TypeError, match="OciFileSystem has no option 'plattform'"):
        fsspec.filesystem("oci", fo=str(image), plattform="arm64")
    assert fsspec.filesystem("oci", fo=str(image), use_listings_cache=False).ls("")


WRITES: dict[str, Callable[[OciFileSystem], object]] = {
    "open": lambda fs: fs.open("new", "wb"),
    "append": lambda fs: fs.open("srv/data.csv", "ab"),
    "exclusive": lambda fs: fs.open("new", "xb"),
    "text": lambda fs: fs.write_text("new", "x"),
    "bytes": lambda fs: fs.write_bytes("new", b"x"),
    "pipe": lambda fs: fs.pipe("new", b"x"),
    "pipe_file": lambda fs: fs.pipe_file("new", b"x"),
    "touch": lambda fs: fs.touch("new"),
    "mkdir": lambda fs: fs.mkdir("new"),
    "makedirs": lambda fs: fs.makedirs("new/new", exist_ok=True),
    "mkdirs": lambda fs: fs.mkdirs("new"),
    "rm": lambda fs: fs.rm("srv", recursive=True),
    "rm_file": lambda fs: fs.rm_file("srv/data.csv"),
    "rmdir": lambda fs: fs.rmdir("srv/more"),
    "delete": lambda fs: fs.delete("srv/data.csv"),
    "copy": lambda fs: fs.copy("srv/data.csv", "new"),
    "cp_file": lambda fs: fs.cp_file("srv/data.csv", "new"),
    "mv": lambda fs: fs.mv("srv/data.csv", "new"),
    "rename": lambda fs: fs.rename("srv/data.csv", "new"),
    "put": lambda fs: fs.put(__file__, "new"),
    "put_file": lambda fs: fs.put_file(__file__, "new"),
    "upload": lambda fs: fs.upload(__file__, "new"),
}
UNKNOWN: dict[str, Callable[[OciFileSystem], object]] = {
    "created": lambda fs: fs.created("srv/data.csv"),
    "sign": lambda fs: fs.sign("srv/data.csv"),
}


@pytest.mark.parametrize("ask", UNKNOWN.values(), ids=UNKNOWN)
def test_what_no_image_has(fs: OciFileSystem, ask: Callable[[OciFileSystem], object]) -> None:
    with pytest.raises(NotImplementedError):
        ask(fs)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_it_is_read_only(fs: OciFileSystem, write: Callable[[OciFileSystem], object]) -> None:
    with pytest.raises(OSError, match="an image cannot be modified") as caught:
        write(fs)
    assert caught.value.errno == errno.EROFS and isinstance(caught.value, ociroot.OcirootError)


def test_instances(image: Path) -> None:
    one = fsspec.filesystem("oci", fo=str(image))
    assert fsspec.filesystem("oci", fo=str(image)) is one
    assert fsspec.filesystem("oci", fo=str(image), platform=HOST_ARCHITECTURE) is not one
    assert one.cat("srv/more/x.txt") == b"0123456789"
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    OciFileSystem.clear_instance_cache()
    other = pickle.loads(pickle.dumps(one))
    assert other is not one and other.cat("srv/more/x.txt") == b"0123456789"
    one.close()
    assert one.cat("srv/more/x.txt") == b"0123456789"  # it is opened anew
    assert repr(one) == f"<OciFileSystem of {image}>"


def test_the_protocol_is_registered() -> None:
    points = importlib.metadata.entry_points(group="fsspec.specs")
    found = {point.name: point.value for point in points if point.value.startswith("ociroot")}
    assert found == dict.fromkeys(OciFileSystem.protocol, "ociroot.fsspec:OciFileSystem")
    assert fsspec.get_filesystem_class("oci") is OciFileSystem


def test_the_examples_of_the_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = str(CHECKOUT / "examples/sample_image.py")
    subprocess.run([sys.executable, example, "sample.tar"], check=True)
    done = doctest.testmod(ociroot.fsspec)
    assert done.attempted > 3 and not done.failed
