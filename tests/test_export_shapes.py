"""cpio and squashfs hold the tree that extraction makes, but for the table of losses.

The table is ``tests/support/shapes.py``; docs/shapes.md shows it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ociroot
from ociroot import ExportOptions, ExtractOptions

from .support.build import Layer, Member, archive, directory, file, link, seconds, symlink
from .support.needs import need_tools
from .support.real import RealImage, run
from .support.real import debian as debian
from .support.real import debian_by_umoci as debian_by_umoci
from .support.real import history_by_umoci as history_by_umoci
from .support.real import workshop as workshop
from .support.shapes import (
    LOSSES,
    PROGRAM_LOSSES,
    UNPACKERS,
    held,
    mounted_squashfs,
    unexplained,
    unpack,
)
from .support.snapshot import Snapshot, differences, snapshot
from .support.strategies import Stack, blobs, dense_stacks, good_stacks
from .support.user import workshop as place_for_trees
from .test_attacks import NAMES, PAYLOADS, WAYS
from .test_export_readers import RICH, SHAPES

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("OCIROOT_EXAMPLES", "300")) // 10
SETTINGS = settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
FORMATS = {"cpio": (), "squashfs": ("tar2sqfs",)}

#: The image again: its layers hold all that extraction makes of it.
IMAGES: tuple[dict[str, Any], ...] = (
    {"format": "oci"},
    {"format": "docker-archive"},
    {"format": "oci-archive", "squash": True},
)


def check(layers: Sequence[Layer | list[Member]], place: Path) -> None:
    """Compare what the programs unpack with what extraction makes of an image."""
    need_tools("tar2sqfs")
    image = archive(place / "image", layers)
    with ociroot.open(image) as source:
        try:
            extraction = source.image().extract(place / "rootfs")
        except ociroot.MalformedImage:
            for name in FORMATS:
                with pytest.raises(ociroot.MalformedImage):
                    source.image().export(place / f"out.{name}")
            return
        wanted = snapshot(place / "rootfs")
        for name in FORMATS:
            report = source.image().export(place / f"out.{name}")
            tree, losses = held(name, wanted)
            counted = {warning.code for warning in report.warnings}
            assert counted == losses | {warning.code for warning in extraction.warnings}
            for program, (format_, _) in UNPACKERS.items():
                if format_ == name:
                    found = unpack(program, place / f"out.{name}", place / program)
                    assert unexplained(program, tree, found) == [], program
    for number, options in enumerate(IMAGES):
        made, root = place / f"image-{number}", place / f"rootfs-{number}"
        with ociroot.open(image) as source:
            source.image().export(made, ExportOptions(**options))
        with ociroot.open(made) as source:
            source.image().extract(root)
        assert differences(wanted, snapshot(root)) == [], options


@SETTINGS
@given(st.data(), st.one_of(good_stacks, dense_stacks))
def test_random_stacks(data: st.DataObject, stack: Stack) -> None:
    layers = data.draw(blobs(stack))
    with place_for_trees() as place:
        check(layers, place)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_attack_corpus(payload: str) -> None:
    for links in list(WAYS.values())[::3]:
        with place_for_trees() as place:
            check([links(b"/watched"), PAYLOADS[payload](b"way")], place)
    for name in NAMES.values():
        with place_for_trees() as place:
            check([[member] for member in PAYLOADS[payload](name)], place)


ACL = bytes.fromhex(
    "0200000001000600ffffffff02000700a086010004000500ffffffff10000700ffffffff20000400ffffffff"
)
EVERYTHING: list[Member] = [
    directory(b"./", mode=0o711, uid=70_000, gid=3, mtime=1_000_000, xattrs={b"user.root": b"r"}),
    directory(b"d", mode=0o1777, uid=2**32 - 2, gid=2**32 - 2, mtime=-5),
    file(b"d/a", b"a" * 5000, mode=0o4755, mtime=seconds(1_500_000_000_123_456_789)),
    link(b"d/b", b"d/a"),
    link(b"0", b"d/a"),
    file(b"late", b"late", mtime=2**33),
    file(b"last-second", b"", mtime=2**32 - 1),
    file(b"empty"),
    link(b"empty-too", b"empty"),
    file(b"acl", b"", mode=0o674, xattrs={b"system.posix_acl_access": ACL}),
    file(
        b"caps",
        b"#!",
        xattrs={b"security.capability": bytes.fromhex("0100000200200000" + "00" * 12)},
    ),
    file(b"trusted", b"t", xattrs={b"trusted.t": b"\0\n", b"user.u": b"v" * 2000}),
    symlink(b"s", b"x" * 4095),
    symlink(b"s2", b"d/a", uid=5),
    link(b"s3", b"s2"),
    Member(b"null", "char", rdev=(1, 3), mode=0o666),
    link(b"null-too", b"null"),
    Member(b"disk", "block", rdev=(259, 70_000)),
    Member(b"fifo", "fifo"),
    file(b"TRAILER!!!", b"not the end"),
    file(b"\xff\xfe", b"no UTF-8"),
    file(b"new\nline", b"n"),
    file(b"n" * 255, b"long"),
]


def test_everything(tmp_path: Path) -> None:
    check([EVERYTHING], tmp_path)
    with ociroot.open(tmp_path / "image") as source:
        for name in FORMATS:
            counts = {
                warning.code: warning.count
                for warning in source.image()
                .export(tmp_path / "again", ExportOptions(format=name, force=True))
                .warnings
            }
            wanted = {"acls": 1, "times": 2, "nanoseconds": 1}
            if name == "cpio":
                wanted["xattrs-unsupported"] = 3
            assert counts == wanted, "each inode once, whatever its names"


@pytest.mark.parametrize("program", UNPACKERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_format_is_shaped_as_a_directory_is(tmp_path: Path, shape: str, program: str) -> None:
    need_tools("tar2sqfs")
    format_, chosen = UNPACKERS[program][0], SHAPES[shape]
    with ociroot.open(archive(tmp_path / "image", RICH)) as source:
        extraction = source.image().extract(tmp_path / "rootfs", ExtractOptions(**chosen))
        options = ExportOptions(format=format_, **chosen)
        report = source.image().export(tmp_path / "out", options)
    wanted, losses = held(format_, snapshot(tmp_path / "rootfs"))
    codes = {warning.code for warning in extraction.warnings}
    assert {warning.code for warning in report.warnings} == losses | codes
    if (acl := wanted.get(b"usr/acl")) is not None:  # whose group has what the ACL gave it
        wanted[b"usr/acl"] = replace(acl, mode=0o644)
    found = unpack(program, tmp_path / "out", tmp_path / "by")
    assert unexplained(program, wanted, found) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_of_squash_is_shaped_as_a_directory_is(tmp_path: Path, shape: str) -> None:
    chosen = SHAPES[shape]
    with ociroot.open(archive(tmp_path / "image", RICH)) as source:
        extraction = source.image().extract(tmp_path / "rootfs", ExtractOptions(**chosen))
        options = ExportOptions(format="oci-archive", squash=True, **chosen)
        report = source.image().export(tmp_path / "out", options)
    assert report.warnings == extraction.warnings
    with ociroot.open(tmp_path / "out") as source:
        source.image().extract(tmp_path / "again")
    assert differences(snapshot(tmp_path / "rootfs"), snapshot(tmp_path / "again")) == []


@pytest.mark.parametrize("program", [*UNPACKERS, None])
def test_later_times_are_clamped(tmp_path: Path, program: str | None) -> None:
    """In cpio, in squashfs, and in the layer of an image."""
    need_tools("tar2sqfs")
    newest = 1_000
    layer = [
        directory(b"./", mtime=newest + 1),
        file(b"early", mtime=newest - 1),
        file(b"late", mtime=newest + 1),
    ]
    form: dict[str, Any] = {"format": "oci-archive", "squash": True}
    if program is not None:
        form = {"format": UNPACKERS[program][0]}
    with ociroot.open(archive(tmp_path / "image", [layer])) as source:
        source.image().extract(tmp_path / "rootfs")
        source.image().export(tmp_path / "out", ExportOptions(newest=newest, **form))
    wanted = {
        path: replace(record, mtime_ns=min(record.mtime_ns, newest * 10**9))
        for path, record in snapshot(tmp_path / "rootfs").items()
    }
    if program is not None:
        found = unpack(program, tmp_path / "out", tmp_path / "by")
        assert unexplained(program, wanted, found) == []
        return
    with ociroot.open(tmp_path / "out") as source:
        source.image().extract(tmp_path / "again")
    assert differences(wanted, snapshot(tmp_path / "again")) == []


def test_the_tables_of_losses_are_in_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs/shapes.md").read_text()
    for loss in LOSSES:
        assert f"| {loss.format} | {loss.what} |" in text
    for other in PROGRAM_LOSSES:
        assert f"| {other.program} | {other.what} |" in text


def test_the_kernel_shows_the_squashfs(tmp_path: Path) -> None:
    need_tools("tar2sqfs")
    image = archive(tmp_path / "image", [EVERYTHING])
    with ociroot.open(image) as source:
        source.image().extract(tmp_path / "rootfs")
        source.image().export(tmp_path / "out.sqfs")
    wanted, _ = held("squashfs", snapshot(tmp_path / "rootfs"))
    found = mounted_squashfs(tmp_path / "out.sqfs", tmp_path / "mounted")
    assert differences(wanted, found) == []


# -- real images ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(history_by_umoci: RealImage) -> tuple[Path, Snapshot]:
    """Debian's image of ten layers, and its tree."""
    image = history_by_umoci.archives["gzip"]
    root = image.with_suffix(".shapes.rootfs")
    with ociroot.open(image) as source:
        source.image().extract(root)
    return image, snapshot(root)


