"""``Image.export``: the archive, where it goes, and what becomes of it when something fails."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

import ociroot
from ociroot import ExportOptions

from .support.build import Layer, Member, archive, directory, file, link, symlink
from .support.user import as_ordinary_user, workshop

LAYERS: list[list[Member]] = [
    [
        directory(b"./", mode=0o750, mtime=5),
        directory(b"b", mtime=7),
        file(b"b/z", b"z" * 1000),
        file(b"b-c", b"1"),
        directory(b"a/", mode=0o700),
        file(b"a/one", b"one", xattrs={b"user.x": b"y", b"trusted.overlay.origin": b""}),
        link(b"b/one", b"a/one"),
        symlink(b"l", b"a"),
        file(b"gone", b"gone" * 1000),
    ],
    [file(b".wh.gone"), file(b"l/two", b"two" * 700), link(b"0", b"b/z")],
]


def export(image: Path, to: Any, **options: Any) -> ociroot.ExportReport:
    with ociroot.open(str(image)) as source:
        return source.image().export(to, ExportOptions(**options))


def listed(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def exported(image: Path, **options: Any) -> bytes:
    out = io.BytesIO()
    export(image, out, **options)
    return out.getvalue()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return archive(tmp_path / "image.tar", [LAYERS[0], Layer(LAYERS[1], "gzip")])


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.name + "/" * (member.name == ".") for member in tar]


# -- the archive ----------------------------------------------------------------------------------


def test_the_order_is_the_trees(image: Path) -> None:
    data = exported(image)
    # By component: what is in `b` comes before `b-c`, which is less than `b/`.
    expected = ["./", "./0", "./a", "./a/one", "./a/two", "./b", "./b/one", "./b/z", "./b-c", "./l"]
    assert names(data) == expected
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        kinds = {member.name: member for member in tar}
    assert kinds["./0"].isreg() and kinds["./0"].size == 1000
    assert kinds["./b/z"].islnk() and kinds["./b/z"].linkname == "./0"
    assert kinds["./b/one"].islnk() and kinds["./b/one"].linkname == "./a/one"
    assert kinds["./l"].issym() and kinds["./l"].linkname == "a"
    assert (kinds["."].mode, kinds["."].mtime) == (0o750, 5)
    assert [k for k in kinds["./a/one"].pax_headers if "xattr" in k] == ["SCHILY.xattr.user.x"]


def test_the_order_of_layers_needs_no_temporary_file(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    data = exported(image, order="layers")
    assert names(data) == [
        *("./", "./a", "./b", "./l"),
        *("./0", "./b-c", "./a/one", "./a/two"),
        *("./b/one", "./b/z"),
    ]


def test_both_orders_have_the_same_entries(image: Path) -> None:
    found = []
    for order in ("tree", "layers"):
        with tarfile.open(fileobj=io.BytesIO(exported(image, order=order))) as tar:
            found.append({m.name: (m.mode, m.mtime, m.size, m.linkname, m.type) for m in tar})
    assert found[0] == found[1]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("to", ["file", "stream"])
def test_the_bytes_do_not_depend_on_the_layers_compression(
    tmp_path: Path, image: Path, compression: Any, to: str
) -> None:
    other = archive(tmp_path / "other.tar", [Layer(layer, compression) for layer in LAYERS])
    if to == "file":
        export(other, tmp_path / "out.tar")
        data = (tmp_path / "out.tar").read_bytes()
    else:
        data = exported(other)
    assert data == exported(image)


@pytest.mark.root
def test_the_bytes_do_not_depend_on_the_user(image: Path) -> None:
    data = exported(image)
    with workshop() as place:
        (place / "image").write_bytes(image.read_bytes())
        assert as_ordinary_user(lambda: exported(place / "image")) == data


def test_later_times_are_clamped(image: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(exported(image, newest=6))) as tar:
        times = {member.name: member.mtime for member in tar}
    assert times.pop(".") == 5
    assert set(times.values()) == {6}


def test_sparse_files_keep_their_holes_in_files_alone(tmp_path: Path) -> None:
    pax = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"70000"}
    stored = b"1\n60000\n3\n".ljust(512, b"\0") + b"abc"
    image = archive(tmp_path / "image.tar", [[file(b"f", stored, pax=pax)]])
    export(image, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        member = tar.getmember("./f")
        assert member.issparse()
        assert member.size == 70000
        content = tar.extractfile(member)
        assert content is not None and content.read() == bytes(60000) + b"abc" + bytes(9997)
    with tarfile.open(fileobj=io.BytesIO(exported(image))) as tar:
        member = tar.getmember("./f")
        assert not member.issparse()
        content = tar.extractfile(member)
        assert content is not None and content.read() == bytes(60000) + b"abc" + bytes(9997)


def test_holes_that_expand_without_bound_are_refused(tmp_path: Path) -> None:
    pax = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
    pax[b"GNU.sparse.realsize"] = b"%d" % (1 << 40)
    image = archive(
        tmp_path / "image.tar", [[file(b"f", b"1\n0\n1\n".ljust(512, b"\0") + b"a", pax=pax)]]
    )
    with pytest.raises(ociroot.LimitExceeded, match="--max-ratio"):
        exported(image)
    export(image, tmp_path / "out.tar")  # where they take nothing


def test_paths_are_bounded_together(tmp_path: Path) -> None:
    deep = b"/".join([b"d" * 200] * 50)
    image = archive(tmp_path / "image.tar", [[file(deep + b"/%d" % n) for n in range(20)]])
    with (
        ociroot.open(
            str(image), ociroot.SourceOptions(limits=ociroot.Limits(listing=400_000))
        ) as source,
        pytest.raises(ociroot.LimitExceeded, match="--max-listing"),
    ):
        source.image().export(io.BytesIO())
    assert len(names(exported(image))) == 71


# -- where it goes --------------------------------------------------------------------------------


READERS: dict[str, Any] = {
    "out.tar": bytes,
    "out.tar.gz": gzip.decompress,
    "OUT.TGZ": gzip.decompress,
    "out.tar.xz": lzma.decompress,
    "out.txz": lzma.decompress,
    "out.tar.zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "out.tzst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("name", READERS)
def test_the_name_tells_format_and_compression(tmp_path: Path, image: Path, name: str) -> None:
    report = export(image, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert READERS[name](data) == exported(image)
    assert report.size == len(data)
    assert report.format == "tar"
    assert report.destination == str(tmp_path / name)
    assert len(report.layers) == 2


def test_options_tell_it_otherwise(tmp_path: Path, image: Path) -> None:
    plain = exported(image)
    assert gzip.decompress(exported(image, compress="gzip:1")) == plain
    report = export(image, tmp_path / "out.gz", format="tar", compress="none")
    assert (tmp_path / "out.gz").read_bytes() == plain
    assert report.compression is None
    assert export(image, tmp_path / "out", format="tar", compress="xz:0").compression == "xz:0"
    for options in ({}, {"format": "zip"}, {"format": "tar", "compress": "rar"}):
        with pytest.raises(ociroot.UsageError):
            export(image, tmp_path / "x", **options)
    assert listed(tmp_path) == ["image.tar", "out", "out.gz"]


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, image: Path) -> None:
    before = os.umask(0o027)
    try:
        export(image, tmp_path / "out.tar")
    finally:
        os.umask(before)
    assert (tmp_path / "out.tar").stat().st_mode & 0o777 == 0o640


def test_what_is_there_is_kept_but_for_force(tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out.tar"
    out.write_text("mine")
    with pytest.raises(ociroot.DestinationError, match=r"it exists \(--force"):
        export(image, out)
    assert out.read_text() == "mine"
    export(image, out, force=True)
    assert out.read_bytes() == exported(image)
    (tmp_path / "link.tar").symlink_to("out.tar")
    export(image, tmp_path / "link.tar", force=True, newest=0)
    assert not (tmp_path / "link.tar").is_symlink()
    assert out.read_bytes() == exported(image)
    (tmp_path / "dir.tar").mkdir()
    os.mkfifo(tmp_path / "fifo.tar")
    for name, problem in {
        "dir.tar": "it is a directory",
        "fifo.tar": "not a regular file",
        "image.tar": "it is the image that is read",
        "absent/out.tar": r"absent does not exist$",
    }.items():
        with pytest.raises(ociroot.DestinationError, match=problem) as caught:
            export(image, tmp_path / name, force=True)
        assert caught.value.source == str(tmp_path / name)


class Raw(io.RawIOBase):
    """A raw stream that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: Any, /) -> int | None:
        self.data += data[:777]
        return min(len(data), 777)


