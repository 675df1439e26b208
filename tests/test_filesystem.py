"""An image read as a file system: what it says is what the extracted directory says."""

# Paths are bytes here, which pathlib has not:
# ruff: noqa: PTH115, PTH116, PTH118, PTH119, PTH123, PTH207, PTH208

from __future__ import annotations

import doctest
import errno
import glob
import gzip
import io
import os
import pickle
import stat
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from subprocess import run
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ociroot
import ociroot.api.filesystem
from ociroot.images.layers import LayerBlob
from ociroot.layers.pipeline import Pipeline
from ociroot.layers.spool import LayerSpool
from ociroot.limits import DEFAULTS
from ociroot.spec.digest import Digest

from .support.build import (
    Image,
    Layer,
    Member,
    archive,
    archive_of,
    digest,
    directory,
    file,
    link,
    symlink,
    tar,
)
from .support.counting import counting
from .support.docker import docker_archive
from .support.model import ModelRefusal, expected
from .support.needs import need_root
from .support.strategies import Stack, blobs, dense_stacks, good_stacks
from .support.user import in_root, workshop

CHECKOUT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("OCIROOT_EXAMPLES", "300"))
# More than the channels of the pipeline hold.
MUCH = os.urandom(1 << 20) * 40

BASE = [
    directory(b"etc", mode=0o750, uid=7, gid=8),
    file(b"etc/a.conf", b"first\r\nsecond\n"),
    file(b"etc/b.conf", b"b" * 5000, mode=0o4755, xattrs={b"user.k": b"\0v"}),
    file(b"etc/.hidden"),
    symlink(b"bin", b"usr/bin"),
    file(b"usr/bin/tool", b"tool"),
    link(b"usr/bin/also", b"usr/bin/tool"),
    symlink(b"up", b"/../../etc/a.conf"),
    symlink(b"loop", b"loop"),
    symlink(b"nowhere", b"gone/x"),
    file(b"gone", b"x" * 1000),
    file(b"replaced", b"of the first layer"),
    Member(b"dev/null", "char", rdev=(1, 3), mode=0o666),
    Member(b"pipe", "fifo"),
    file(b"n\xff\n\x1b[31m", b"odd"),
    directory(b"var/cache"),
    file(b"var/cache/old", b"old"),
]
TOP = [
    file(b".wh.gone"),
    file(b"replaced", b"of the second layer"),
    file(b"var/cache/.wh..wh..opq"),
    file(b"var/cache/new", b"new"),
    symlink(b"lib", b"usr/lib"),
    file(b"usr/lib/x.so", b"lib"),
]


