"""An exported archive, unpacked by GNU tar and bsdtar, is the tree that extraction makes.

What differs is in the table of losses (``tests/support/losses.py``), which docs/shapes.md shows.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
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
from ociroot import ExportOptions, ExtractOptions, OutputPolicy, OwnerMap, PathFilter

from .support import oddities
from .support.build import Layer, Member, archive, directory, file, link, symlink
from .support.losses import LOSSES, UNPACKERS, unexplained, unpack
from .support.needs import need_tools
from .support.real import RealImage, podman_in, run
from .support.real import debian as debian
from .support.real import debian_by_umoci as debian_by_umoci
from .support.real import history_by_umoci as history_by_umoci
from .support.real import workshop as workshop
from .support.snapshot import Snapshot, differences, snapshot
from .support.strategies import Stack, blobs, dense_stacks, good_stacks
from .support.user import workshop as place_for_trees
from .test_attacks import NAMES, PAYLOADS, WAYS

pytestmark = pytest.mark.root

ANY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *each)
    for each in [(1, 6, ANY), (2, 5, 7), (4, 4, ANY), (8, 1, 9), (16, 7, ANY), (32, 4, ANY)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
EXAMPLES = int(os.environ.get("OCIROOT_EXAMPLES", "300")) // 6
SETTINGS = settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)


def check(layers: Sequence[Layer | list[Member]], place: Path, programs: Any = UNPACKERS) -> None:
    """Compare what the programs unpack with what extraction makes of an image."""
    image = archive(place / "image", layers)
    with ociroot.open(str(image)) as source:
        try:
            extraction = source.image().extract(place / "rootfs")
        except ociroot.MalformedImage:
            with pytest.raises(ociroot.MalformedImage):
                source.image().export(place / "out.tar")
            return
        wanted = snapshot(place / "rootfs")
        report = source.image().export(place / "out.tar")
    assert report.warnings == extraction.warnings
    for number, program in enumerate(programs):
        found = unpack(program, place / "out.tar", place / f"by-{number}")
        assert unexplained(program, wanted, found) == [], program
    # And an image of the archive alone is the same image.
    with ociroot.open(str(archive(place / "flat", [(place / "out.tar").read_bytes()]))) as source:
        source.image().extract(place / "again")
        again = source.image().export(place / "again.tar")
    assert again.warnings == ()
    assert differences(wanted, snapshot(place / "again")) == []
    assert (place / "again.tar").read_bytes() == (place / "out.tar").read_bytes()


@SETTINGS
@given(st.data(), st.one_of(good_stacks, dense_stacks))
def test_random_stacks(data: st.DataObject, stack: Stack) -> None:
    layers = data.draw(blobs(stack))
    with place_for_trees() as place:
        check(layers, place)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_attack_corpus(payload: str) -> None:
    for links in WAYS.values():
        with place_for_trees() as place:
            deed = PAYLOADS[payload](b"way")
            check([links(b"/watched"), deed], place)
    for name in NAMES.values():
        with place_for_trees() as place:
            check([*[[member] for member in PAYLOADS[payload](name)]], place)


RICH = [
    [
        directory(b"usr/share/doc/x", uid=7),
        file(b"usr/share/doc/x/README", b"doc", uid=7, gid=8),
        file(b"usr/bin/su", b"su", mode=0o4755, uid=0, gid=0),
        link(b"usr/bin/su2", b"usr/bin/su"),
        Member(b"dev/null", "char", rdev=(1, 3), mode=0o666),
        file(b"usr/bin/ping", b"p", uid=5, xattrs={b"security.capability": CAPABILITY}),
        file(b"usr/acl", uid=9, xattrs={b"system.posix_acl_access": ACL, b"user.a": b"1"}),
        symlink(b"bin", b"usr/bin"),
    ],
    [file(b"bin/late", b"late", uid=70_000)],
]
SHAPES: dict[str, dict[str, Any]] = {
    "mapped": {"policy": OutputPolicy(owners=OwnerMap.parse("0:100000:90000", "0:200000:65536"))},
    "squashed": {
        "policy": OutputPolicy(owners=OwnerMap.parse("0:100000:6", "0:200000:6", "65534:65534"))
    },
    "of one owner": {"policy": OutputPolicy(owner=(0, 0))},
    "without devices": {"policy": OutputPolicy(devices="skip")},
    "without attributes": {"policy": OutputPolicy(xattrs=())},
    "a subtree": {"filter": PathFilter(subtree=b"/bin")},
    "without docs": {"filter": PathFilter(excludes=[b"/usr/share/doc/*", b"su"])},
    "only binaries": {"filter": PathFilter(includes=[b"/usr/bin"])},
}


@pytest.mark.parametrize("order", ["tree", "layers"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_archive_is_shaped_as_a_directory_is(tmp_path: Path, shape: str, order: Any) -> None:
    image = archive(tmp_path / "image.tar", RICH)
    chosen = SHAPES[shape]
    with ociroot.open(str(image)) as source:
        extraction = source.image().extract(tmp_path / "rootfs", ExtractOptions(**chosen))
        options = ExportOptions(order=order, **chosen)
        report = source.image().export(tmp_path / "out.tar", options)
    assert report.warnings == extraction.warnings
    wanted = snapshot(tmp_path / "rootfs")
    program = "GNU tar, with the options of Proxmox VE"
    found = unpack(program, tmp_path / "out.tar", tmp_path / "tar")
    if order == "layers":  # from which GNU tar does not restore the times of directories
        wanted, found = ({p: replace(r, mtime_ns=0) for p, r in t.items()} for t in (wanted, found))
    assert unexplained(program, wanted, found) == []


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (OutputPolicy(devices="error"), "dev/null: it is a device"),
        (OutputPolicy(owners=OwnerMap.parse("0:1:100", "0:1:100")), "bin/late: .*70000"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
    tmp_path: Path, policy: OutputPolicy, message: str
) -> None:
    out = io.BytesIO()
    # More than is gathered before it is written.
    layers = [[file(b"a", bytes(3 << 20))], *RICH]
    with ociroot.open(str(archive(tmp_path / "image.tar", layers))) as source:
        with pytest.raises(ociroot.Unsupported, match=message):
            source.image().export(out, ExportOptions(policy=policy))
        with pytest.raises(ociroot.OcirootError, match="there is no /nowhere"):
            source.image().export(out, ExportOptions(filter=PathFilter(subtree=b"/nowhere")))
    assert out.getvalue() == b""


def test_oddities() -> None:
    """What umoci and tar are tried with, as layers that GNU tar writes."""
    need_tools("tar", "setfacl")
    with place_for_trees() as place:
        tree = place / "tree"
        tree.mkdir()
        (tree / "etc").mkdir()
        (tree / "etc/debian_version").write_text("13.0\n")
        oddities.add_oddities(tree)
        subprocess.run(["setfacl", "-R", "-m", "u:1:rx,g:70000:r,m::rwx", tree / "srv"], check=True)
        options = ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
        made = subprocess.run(
            ["tar", *options, "-C", tree, "-cf", "-", "."], check=True, capture_output=True
        ).stdout
        check([Layer(made, "gzip")], place)


def test_the_table_of_losses_is_in_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs/shapes.md").read_text()
    for loss in LOSSES:
        assert f"| {loss.program} | {loss.what} |" in text


# -- real images, and those for whom an archive is ------------------------------------------------


@functools.cache
def _export(image: Path, to: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ociroot", "export", "--json", *options]
    report: dict[str, Any] = json.loads(run(*command, image, to))
    return report


@pytest.fixture(scope="module")
def history(history_by_umoci: RealImage) -> tuple[Path, Snapshot]:
    """The archive of Debian's image of ten layers, and its tree."""
    image = history_by_umoci.archives["gzip"]
    out, root = image.with_suffix(".exported.tar"), image.with_suffix(".exported.rootfs")
    _export(image, out)
    with ociroot.open(str(image)) as source:
        source.image().extract(root)
    return out, snapshot(root)


@pytest.mark.slow
@pytest.mark.parametrize("program", UNPACKERS)
def test_debians_ten_layers(program: str, history: tuple[Path, Snapshot], tmp_path: Path) -> None:
    out, wanted = history
    assert len(wanted) > 1000
    found = unpack(program, out, tmp_path / "tree")
    assert unexplained(program, wanted, found) == []


@pytest.mark.slow
def test_every_compression_of_the_layers_gives_the_same_bytes(
    history: tuple[Path, Snapshot], history_by_umoci: RealImage
) -> None:
    out, _ = history
    wanted = out.read_bytes()
    for name, image in history_by_umoci.archives.items():
        other = out.with_name(f"{name}.again.tar")
        _export(image, other)
        assert other.read_bytes() == wanted
        other.unlink()


@pytest.mark.slow
def test_podman_imports_it(history: tuple[Path, Snapshot], workshop: Path) -> None:
    out, wanted = history
    podman = podman_in(workshop)
    image = podman("import", "--quiet", str(out))
    try:
        found = snapshot(Path(podman("image", "mount", image)))
    finally:
        podman("image", "umount", "--force", image)
        podman("rmi", "--force", image)
    assert unexplained("podman import", wanted, found) == []