def test_any_binary_file_object_will_do(image: Path) -> None:
    raw = Raw()
    export(image, raw)
    assert bytes(raw.data) == exported(image)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(reader.read()))
        thread.start()
        with os.fdopen(write, "wb", buffering=0) as writer:
            export(image, writer)
        thread.join()
    assert got == [exported(image)]

    class Blocked(io.RawIOBase):
        def write(self, data: Any, /) -> int | None:
            return None

    with pytest.raises(BlockingIOError):
        export(image, Blocked())


def test_a_stream_gets_nothing_of_an_image_that_is_bad(tmp_path: Path) -> None:
    layers = [Layer(LAYERS[0], "gzip"), Layer([link(b"x", b"absent")])]
    image = archive(tmp_path / "image.tar", layers)
    out = io.BytesIO()
    with pytest.raises(ociroot.MalformedImage):
        export(image, out)
    assert out.getvalue() == b""
    with pytest.raises(ociroot.MalformedImage):
        export(image, tmp_path / "out.tar")
    assert listed(tmp_path) == ["image.tar"]


def test_an_error_of_the_stream_is_the_callers(image: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(28, "mine")

    with pytest.raises(OSError, match="mine"):
        export(image, Full())


def test_progress_is_told(tmp_path: Path, image: Path) -> None:
    seen: list[ociroot.Progress] = []
    with ociroot.open(str(image)) as source:
        source.image().export(tmp_path / "out.tar", progress=seen.append)
    stages = [each.stage for each in seen]
    assert stages == sorted(stages, key=["layers", "export"].index)
    assert seen[-1].stage == "export"
    assert 0 < seen[-1].total <= (tmp_path / "out.tar").stat().st_size
    assert seen[-1].done == seen[-1].total


# -- contents that are read a second time ---------------------------------------------------------


@pytest.mark.parametrize("order", ["tree", "layers"])
@pytest.mark.parametrize("form", ["archive", "layout"])
def test_a_layer_that_was_changed_meanwhile_is_not_published(
    tmp_path: Path, form: str, order: Any
) -> None:
    layers = [[file(b"f", b"good" * 100_000)]]
    image = archive(tmp_path / "image.tar", layers)
    changed = image
    if form == "layout":
        image = tmp_path / "layout"
        with tarfile.open(tmp_path / "image.tar") as tar:
            tar.extractall(image, filter="data")
        changed = max((image / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    before = listed(tmp_path)

    def spoil(progress: ociroot.Progress) -> None:
        if progress.stage == "layers" and progress.done == progress.total:
            data = changed.read_bytes()
            changed.write_bytes(data.replace(b"goodgood", b"evilevil"))

    with ociroot.open(str(image)) as source:
        with pytest.raises(ociroot.SourceError, match="was changed while it was read") as caught:
            source.image().export(tmp_path / "out.tar", ExportOptions(order=order), progress=spoil)
        assert caught.value.layer is not None
    assert listed(tmp_path) == before


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("order", ["tree", "layers"])
def test_large_contents(tmp_path: Path, compression: Any, order: Any) -> None:
    noise = hashlib.shake_128(b"").digest((3 << 20) + 7)
    image = archive(tmp_path / "image.tar", [Layer([file(b"f", noise)], compression)])
    with tarfile.open(fileobj=io.BytesIO(exported(image, order=order))) as tar:
        content = tar.extractfile("./f")
        assert content is not None and content.read() == noise


def test_a_compressed_layer_is_read_once(tmp_path: Path) -> None:
    image = archive(tmp_path / "image.tar", [Layer([file(b"f", b"good" * 100_000)], "gzip")])

    def spoil(progress: ociroot.Progress) -> None:
        if progress.stage == "layers" and progress.done == progress.total:
            image.write_bytes(b"")

    with ociroot.open(str(image)) as source:
        source.image().export(tmp_path / "out.tar", progress=spoil)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getmember("./f").size == 400_000


@pytest.mark.root
def test_no_space_for_the_layers_or_for_the_result(tmp_path: Path) -> None:
    from .support.mounts import mounted

    noise = hashlib.shake_128(b"").digest(9 << 20)
    image = archive(tmp_path / "image.tar", [Layer([file(b"f", noise)], "gzip")])
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=6m", "ociroot-test") as small:
        for to, options, what in (
            (io.BytesIO(), {"tmpdir": small}, "to decompress it in"),
            (small / "out.tar", {"tmpdir": tmp_path}, "no space for"),
            (small / "out.tar.zst", {"tmpdir": tmp_path}, "no space for"),
        ):
            with pytest.raises(ociroot.DestinationError, match=what) as caught:
                export(image, to, **options)
            assert caught.value.exit_code == 7
            assert caught.value.is_full
            assert listed(small) == []


def test_nothing_is_left_open(image: Path, tmp_path: Path) -> None:
    before = listed(Path("/proc/self/fd"))
    export(image, tmp_path / "out.tar.zst")
    with pytest.raises(ociroot.DestinationError):
        export(image, tmp_path / "out.tar.zst")
    assert listed(Path("/proc/self/fd")) == before
    assert threading.active_count() == 1


# -- whose archives are wrong ---------------------------------------------------------------------

# Each is a case of go-containerregistry's issues, whose `crane export` goes through the layers from
# the top down: the layers, and what the tree has at some paths (None: nothing).
CRANE: dict[str, tuple[list[list[Member]], dict[str, Any]]] = {
    "#2002: a hard link to a file that was replaced keeps its content": (
        [[file(b"a", b"old"), link(b"b", b"a")], [file(b"a", b"new")]],
        {"./a": b"new", "./b": b"old"},
    ),
    "#2002: a hard link to a file that was removed": (
        [[file(b"a", b"old"), link(b"b", b"a")], [file(b".wh.a")]],
        {"./a": None, "./b": b"old"},
    ),
    "#2238: absolute symbolic links": (
        [[directory(b"etc"), symlink(b"etc/mtab", b"/proc/mounts")], [symlink(b"x", b"/etc")]],
        {"./etc/mtab": "/proc/mounts", "./x": "/etc"},
    ),
    "#1623: a file in place of a directory": (
        [[directory(b"d"), file(b"d/f", b"1")], [file(b"d", b"2")]],
        {"./d": b"2", "./d/f": None},
    ),
    "#1623: a directory in place of a file": (
        [[file(b"d", b"2")], [directory(b"d"), file(b"d/f", b"1")]],
        {"./d/f": b"1"},
    ),
    "#2029: a whiteout and a new file of the same name in one layer": (
        [[directory(b"d"), file(b"d/f", b"old")], [file(b".wh.d"), file(b"d/g", b"new")]],
        {"./d/f": None, "./d/g": b"new"},
    ),
    "#2029: an opaque directory": (
        [
            [directory(b"d"), file(b"d/f", b"old")],
            [directory(b"d"), file(b"d/.wh..wh..opq"), file(b"d/g", b"new")],
        ],
        {"./d/f": None, "./d/g": b"new"},
    ),
    "below a link to a directory": (
        [[directory(b"usr/lib"), symlink(b"lib", b"usr/lib")], [file(b"lib/f", b"1")]],
        {"./usr/lib/f": b"1", "./lib": "usr/lib", "./lib/f": None},
    ),
}


@pytest.mark.parametrize("case", CRANE)
@pytest.mark.parametrize("order", ["tree", "layers"])
def test_what_crane_gets_wrong(tmp_path: Path, case: str, order: Any) -> None:
    layers, wanted = CRANE[case]
    data = exported(archive(tmp_path / "image.tar", layers), order=order)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
        assert len(tar.getnames()) == len(members), "a name stands twice"
        for path, content in wanted.items():
            if content is None:
                assert path not in members
            elif isinstance(content, str):
                assert members[path].linkname == content
            else:
                found = tar.extractfile(members[path])
                assert found is not None and found.read() == content