@pytest.fixture(params=["none", "gzip", "zstd"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    layers = [Layer(BASE, request.param), Layer(TOP, request.param)]
    return archive(tmp_path / "image.tar", layers)


@pytest.fixture
def fs(image: Path) -> Iterator[ociroot.FileSystem]:
    with ociroot.open(image) as source, source.image().filesystem() as opened:
        yield opened


# -- What is at a path -----------------------------------------------------------------------------


def test_contents(fs: ociroot.FileSystem) -> None:
    assert fs.read_bytes("/etc/a.conf") == b"first\r\nsecond\n"
    assert fs.read_text("etc/a.conf") == "first\nsecond\n"
    assert fs.read_bytes(b"//etc/../bin/./tool") == fs.read_bytes(PurePosixPath("/bin/also"))
    assert fs.read_bytes("/up") == b"first\r\nsecond\n"
    assert fs.read_bytes("/replaced") == b"of the second layer"
    assert [*fs.iterdir("/var/cache")] == ["/var/cache/new"]


def test_attributes(fs: ociroot.FileSystem) -> None:
    info = fs.stat("/etc/b.conf")
    assert stat.S_ISREG(info.mode) and stat.S_IMODE(info.mode) == 0o4755
    assert (info.kind, info.size, info.layer, info.nlink) == ("file", 5000, 1, 1)
    assert dict(info.xattrs) == {"user.k": b"\0v"}
    assert (fs.stat("/etc").uid, fs.stat("/etc").gid) == (7, 8)
    assert fs.stat("/bin/tool").nlink == 2
    assert fs.samefile("/bin/tool", "/usr/bin/also") and not fs.samefile("/up", "/bin/tool")
    assert (fs.lstat("/bin").kind, fs.lstat("/bin").target) == ("symlink", "usr/bin")
    assert fs.stat("/dev/null").device == (1, 3)
    assert (fs.stat("/replaced").layer, fs.stat("/lib/x.so").layer) == (2, 2)
    with pytest.raises(AttributeError):
        info.size = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(fs.stat("/dev/null"))) == fs.stat("/dev/null")


def test_what_is_there(fs: ociroot.FileSystem) -> None:
    assert all(fs.samefile(path, "/") for path in ("", b"", ".", PurePosixPath(), "//"))
    assert fs.exists("/") and fs.is_dir("/bin") and fs.is_file("/up") and fs.is_symlink("/up")
    assert not fs.is_symlink("/bin/tool") and fs.is_symlink("/loop")
    assert fs.lstat("/bin").kind == "symlink" and fs.lstat("/bin/").kind == "dir"
    for path in ("/gone", "/loop", "/nowhere", "/etc/a.conf/", "/etc/a.conf/x", "/a\0b"):
        assert not fs.exists(path) and not fs.is_file(path) and not fs.is_dir(path)
    assert fs.readlink("/bin") == "usr/bin" and fs.readlink(b"/bin") == b"usr/bin"
    assert fs.readlink(PurePosixPath("/bin")) == PurePosixPath("usr/bin")


@pytest.mark.parametrize(
    ("path", "code", "kind", "ours"),
    [
        ("/gone", errno.ENOENT, FileNotFoundError, ociroot.PathNotFound),
        ("/nowhere", errno.ENOENT, FileNotFoundError, ociroot.PathNotFound),
        (b"/etc/a.conf/x", errno.ENOTDIR, NotADirectoryError, ociroot.PathNotDirectory),
        ("/etc/a.conf/", errno.ENOTDIR, NotADirectoryError, ociroot.PathNotDirectory),
        ("/bin", errno.EISDIR, IsADirectoryError, ociroot.PathIsDirectory),
        ("/", errno.EISDIR, IsADirectoryError, ociroot.PathIsDirectory),
        ("/loop", errno.ELOOP, OSError, ociroot.PathError),
        ("/pipe", errno.ENXIO, OSError, ociroot.PathError),
    ],
)
def test_errors_are_those_of_python(
    fs: ociroot.FileSystem, path: str | bytes, code: int, kind: type[OSError], ours: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        fs.open(path)
    error = caught.value
    assert type(error) is ours and isinstance(error, ociroot.OcirootError)
    assert (error.errno, error.filename, error.exit_code) == (code, path, 1)
    shown = path.decode() if isinstance(path, bytes) else path
    assert str(error).startswith(f"{shown}: ")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.errno, str(again)) == (ours, code, str(error))


def test_errors_of_other_methods(fs: ociroot.FileSystem) -> None:
    # When they are called, as os.scandir, and not at the first step.
    with pytest.raises(NotADirectoryError):
        fs.iterdir("/etc/a.conf")
    with pytest.raises(FileNotFoundError):
        fs.walk("/gone")
    with pytest.raises(NotADirectoryError):
        fs.scan("/up")
    with pytest.raises(OSError, match="no symbolic link") as caught:
        fs.readlink("/etc")
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(TypeError):
        fs.exists(1)  # type: ignore[arg-type]


def test_links_on_the_way(tmp_path: Path) -> None:
    """A hundred are followed, more than 255 are a loop, and so is what becomes too long."""
    many = [symlink(b"l%d" % n, b"l%d" % (n + 1)) for n in range(300)]
    long = [symlink(b"d%d" % n, b"./" * 1500 + b"d%d" % (n + 1)) for n in range(3)]
    path = archive(
        tmp_path / "image.tar", [[*many, file(b"l300", b"there"), *long, directory(b"d3")]]
    )
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        assert fs.read_bytes("/l200") == b"there" and fs.is_dir("/d2")
        for looped in ("/l0", "/d0"):
            with pytest.raises(OSError, match="levels of symbolic links") as caught:
                fs.stat(looped)
            assert caught.value.errno == errno.ELOOP


def test_names_of_any_bytes(fs: ociroot.FileSystem) -> None:
    odd = b"/n\xff\n\x1b[31m"
    text = odd.decode("utf-8", "surrogateescape")
    assert odd in [*fs.iterdir(b"/")] and text in [*fs.iterdir()]
    for path in (odd, text, PurePosixPath(text)):
        assert fs.read_bytes(path) == b"odd"
    assert [*fs.glob(b"/n\xff*")] == [odd]
    assert [path for path, _, _ in fs.files(PurePosixPath("/n*"))] == [PurePosixPath(text)]
    with pytest.raises(FileNotFoundError) as caught:
        fs.stat(text + "\n")
    assert str(caught.value).isprintable()


# -- Directories -----------------------------------------------------------------------------------


def test_paths_have_the_type_that_was_given(fs: ociroot.FileSystem) -> None:
    assert [*fs.iterdir("bin")] == ["/bin/also", "/bin/tool"]
    assert [*fs.iterdir(b"/bin/")] == [b"/bin/also", b"/bin/tool"]
    assert next(fs.iterdir(PurePosixPath("/bin"))) == PurePosixPath("/bin/also")
    assert [*fs.walk("/bin")] == [("/bin", [], ["also", "tool"])]
    assert [*fs.walk(b"bin")] == [(b"/bin", [], [b"also", b"tool"])]
    assert [path for path, _ in fs.scan(PurePosixPath("bin"))][1] == PurePosixPath("/bin/tool")
    assert [*fs.glob(PurePosixPath("lib/*"))] == [PurePosixPath("/lib/x.so")]


def test_a_walk_is_pruned_as_that_of_os(fs: ociroot.FileSystem) -> None:
    seen = []
    for path, names, _ in fs.walk():
        seen.append(path)
        if path == "/":
            assert "bin" in names and "dev" in names  # a link to a directory is among them
            names[:] = ["var", "usr", "bin"]
    assert seen == ["/", "/var", "/var/cache", "/usr", "/usr/bin", "/usr/lib"]
    up = [path for path, _, _ in fs.walk("/var", topdown=False)]
    assert up == ["/var/cache", "/var"]


def test_scan(fs: ociroot.FileSystem) -> None:
    found = dict(fs.scan())
    assert found["/bin"].kind == "symlink" and found["/usr/bin/tool"].size == 4
    assert list(found).index("/usr") < list(found).index("/usr/bin/tool")
    assert not any(path.startswith("/bin/") for path in found)
    assert set(found) == {*fs.glob("**")} - {"/"}


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/etc/*", ["/etc/.hidden", "/etc/a.conf", "/etc/b.conf"]),
        ("etc/[ab].c?nf", ["/etc/a.conf", "/etc/b.conf"]),
        ("/etc/a.conf", ["/etc/a.conf"]),
        ("/b*/t*", ["/bin/tool"]),
        ("/etc/../bin/tool", ["/etc/../bin/tool"]),
        ("**/tool", ["/usr/bin/tool"]),
        ("bin/**/tool", ["/bin/tool"]),
        ("/var/**", ["/var", "/var/cache", "/var/cache/new"]),
        ("/usr/**/", ["/usr", "/usr/bin", "/usr/lib"]),
        ("/usr/**/**/*.so", ["/usr/lib/x.so"]),
        ("/**/usr/**/x*", ["/usr/lib/x.so"]),
        ("/", ["/"]),
        ("/gone*", []),
        ("/etc/a.conf/*", []),
        ("/loop/*", []),
    ],
)
def test_glob(fs: ociroot.FileSystem, pattern: str, paths: list[str]) -> None:
    assert [*fs.glob(pattern)] == paths