@functools.cache
def _export(image: Path, to: Path) -> None:
    run(sys.executable, "-m", "ociroot", "export", image, to)


@pytest.mark.slow
@pytest.mark.parametrize("program", UNPACKERS)
def test_debians_ten_layers(program: str, history: tuple[Path, Snapshot]) -> None:
    need_tools("tar2sqfs")
    image, tree = history
    name = UNPACKERS[program][0]
    out = image.with_suffix(f".{name}")
    _export(image, out)
    wanted, _ = held(name, tree)
    assert len(wanted) > 1000
    found = unpack(program, out, out.parent / f"shapes-{program}")
    assert unexplained(program, wanted, found) == []


@pytest.mark.slow
def test_debians_ten_layers_mounted(history: tuple[Path, Snapshot]) -> None:
    need_tools("tar2sqfs")
    image, tree = history
    out = image.with_suffix(".squashfs")
    _export(image, out)
    found = mounted_squashfs(out, out.parent / "shapes-mounted")
    assert differences(held("squashfs", tree)[0], found) == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--squash"], ["--recompress", "gzip:1"]])
def test_debians_ten_layers_as_an_image(options: list[str], history: tuple[Path, Snapshot]) -> None:
    """By ourselves and, where one layer is all that it has to get right, by umoci as well."""
    image, tree = history
    out = image.with_suffix(".again.oci")
    run(sys.executable, "-m", "ociroot", "export", "--format", "oci", *options, image, out)
    root = image.with_suffix(".again.rootfs")
    with ociroot.open(out) as source:
        made = source.image()
        made.extract(root)
    assert differences(tree, snapshot(root)) == []
    run("skopeo", "copy", "--quiet", f"oci:{out}", f"oci:{image.with_suffix('.copied')}:latest")
    if options == ["--squash"]:
        bundle = image.with_suffix(".again.bundle")
        run("umoci", "unpack", "--image", f"{out}:{made.names[-1]}", bundle)
        assert differences(tree, snapshot(bundle / "rootfs")) == []
        shutil.rmtree(bundle)
    for path in (out, root, image.with_suffix(".copied")):
        shutil.rmtree(path)


@pytest.mark.slow
def test_every_compression_of_the_layers_gives_the_same_bytes(
    history: tuple[Path, Snapshot], history_by_umoci: RealImage
) -> None:
    need_tools("tar2sqfs")
    for name in FORMATS:
        outputs = set()
        for image in history_by_umoci.archives.values():
            out = image.with_suffix(f".same.{name}")
            _export(image, out)
            outputs.add(subprocess.check_output(["sha256sum", out])[:64])
            out.unlink()
        assert len(outputs) == 1
