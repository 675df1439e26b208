"""Extraction as a whole: verification, the order of the layers, the report."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import LayerReport, Progress
from ociroot.errors import (
    DestinationError,
    LimitExceeded,
    MalformedImage,
    OcirootError,
    Unsupported,
    VerificationError,
)

from .support import build
from .support.build import Layer, Member, archive
from .support.needs import besides_owners

BASE = [Member(b"a", data=b"base"), Member(b"b", data=b"base")]
TOP = [Member(b".wh.b"), Member(b"a", data=b"top"), Member(b"c", data=b"top")]


def extract(path: Path, root: Path, progress: Any = None, **options: Any) -> ociroot.Report:
    with ociroot.open(path) as source:
        chosen = source.image(strict=options.get("strict", False))
        return chosen.extract(root, ociroot.ExtractOptions(**options), progress=progress)


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def refused(path: Path, root: Path, error: type[OcirootError], match: str, **options: Any) -> None:
    """Check that an image is refused and nothing is left behind."""
    before = sorted(root.parent.iterdir())
    threads = threading.active_count()
    with pytest.raises(error, match=match):
        extract(path, root, **options)
    assert sorted(root.parent.iterdir()) == before
    assert threading.active_count() == threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.tar"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_layers_are_applied_in_order(path: Path, root: Path, compression: Any) -> None:
    layers = [Layer(BASE, compression), Layer(TOP, compression)]
    report = extract(archive(path, layers), root)
    assert content(root) == {"a": b"top", "c": b"top"}
    assert besides_owners(w.code for w in report.warnings) == []
    tars = [layer.unpacked() for layer in layers]
    blobs = [layer.packed() for layer in layers]
    assert report.layers == tuple(
        LayerReport(
            layer=number,
            digest=build.digest(blob),
            diff_id=build.digest(tar),
            media_type=build.LAYER_TYPES[compression],
            compression=compression,
            size=len(blob),
            unpacked_size=len(tar),
            entries=entries,
        )
        for number, tar, blob, entries in zip((1, 2), tars, blobs, (2, 3), strict=True)
    )


def test_the_report_has_the_config(path: Path, root: Path) -> None:
    """The caller needs the configuration to start a container."""
    report = extract(archive(path, [BASE], config={"config": {"Cmd": ["sh"]}}), root)
    assert report.config.config.cmd == ("sh",)
    assert report.destination == str(root)


def test_an_image_without_layers_is_an_empty_root(path: Path, root: Path) -> None:
    extract(archive(path, []), root)
    assert list(root.iterdir()) == []


def test_the_same_layer_twice(path: Path, root: Path) -> None:
    extract(archive(path, [BASE, TOP, BASE]), root)
    assert content(root) == {"a": b"base", "b": b"base", "c": b"top"}


# Verification.


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("at", [0, 3, 600, -700, -1])
def test_a_damaged_blob_fails_by_its_digest(
    path: Path, root: Path, compression: Any, at: int
) -> None:
    """Whichever error comes first: bad gzip data, a bad header or a short archive."""
    layer = Layer([Member(b"x", data=os.urandom(2000))], compression)
    damaged = bytearray(layer.packed())
    damaged[at] ^= 0x55
    archive(path, [layer], blobs={build.digest(layer.packed()): bytes(damaged)})
    refused(path, root, VerificationError, "layer 1/1 .*digest of the blob")


def test_a_wrong_diff_id(path: Path, root: Path) -> None:
    for compression in ("none", "gzip"):
        archive(path, [Layer(BASE, compression)], diff_ids=["sha256:" + "0" * 64])
        refused(path, root, VerificationError, "layer 1/1 .*diff_id is sha256:.*not sha256:000")


def test_a_diff_id_that_no_layer_has(path: Path, root: Path) -> None:
    diff_ids = [build.digest(build.tar(BASE))] * 2
    archive(path, [BASE, TOP], diff_ids=diff_ids)
    refused(path, root, VerificationError, "layer 2/2 .*diff_id")


def test_what_follows_the_end_marker_counts_for_the_diff_id(path: Path, root: Path) -> None:
    tar = build.tar(BASE) + b"trailing bytes" * 100_000
    for compression in ("none", "gzip", "zstd"):
        extract(archive(path, [Layer(tar, compression)]), root, replace_anything=True)
    right = build.digest(build.tar(BASE))
    refused(
        archive(path, [Layer(tar, "gzip")], diff_ids=[right]),
        root.with_name("r2"),
        VerificationError,
        "diff_id",
    )


def test_padding_behind_gzip_counts_for_the_digest(path: Path, root: Path) -> None:
    layer = Layer(BASE, "gzip")
    extract(archive(path, [Layer(BASE, "gzip", blob=layer.packed() + bytes(700_000))]), root)
    assert content(root) == {"a": b"base", "b": b"base"}


# The order of the layers: matched by content.


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_order_of_the_diff_ids_is_followed(path: Path, root: Path, compression: Any) -> None:
    third = [Member(b"d", data=b"third")]
    layers = [Layer(m, compression) for m in (TOP, third, BASE)]
    diff_ids = [build.digest(build.tar(m)) for m in (BASE, TOP, third)]
    archive(path, layers, diff_ids=diff_ids)
    report = extract(path, root)
    assert content(root) == {"a": b"top", "c": b"top", "d": b"third"}
    assert [layer.diff_id for layer in report.layers] == diff_ids
    assert besides_owners(w.code for w in report.warnings) == ["layer-order"]
    assert [w.code for w in report.warnings if w.breach] == ["layer-order"]
    refused(path, root.with_name("r2"), MalformedImage, "another order", strict=True)


def test_an_order_in_which_nothing_fits_is_put_right(path: Path, root: Path) -> None:
    """A hard link before its target in the wrong order is not an error of the image."""
    layers = [[Member(b"l", "link", target=b"f")], [Member(b"f", data=b"1")]]
    diff_ids = [build.digest(build.tar(layer)) for layer in layers[::-1]]
    report = extract(archive(path, layers, diff_ids=diff_ids), root)
    assert content(root) == {"f": b"1", "l": b"1"}
    assert besides_owners(w.code for w in report.warnings) == ["layer-order"]
    refused(archive(path, layers), root.with_name("r2"), MalformedImage, "which does not exist")


# Limits.


def test_directories_in_each_other_are_bounded(path: Path, root: Path) -> None:
    archive(path, [[Member(b"a/" * 3000 + b"b")]])
    extract(path, root)
    # pytest's own clean-up recurses, and fails at such a depth.
    subprocess.run(["rm", "-r", root], check=True)
    archive(
        path,
        [
            [Member(b"a/" * 3000 + b"l", "symlink", target=b"x/" * 2000)],
            [Member(b"a/" * 3000 + b"l/b")],
        ],
    )
    refused(path, root.with_name("r2"), LimitExceeded, "directory nesting depth.*--max-depth")


def test_a_target_is_bounded(path: Path, root: Path) -> None:
    archive(path, [[Member(b"l", "symlink", target=b"x" * 4096)]])
    refused(path, root, MalformedImage, "4096 bytes")


@pytest.mark.parametrize("name", ["x" * 255, "é" * 120])
def test_a_destination_with_a_long_name(path: Path, tmp_path: Path, name: str) -> None:
    extract(archive(path, [BASE]), tmp_path / name)
    assert content(tmp_path / name) == {"a": b"base", "b": b"base"}


# Compression.


def test_another_compression_than_declared_is_a_warning(path: Path, root: Path) -> None:
    layer = Layer(BASE, "zstd", media_type=build.LAYER_TYPES["gzip"])
    report = extract(archive(path, [layer]), root)
    assert besides_owners(w.code for w in report.warnings) == ["compression"]
    assert [w.code for w in report.warnings if w.breach] == ["compression"]
    assert report.layers[0].compression == "zstd"
    refused(path, root.with_name("r2"), MalformedImage, "differs from its media type", strict=True)


def test_unknown_compression(path: Path, root: Path) -> None:
    layer = Layer(BASE, "gzip", blob=b"BZh91AY&SY....")
    refused(archive(path, [layer]), root, Unsupported, "layer 1/1 .*bzip2")


def test_broken_compression_with_the_right_digest(path: Path, root: Path) -> None:
    layer = Layer(BASE, "gzip", blob=gzip.compress(b"x" * 5000)[:-9])
    refused(archive(path, [layer]), root, MalformedImage, "layer 1/1 .*truncated")


# Messages.


def test_a_message_names_file_layer_and_member(path: Path, root: Path) -> None:
    archive(path, [BASE, [Member(b"ok"), Member(b"dir/link", "link", target=b"nowhere")]])
    with pytest.raises(MalformedImage) as caught:
        extract(path, root)
    error = caught.value
    digest = ociroot.open(path).image().layers[1].digest
    assert str(error) == (
        f"{path}, layer 2/2 {digest}, dir/link, offset 512: "
        "a hard link to nowhere, which does not exist"
    )


def test_a_destination_that_holds_something(path: Path, root: Path) -> None:
    archive(path, [BASE])
    root.mkdir()
    (root / "mine").touch()
    with pytest.raises(DestinationError, match=f"{root}: .*not empty.*--replace"):
        extract(path, root)
    assert [p.name for p in root.iterdir()] == ["mine"]
    extract(path, root, replace_anything=True)
    assert content(root) == {"a": b"base", "b": b"base"}
    assert sorted(p.name for p in root.parent.iterdir()) == ["image.tar", "root"]


@pytest.mark.parametrize("where", ["file", "absent/root"])
def test_a_destination_that_cannot_be(path: Path, tmp_path: Path, where: str) -> None:
    archive(path, [BASE])
    (tmp_path / "file").touch()
    for replace in (False, True):
        with pytest.raises(DestinationError, match=r"not a directory|parent directory"):
            extract(path, tmp_path / where, replace=replace)


# The API of an image.


def test_progress(path: Path, root: Path) -> None:
    layers = [Layer([Member(b"x", data=os.urandom(3_000_000))], "gzip"), Layer(TOP)]
    seen: list[Progress] = []
    extract(archive(path, layers), root, progress=seen.append)
    total = sum(len(layer.packed()) for layer in layers)
    assert {p.total for p in seen} == {total}
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].layer, seen[-1].layers) == (total, 2, 2)
    assert len(seen) > 4


def test_an_exception_in_the_callback_leaves_nothing(path: Path, root: Path) -> None:
    def stop(progress: Progress) -> None:
        raise ZeroDivisionError

    archive(path, [Layer([Member(b"x", data=os.urandom(50_000_000))], "gzip")])
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        extract(path, root, progress=stop)
    assert [p.name for p in root.parent.iterdir()] == ["image.tar"]
    assert threading.active_count() == threads


def test_the_entries_of_a_layer(path: Path) -> None:
    archive(path, [BASE, Layer(TOP, "zstd")])
    with ociroot.open(path) as source:
        entries = list(source.image().layers[1].entries())
    assert [entry.name for entry in entries] == [b".wh.b", b"a", b"c"]
    assert entries[1].size == 3


def test_entries_that_are_not_read_to_the_end_stop_their_threads(path: Path) -> None:
    archive(path, [Layer([Member(b"%d" % n, data=bytes(10**6)) for n in range(50)], "gzip")])
    threads = threading.active_count()
    with ociroot.open(path) as source:
        entries = source.image().layers[0].entries()
        next(entries)
        entries.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_the_merged_tree(path: Path) -> None:
    archive(path, [BASE, [Member(b"dir/l", "symlink", target=b"../a"), Member(b".wh.b")]])
    with ociroot.open(path) as source:
        tree = source.image().tree()
    found = {parent.path_of(name): node.kind for parent, name, node in tree.root.walk()}
    assert found == {b"a": "file", b"dir": "dir", b"dir/l": "symlink"}


def test_the_interpreter_is_left_as_it_was(path: Path, root: Path) -> None:
    import gc
    import sys

    before = (sys.getswitchinterval(), gc.isenabled(), os.umask(0o22))
    os.umask(before[2])
    extract(archive(path, [BASE]), root)
    assert (sys.getswitchinterval(), gc.isenabled(), os.umask(before[2])) == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(path: Path, root: Path, umask: int) -> None:
    modes = [0o777, 0o666, 0o4755, 0o2755, 0o1777, 0o600, 0o000]
    members = [Member(b"f%o" % m, mode=m) for m in modes] + [
        Member(b"d%o" % m, "dir", mode=m) for m in modes
    ]
    archive(path, [[*members, Member(b"p", "fifo", mode=0o666)]])
    before = os.umask(umask)
    try:
        extract(path, root)
    finally:
        os.umask(before)
    for entry in root.iterdir():
        mode = 0o666 if entry.name == "p" else int(entry.name[1:], 8)
        assert entry.lstat().st_mode & 0o7777 == mode, entry.name


def test_a_file_larger_than_its_chunks(path: Path, root: Path) -> None:
    data = os.urandom(5_000_001)
    for compression in ("none", "gzip", "zstd"):
        extract(
            archive(path, [Layer([Member(b"x", data=data)], compression)]),
            root,
            replace_anything=True,
        )
        assert (root / "x").read_bytes() == data


def test_a_sparse_file_keeps_its_holes(path: Path, root: Path) -> None:
    records = {
        b"GNU.sparse.size": b"100000000",
        b"GNU.sparse.map": b"4096,4,50000000,4",
        b"GNU.sparse.name": b"sparse",
    }
    extract(
        archive(path, [[Member(b"GNUSparseFile.0/sparse", data=b"headtail", pax=records)]]), root
    )
    status = (root / "sparse").stat()
    assert status.st_size == 100_000_000
    assert status.st_blocks * 512 < 1_000_000
    with (root / "sparse").open("rb") as file:
        assert os.pread(file.fileno(), 6, 4095) == b"\0head\0"
        assert os.pread(file.fileno(), 6, 49_999_999) == b"\0tail\0"


def test_few_handles_serve_a_wide_and_deep_tree(path: Path, root: Path) -> None:
    members = [Member(b"/".join([b"d%d" % (n % 7)] * (n % 60 + 1)) + b"/f") for n in range(500)]
    extract(archive(path, [members, [Member(b".wh.d3"), Member(b"d4/.wh..wh..opq")]]), root)
    assert not (root / "d3").exists()
    assert list((root / "d4").iterdir()) == []
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) < 50