def test_a_pattern_through_links_is_bounded(tmp_path: Path) -> None:
    links = [symlink(b"l%d" % n, b".") for n in range(100)]
    path = archive(tmp_path / "image.tar", [links])
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        with pytest.raises(ociroot.LimitExceeded, match="for all paths"):
            for _ in fs.glob("/*/*/*/*/*/*/*/x"):
                pass
        assert len([*fs.glob("/**")]) == 101


# -- Files -----------------------------------------------------------------------------------------


def test_the_links_of_a_walk_are_bounded_together(tmp_path: Path) -> None:
    """Each link takes few steps, and all of them are followed."""
    there_and_back = b"/".join([b"x", b".."] * 50) + b"/x"
    members = [symlink(b"d%d/l%d" % (n % 5, n), b"/" + there_and_back) for n in range(100)]
    path = archive(tmp_path / "a", [[directory(b"x"), *members]])
    limits = ociroot.SourceOptions(limits=ociroot.Limits(steps=5000))
    with ociroot.open(path, limits) as source, source.image().filesystem() as fs:
        walked = fs.walk()
        with pytest.raises(ociroot.LimitExceeded, match="--max-steps"):
            list(walked)
        for n in range(5):  # the limit is on one walk
            [(_, directories, files)] = fs.walk(f"d{n}")
            assert (len(directories), files) == (20, [])


WAYS: dict[str, Callable[[ociroot.FileSystem], Iterator[object]]] = {
    "glob": lambda fs: fs.glob("**"),
    "glob of files": lambda fs: fs.glob("**/f*"),
    "two of any depth": lambda fs: fs.glob("**/d*/**/f*"),
    "files": lambda fs: fs.files("**"),
    "walk": lambda fs: fs.walk(),
    "walk, bottom up": lambda fs: fs.walk(topdown=False),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_paths_of_a_deep_tree_are_not_all_in_memory(
    tmp_path: Path, way: Callable[[ociroot.FileSystem], Iterator[object]]
) -> None:
    # 40 kB in each path; 2,000 of them would be 80 MB.
    part = b"/".join([b"d" * 99] * 40)
    members, last = [], b""
    for number in range(10):
        members.append(directory(last + part))
        members.append(symlink(b"to%d" % number, last + part))
        last = b"to%d/" % number
    members += [file(last + b"f%d" % number) for number in range(1000)]
    members += [directory(last + b"g%d" % number) for number in range(1000)]
    path = archive(tmp_path / "image", [members])
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        assert fs.exists(last + b"f0")
        tracemalloc.start()
        try:
            count = sum(1 for _ in way(fs))
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
    assert count >= 1000


def test_an_open_file_is_one_of_python(fs: ociroot.FileSystem) -> None:
    with fs.open("/etc/b.conf") as opened:
        assert isinstance(opened, io.BufferedReader) and opened.readable() and opened.seekable()
        assert (opened.name, opened.mode) == ("/etc/b.conf", "rb")
        assert opened.seek(-3, os.SEEK_END) == 4997 and opened.read() == b"bbb"
        assert opened.read() == b"" and opened.tell() == 5000
        assert opened.seek(9999) == 9999 and opened.read(1) == b""
        opened.seek(10)
        assert opened.seek(5, os.SEEK_CUR) == 15
        buffer = bytearray(7)
        assert opened.readinto(buffer) == 7 and buffer == b"b" * 7
        with pytest.raises(ValueError, match="before the file"):
            opened.raw.seek(-1, os.SEEK_SET)
        with pytest.raises(io.UnsupportedOperation):
            opened.write(b"x")
    with pytest.raises(ValueError, match="closed file"):
        opened.read()
    lines = io.TextIOWrapper(fs.open("/etc/a.conf"), "ascii").readlines()
    assert lines == ["first\n", "second\n"]


def test_the_mode_of_an_open_file(fs: ociroot.FileSystem) -> None:
    with fs.open(b"/etc/a.conf", "r") as one, fs.open(PurePosixPath("/up"), mode="rb") as other:
        assert one.read() == other.read() == b"first\r\nsecond\n"
        assert (one.name, other.name) == (b"/etc/a.conf", "/up")
    for mode in ("w", "rt", "r+b", ""):
        with pytest.raises(ValueError, match=f"the mode is '{mode}'".replace("+", ".")):
            fs.open("/etc/a.conf", mode)  # type: ignore[arg-type]


def test_a_sparse_file_of_a_tebibyte(tmp_path: Path) -> None:
    size, runs = 1 << 40, [(4096, 5), (1 << 30, 1 << 20), ((1 << 40) - 3, 3)]
    data = b"start" + MUCH[: 1 << 20] + b"end"
    table = "".join(f"{offset}\n{length}\n" for offset, length in runs)
    body = f"{len(runs)}\n{table}".encode()
    body += bytes(-len(body) % 512) + data
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
    records |= {b"GNU.sparse.name": b"huge", b"GNU.sparse.realsize": b"%d" % size}
    path = archive(
        tmp_path / "image.tar", [Layer([file(b"GNUSparseFile.0/huge", body, pax=records)], "zstd")]
    )
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        assert fs.stat("/huge").size == size
        with fs.open("/huge") as huge:
            huge.seek(4090)
            assert huge.read(20) == bytes(6) + b"start" + bytes(9)
            huge.seek((1 << 30) - 2)
            assert huge.read((1 << 20) + 4) == bytes(2) + MUCH[: 1 << 20] + bytes(2)
            huge.seek(-5, os.SEEK_END)
            assert huge.read() == bytes(2) + b"end"
            huge.seek((1 << 40) - (3 << 20))
            assert huge.read() == bytes((3 << 20) - 3) + b"end"
        # Ten kilobytes of an image take no memory but that of what is read.
        with pytest.raises(ociroot.LimitExceeded, match=f"layer 1/1 .* a file of {size} bytes"):
            fs.read_bytes("/huge")
        for _, info, huge_file in fs.files():
            huge_file.seek(-3, os.SEEK_END)
            assert (info.size, huge_file.read(10)) == (size, b"end")


def test_all_files(fs: ociroot.FileSystem) -> None:
    found = {path: (info, opened.read()) for path, info, opened in fs.files()}
    paths = {path for path, info in fs.scan() if info.kind == "file"}
    assert set(found) == paths and len(paths) == 9
    for path, (info, content) in found.items():
        assert info == fs.lstat(path) and content == fs.read_bytes(path)
    layers = [info.layer for _, info, _ in fs.files()]
    assert layers == sorted(layers)


def test_a_selection_of_files(fs: ociroot.FileSystem) -> None:
    asked: list[str] = []

    def small(path: str, info: ociroot.FileInfo) -> bool:
        asked.append(path)
        return info.size <= 4

    assert {path for path, _, _ in fs.files(small)} < set(asked)
    assert [(p, f.read()) for p, _, f in fs.files(b"/lib/*")] == [(b"/lib/x.so", b"lib")]
    assert [path for path, _, _ in fs.files("/bin/**")] == ["/bin/also", "/bin/tool"]
    assert [*fs.files("/etc")] == [*fs.files("/up")] == [*fs.files("/none*")] == []


def test_a_file_of_the_loop_is_closed_with_its_step(fs: ociroot.FileSystem) -> None:
    kept = []
    for _, info, opened in fs.files():
        assert len(opened.read(1)) == min(info.size, 1)  # and not to its end
        kept.append(opened)
        assert [each.closed for each in kept] == [True] * (len(kept) - 1) + [False]
    for opened in kept:
        with pytest.raises(ValueError, match="closed file"):
            opened.read()


def test_a_layer_alone(image: Path) -> None:
    with ociroot.open(image) as source:
        with source.image().filesystem(layer=1) as fs:
            assert fs.read_bytes("/gone") == b"x" * 1000
            assert fs.read_bytes("/replaced") == b"of the first layer"
        with source.image().filesystem(layer=2) as fs:
            assert fs.read_bytes("/replaced") == b"of the second layer"
            assert {info.layer for _, info, _ in fs.files()} == {2}
            assert not fs.exists("/etc")
        with pytest.raises(ociroot.UsageError, match="there is no layer 3"):
            source.image().filesystem(layer=3)


def test_its_warnings_are_those_of_the_merged_image(tmp_path: Path) -> None:
    """Those of the selection, and those of the layers."""
    layer = [file(b"f"), Member(b"s", "symlink", target=b"t", xattrs={b"trusted.overlay.x": b"y"})]
    images = [Image([layer], platform=("linux", "s390x"))]
    with ociroot.open(archive_of(tmp_path / "image.tar", images)) as source:
        image = source.image()
        with image.filesystem() as fs:
            assert fs.warnings == image.merged().warnings
            assert [each.code for each in fs.warnings[:1]] == ["platform"]


# -- When what is read, and how often --------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An image whose layers are compressed, and do not fit into the pipeline."""
    first = Layer([file(b"much", MUCH), file(b"small", b"1")], "gzip")
    return archive(tmp_path / "image.tar", [first, Layer([file(b"other", b"2")], "zstd")])


def test_nothing_is_read_before_the_first_use(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ociroot.open(large) as source:
        chosen = source.image()
        with counting(monkeypatch) as counts, chosen.filesystem() as fs:
            assert counts.reads == 0
            assert fs.exists("/small")
            whole = counts.bytes_read
            assert whole >= sum(layer.size for layer in chosen.layers)
            assert fs.stat("/much").size == len(MUCH) and [*fs.glob("/*")]
            assert counts.bytes_read == whole


def test_a_layer_is_decompressed_once_for_all_its_files(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ociroot.open(large) as source, source.image().filesystem() as fs:
        fs.exists("/")
        with counting(monkeypatch) as counts:
            assert fs.read_bytes("/small") == b"1"
            # A second pass over this layer, and none over the other one.
            layer = source.image().layers[0]
            assert layer.size <= counts.bytes_read < layer.size + 100_000
        with counting(monkeypatch) as counts:
            assert fs.read_bytes("/small") == b"1"
            assert counts.bytes_read < 10
            assert fs.read_bytes("/much") == MUCH
            assert counts.bytes_read < len(MUCH) + 10


def test_all_files_are_read_in_one_pass(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ociroot.open(large) as source, source.image().filesystem() as fs:
        size = sum(layer.size for layer in source.image().layers)
        with counting(monkeypatch) as counts:
            assert sum(len(opened.read()) for _, _, opened in fs.files()) == len(MUCH) + 2
        # Each layer once, and what has been kept of them.
        assert counts.bytes_read < size + len(MUCH) + 100_000


def test_the_temporary_file_has_no_name_and_goes(large: Path, tmp_path: Path) -> None:
    tmpdir = tmp_path / "tmpdir"
    tmpdir.mkdir()

    def open_there() -> int:
        links = (os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())
        return sum(each.startswith(str(tmpdir)) for each in links)

    with ociroot.open(large, ociroot.SourceOptions(tmpdir=tmpdir)) as source:
        with source.image().filesystem() as fs:
            fs.read_bytes("/small")
            assert (open_there(), [*tmpdir.iterdir()]) == (1, [])
        assert open_there() == 0
        with source.image().filesystem(tmpdir=tmp_path / "none") as fs:
            with pytest.raises(ociroot.DestinationError, match="cannot decompress it into"):
                fs.read_bytes("/small")
            with pytest.raises(ociroot.DestinationError, match="cannot decompress it into"):
                fs.read_bytes("/other")


def test_the_limit_on_the_temporary_file(large: Path) -> None:
    """It holds in whichever way it is filled, and neither way waits for ever."""
    with ociroot.open(large, ociroot.SourceOptions(limits=ociroot.Limits(spool=1 << 20))) as source:
        with source.image().filesystem() as fs:
            with pytest.raises(ociroot.LimitExceeded, match=r"layer 1/2 .*limit of 1048576"):
                fs.read_bytes("/small")
            assert fs.read_bytes("/other") == b"2"
        with source.image().filesystem() as fs:
            with pytest.raises(ociroot.LimitExceeded, match=r"limit of 1048576"):
                next(fs.files())
            assert fs.read_bytes("/other") == b"2"  # it begins anew


def test_no_space_for_the_temporary_file(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statvfs = os.fstatvfs

    def full(fd: int) -> os.statvfs_result:
        fields = list(statvfs(fd))
        fields[3] = fields[4] = 0  # f_bfree, f_bavail
        return os.statvfs_result(fields)

    with ociroot.open(large) as source:
        monkeypatch.setattr(os, "fstatvfs", full)
        for use in USES[1:]:
            with source.image().filesystem() as fs:
                with pytest.raises(ociroot.DestinationError, match="no space") as caught:
                    use(fs)
                assert caught.value.exit_code == 7 and "--tmpdir" in str(caught.value)


def test_no_descriptor_for_the_temporary_file(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ociroot.open(large) as source, source.image().filesystem() as fs:
        assert fs.exists("/")
        failing(monkeypatch, "open", errno.EMFILE, lambda _, flags, *more: flags & os.O_TMPFILE)
        with pytest.raises(ociroot.DestinationError, match="Too many open files EMFILE"):
            fs.read_bytes("/much")


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, code: int, when: Callable[..., object]
) -> None:
    """Have a function of `os` fail."""
    real = getattr(os, name)

    def called(*arguments: Any, **more: Any) -> Any:
        if when(*arguments):
            raise OSError(code, os.strerror(code))
        return real(*arguments, **more)

    monkeypatch.setattr(os, name, called)


def test_a_failure_gives_the_space_of_the_temporary_file_back(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def full(fd: int, *_: object) -> bool:
        nonlocal written
        written = os.fstat(fd).st_size
        return written > 0

    with ociroot.open(large) as source, source.image().filesystem() as fs:
        assert fs.exists("/")
        failing(monkeypatch, "pwrite", errno.ENOSPC, full)
        with pytest.raises(ociroot.DestinationError, match="No space left"):
            fs.read_bytes("/much")
        links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        kept = [each.stat().st_size for each in links if "(deleted)" in str(each.readlink())]
    assert written and 0 in kept and written not in kept


def test_a_layer_that_an_image_has_twice(tmp_path: Path) -> None:
    one, other = Layer([file(b"f", MUCH)], "gzip"), Layer([file(b".wh.f"), file(b"g")], "gzip")
    path = archive(tmp_path / "image.tar", [one, other, one])
    limits = ociroot.Limits(spool=len(MUCH) + (100 << 10))
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source,
        source.image().filesystem() as fs,
    ):
        found = [(path, opened.read() == MUCH) for path, _, opened in fs.files()]
    assert found == [("/g", False), ("/f", True)]


class Fetched:
    """A blob that is in no local file, as one of a registry."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def chunks(self, step: int = 1000) -> Iterator[bytes]:
        yield from (self._content[at : at + step] for at in range(0, self.size, step))


def test_a_plain_layer_that_is_in_no_local_file(tmp_path: Path) -> None:
    """It is kept as a compressed one is: there is no place that it could be read in."""
    content = tar([file(b"f", b"content")])
    name = Digest.parse(digest(content))
    layer = LayerBlob(1, 1, name, "", Fetched(content), name, len(content))
    spool = LayerSpool(tmp_path, ociroot.Limits())
    with Pipeline([layer], spool=spool, limits=DEFAULTS) as pipeline:
        assert b"".join(pipeline.chunks()) == content
        pipeline.finish().verify()
    kept = spool.get(layer)
    assert kept is not None and b"".join(kept.chunks()) == content
    spool.close()


def test_threads(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ociroot.open(large) as source, source.image().filesystem() as fs:
        size = sum(layer.size for layer in source.image().layers)
        failed: list[BaseException] = []

        def work() -> None:
            try:
                assert fs.read_bytes("/small") == b"1" and fs.read_bytes("/much") == MUCH
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        with counting(monkeypatch) as counts:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not failed
        assert counts.bytes_read < 2 * size + 4 * len(MUCH) + 200_000


def test_whiteouts_that_need_another_pass(tmp_path: Path) -> None:
    layers = [
        Layer([file(b"d/f", b"1"), symlink(b"s", b"d")], "gzip"),
        Layer([file(b"s/g", b"2"), file(b".wh.s"), file(b"d/.wh.f")], "gzip"),
    ]
    path = archive(tmp_path / "image.tar", layers)
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        assert {path: opened.read() for path, _, opened in fs.files()} == {"/s/g": b"2"}


# -- Nothing unverified ----------------------------------------------------------------------------


def test_nothing_is_given_out_of_what_does_not_verify(tmp_path: Path) -> None:
    layers = [Layer([file(b"much", MUCH), file(b"small", b"1")], "gzip")]
    path = archive(tmp_path / "image.tar", layers, diff_ids=[digest(b"another")])
    for use in USES:
        with ociroot.open(path) as source, source.image().filesystem() as fs:
            with pytest.raises(ociroot.VerificationError, match="the diff_id is"):
                use(fs)
            with pytest.raises(ociroot.VerificationError, match="the diff_id is"):
                use(fs)


USES: list[Callable[[ociroot.FileSystem], Any]] = [
    lambda fs: fs.exists("/small"),
    lambda fs: fs.open("/small"),
    lambda fs: next(fs.files()),
]


def test_a_layer_that_changes_before_it_is_decompressed_again(tmp_path: Path) -> None:
    """A docker-archive has no digest of a layer, so it is the diff_id that must hold again."""
    wrong, right = (tar([file(b"f", data)]) for data in (b"right", b"wrong"))
    packed = [gzip.compress(each, 0, mtime=0) for each in (wrong, right)]
    path = docker_archive(tmp_path / "image.tar", {"1.tar": packed[0]}, diff_ids=[digest(wrong)])
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        assert fs.exists("/f")
        content = path.read_bytes()
        assert content.count(packed[0]) == 1 and len(packed[0]) == len(packed[1])
        with path.open("r+b") as out:
            out.seek(content.index(packed[0]))
            out.write(packed[1])
        for _ in range(2):
            with pytest.raises(ociroot.VerificationError, match=r"layer 1/1 .*the diff_id is"):
                fs.open("/f")
        with pytest.raises(ociroot.VerificationError, match=r"layer 1/1 .*the diff_id is"):
            next(fs.files())


def again(opened: io.BufferedReader) -> bytes:
    """Read a file from its beginning, and not from its buffer."""
    opened.raw.seek(0, os.SEEK_SET)
    return opened.raw.read()


def test_what_is_closed_says_so(image: Path) -> None:
    with ociroot.open(image) as source:
        with source.image().filesystem() as fs:
            opened = fs.open("/etc/b.conf")
            assert opened.read(1) == b"b" and not repr(fs).endswith(", closed>")
            loop = fs.files()
            next(loop)
        assert repr(fs).endswith(", closed>")
        uses: list[Callable[[ociroot.FileSystem], Any]]
        uses = [*USES, lambda _: next(loop), lambda fs: fs.warnings, lambda _: again(opened)]
        uses[:0] = [
            lambda fs: fs.iterdir(),
            lambda fs: fs.scan(),
            lambda fs: fs.walk(),
            lambda fs: fs.glob("/*"),
            lambda fs: fs.files(),
        ]
        for use in uses:
            with pytest.raises(ociroot.ClosedSource, match="the file system is closed"):
                use(fs)
        fs = source.image().filesystem()
        fs.read_bytes("/up")
        opened = fs.open("/etc/b.conf")
    for use in [*USES, uses[-1]]:
        with pytest.raises(ValueError, match="the source is closed"):
            use(fs)
    fs.close()


def test_warnings(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", [[file(b"a"), file(b"a")]])
    with ociroot.open(path) as source:
        with source.image().filesystem() as fs:
            assert [each.code for each in fs.warnings] == ["duplicate-path"]
        with source.image().filesystem(strict=True) as fs, pytest.raises(ociroot.MalformedImage):
            fs.exists("/")


# -- The extracted directory -----------------------------------------------------------------------

Answers = dict[str, Any]


def answer(question: Callable[[bytes], Any], path: bytes) -> Any:
    """What a call says of a path, or the number of its error."""
    try:
        return question(path)
    except OSError as error:
        return error.errno


def paths_to_try(paths: list[bytes]) -> list[bytes]:
    """The paths that there are, and some that lead through them."""
    more = [path + end for path in paths for end in (b"/", b"/..", b"/a", b"/b/.", b"/../a")]
    return sorted({b"/", *paths, *more})


PATTERNS = [b"/*", b"/a/*", b"/*/a", b"/*/*", b"/[ab]*/../*", b"/*/"]


def of_the_kernel() -> tuple[list[bytes], Answers]:
    """What the kernel says of the tree that is the root now."""
    paths = [
        os.path.join(top, name)
        for top, directories, files in os.walk(b"/")
        for name in directories + files
    ]
    said: Answers = {"paths": sorted(paths)}
    for path in paths_to_try(paths):
        said[f"stat {path!r}"] = answer(lambda at: described(os.stat(at)), path)
        said[f"lstat {path!r}"] = answer(lambda at: described(os.lstat(at)), path)
        said[f"list {path!r}"] = answer(lambda at: sorted(os.listdir(at)), path)
        said[f"readlink {path!r}"] = answer(os.readlink, path)
        said[f"read {path!r}"] = answer(content, path)
    said["walk"] = sorted((top, sorted(d), sorted(f)) for top, d, f in os.walk(b"/"))
    for pattern in PATTERNS:
        found = glob.glob(pattern, include_hidden=True)
        said[f"glob {pattern!r}"] = sorted(path.rstrip(b"/") for path in found)
    every = [b"/", *paths]
    said["glob **"] = sorted(every)
    said["glob **/a*"] = sorted(p for p in paths if fnmatch(os.path.basename(p), b"a*"))
    return paths, said


def content(path: bytes) -> bytes | None:
    """What is in a regular file; of a device, which is not opened, None."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return None
    with open(path, "rb") as opened:
        return opened.read()


def described(status: os.stat_result) -> tuple[Any, ...]:
    is_directory, is_link = stat.S_ISDIR(status.st_mode), stat.S_ISLNK(status.st_mode)
    mode = stat.S_IFMT(status.st_mode) if is_link else status.st_mode
    size = 0 if is_directory else status.st_size
    links = 0 if is_directory else status.st_nlink
    return (mode, size, status.st_uid, status.st_gid, status.st_mtime_ns, links)


def of_ours(info: ociroot.FileInfo) -> tuple[Any, ...]:
    mode = stat.S_IFMT(info.mode) if info.kind == "symlink" else info.mode
    links = 0 if info.kind == "dir" else info.nlink
    return (mode, info.size, info.uid, info.gid, info.mtime_ns, links)


def of_the_filesystem(fs: ociroot.FileSystem, paths: list[bytes]) -> Answers:
    """The same of the image."""
    said: Answers = {"paths": sorted(path for path, _ in fs.scan(b"/"))}
    for path in paths_to_try(paths):
        said[f"stat {path!r}"] = answer(lambda at: of_ours(fs.stat(at)), path)
        said[f"lstat {path!r}"] = answer(lambda at: of_ours(fs.lstat(at)), path)
        said[f"list {path!r}"] = answer(
            lambda at: [each.rpartition(b"/")[2] for each in fs.iterdir(at)], path
        )
        said[f"readlink {path!r}"] = answer(fs.readlink, path)
        read = answer(fs.read_bytes, path)
        said[f"read {path!r}"] = read if read != errno.ENXIO else None
        kind = answer(lambda at: fs.stat(at).kind, path)
        assert fs.exists(path) == isinstance(kind, str)
        assert (fs.is_file(path), fs.is_dir(path)) == (kind == "file", kind == "dir")
    said["walk"] = sorted((top, d, f) for top, d, f in fs.walk(b"/"))
    for pattern in PATTERNS:
        said[f"glob {pattern!r}"] = sorted(path.rstrip(b"/") for path in fs.glob(pattern))
    said["glob **"] = sorted(fs.glob(b"**"))
    said["glob **/a*"] = sorted(fs.glob(b"**/a*"))
    return said


@settings(
    deadline=None,
    print_blob=True,
    derandomize=False,
    max_examples=max(EXAMPLES // 3, 10),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
@given(st.data(), st.one_of(good_stacks, dense_stacks))
def test_any_image_is_what_its_directory_is(data: st.DataObject, stack: Stack) -> None:
    need_root()
    try:
        expected(stack)
    except ModelRefusal:
        return
    with workshop() as where:
        path = archive(where / "image", data.draw(blobs(stack)))
        with ociroot.open(path) as source:
            chosen = source.image()
            chosen.extract(where / "rootfs")
            paths, said = in_root(where / "rootfs", of_the_kernel)
            with chosen.filesystem() as fs:
                assert of_the_filesystem(fs, paths) == said
            with chosen.filesystem() as fs:
                contents = {p: f.read() for p, _, f in fs.files(b"/**")}
    read = {p: said[f"read {p!r}"] for p in paths if stat.S_ISREG(said[f"lstat {p!r}"][0])}
    assert contents == read


# -- Examples --------------------------------------------------------------------------------------


def test_the_examples_of_the_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run([sys.executable, CHECKOUT / "examples/sample_image.py", "sample.tar"], check=True)
    with ociroot.open("sample.tar") as source, source.image().filesystem() as fs:
        names = {"ociroot": ociroot, "fs": fs}
        done = doctest.testmod(ociroot.api.filesystem, extraglobs=names, report=True)
    assert done.attempted == 3 and not done.failed
