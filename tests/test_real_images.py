"""Images made by mmdebstrap, umoci, buildah and skopeo: our tree is that of umoci and podman."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ociroot

from .support.needs import need_tools
from .support.real import COMPRESSIONS, RealImage, run
from .support.real import debian as debian
from .support.real import debian_by_buildah as debian_by_buildah
from .support.real import debian_by_umoci as debian_by_umoci
from .support.real import history_by_buildah as history_by_buildah
from .support.real import history_by_umoci as history_by_umoci
from .support.real import workshop as workshop
from .support.snapshot import Snapshot, differences, snapshot

pytestmark = [pytest.mark.root, pytest.mark.slow]

IMAGES = ("debian_by_umoci", "debian_by_buildah", "history_by_umoci", "history_by_buildah")


class Fault(NamedTuple):
    """A difference of an oracle from the specification: on these paths, in this attribute."""

    oracle: str
    images: str
    paths: str
    attribute: str
    reason: str


BELOW_A_NEW_LINK = (
    "The layer replaces a directory by a link: its entries are the link and then "
    "directory-to-link/.wh.inside. The oracle follows the new link and removes the target's file. "
    "layer.md, Whiteouts: 'Whiteout files MUST only apply to resources in lower/parent layers', "
    "where directory-to-link was a directory of its own."
)
FAULTS = (
    Fault("umoci", "history_by_umoci", "srv/swap/target/inside", "missing", BELOW_A_NEW_LINK),
    Fault("podman", "history_by_umoci", "srv/swap/target/inside", "missing", BELOW_A_NEW_LINK),
    Fault("podman", "history_by_umoci", "srv/swap/target", "mtime_ns", BELOW_A_NEW_LINK),
    Fault(
        "podman",
        "debian_by_buildah|history_by_buildah",
        r"\.",
        "mode",
        "The layers have no entry for the root. manifest.md, layers: 'The ownership, mode, and "
        "other attributes of the initial empty directory are unspecified.'",
    ),
    Fault(
        "podman",
        ".*",
        r"\.",
        "mtime_ns",
        "It does not restore the root's mtime. layer.md, File Attributes: 'Where supported, MUST "
        "include file attributes for Additions and Modifications include: Modification Time'; "
        "where there is no entry for the root they are unspecified, as above.",
    ),
    Fault(
        "podman",
        "history_by_umoci",
        r"etc|srv|usr/lib|srv/odd/links/sub|srv/untouched",
        "mtime_ns",
        "A later layer changes something in the directory and has no entry for the directory. "
        "layer.md, Representing Changes: the changeset contains 'Added and modified files and "
        "directories in their entirety', so a directory without an entry is not modified.",
    ),
    Fault(
        "podman",
        "history_by_umoci",
        r"srv/by-(tar|gnu|bsdtar)/before-1970",
        "mtime_ns",
        "It sets 1970 where the mtime lies before. layer.md, File Attributes: 'MUST include … "
        "Modification Time (mtime)'.",
    ),
    Fault(
        "podman",
        "history_by_umoci",
        r"srv/odd/(acl|acl-directory|acl-directory/inherited|user-xattr-directory)",
        "xattrs",
        "It restores neither POSIX ACLs nor trusted.*. layer.md, File Attributes: 'MUST include … "
        "Extended Attributes (xattrs)'.",
    ),
    Fault(
        "podman",
        "history_by_umoci|history_by_buildah",
        r"srv/odd/(fifo|links/fifo|symlink-dangling|links/symlink)",
        "links",
        "The vfs driver copies the lower layer's tree without the links between them. layer.md, "
        "Hardlinks: 'Hardlinks are possible with all file types except directories.'",
    ),
    Fault(
        "podman",
        "history_by_umoci|history_by_buildah",
        r"srv/swap/attributes",
        "xattrs",
        "An attribute that only the lower layer has survives. layer.md, Changeset over existing "
        "files: 'If the entry and the existing path are both directories, then the existing "
        "path's attributes MUST be replaced by those of the entry in the changeset.'",
    ),
)


@pytest.fixture(scope="session")
def extracted(workshop: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return a function that extracts an image once per session: its root and its report."""
    done: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}

    def extract(name: str, compression: str) -> tuple[Path, dict[str, Any]]:
        if (name, compression) not in done:
            image: RealImage = request.getfixturevalue(name)
            root = workshop / "extracted" / f"{name}.{compression}"
            root.parent.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "ociroot", "extract", "--json"]
            report = run(*command, image.archives[compression], root)
            done[name, compression] = root, json.loads(report)
        return done[name, compression]

    yield extract
    shutil.rmtree(workshop / "extracted", ignore_errors=True)


@pytest.fixture(scope="session")
def tree(extracted: Any) -> Any:
    """Return a function that returns the extracted tree."""
    done: dict[str, Snapshot] = {}

    def get(name: str) -> Snapshot:
        if name not in done:
            done[name] = snapshot(extracted(name, "gzip")[0])
        return done[name]

    return get


@pytest.mark.parametrize("oracle", ["umoci", "podman"])
@pytest.mark.parametrize("name", IMAGES)
def test_the_tree_is_the_oracles(
    name: str, oracle: str, tree: Any, request: pytest.FixtureRequest
) -> None:
    ours = tree(name)
    theirs: Snapshot = getattr(request.getfixturevalue(name), f"by_{oracle}")

    def excused(path: bytes, attribute: str) -> bool:
        return any(
            (fault.oracle, fault.attribute) == (oracle, attribute)
            and re.fullmatch(fault.images, name)
            and re.fullmatch(os.fsencode(fault.paths), path)
            for fault in FAULTS
        )

    assert len(ours) > 1000
    assert differences(ours, theirs, excused) == []


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        (n, c)
        for n in IMAGES
        for c in COMPRESSIONS
        if c != "gzip" and not (c == "none" and "umoci" in n)
    ],
)
def test_every_compression_gives_the_same_tree(
    name: str, compression: str, extracted: Any, tree: Any
) -> None:
    root, report = extracted(name, compression)
    assert {layer["compression"] for layer in report["layers"]} == {compression}
    assert report["warnings"] == []
    assert differences(snapshot(root), tree(name)) == []


def test_umoci_and_buildah_pack_the_same_tree(tree: Any) -> None:
    # umoci records the root, buildah does not.
    assert not differences(
        tree("debian_by_umoci"),
        tree("debian_by_buildah"),
        lambda path, attribute: (path, attribute) == (b".", "mtime_ns"),
    )


def test_the_tree_holds_what_the_images_were_made_for(tree: Any) -> None:
    """Guard against tools that silently stop recording what is compared."""
    umoci, buildah = tree("history_by_umoci"), tree("history_by_buildah")
    for ours in (umoci, buildah):
        assert ours[b"srv/odd/set-uid"].mode == 0o4755
        assert ours[b"srv/odd/set-uid-of-another"].mode == 0o6711
        assert ours[b"srv/odd/big-owner"].uid == 3_000_000_000
        assert b"security.capability" in ours[b"srv/odd/capable"].xattrs
        assert b"security.capability" in ours[b"srv/odd/capable-set-uid"].xattrs
        assert ours[b"srv/odd/user-xattr"].xattrs[b"user.binary"] == bytes(range(256))
        assert len(ours[b"srv/odd/links/capable"].links) == 2
        assert len(ours[b"srv/odd/fifo"].links) == 2
        assert ours[b"srv/odd/devices/null"].rdev == (1, 3)
        assert ours[b"srv/odd/devices/disk"].rdev == (259, 1_000_000)
        assert ours[b"srv/odd/names/latin-1-\xe9\xff"].kind == "file"
        assert ours[b"srv/odd/times/far-future"].mtime_ns > 2**33 * 10**9
        assert ours[b"srv/swap/directory-to-link"].kind == "symlink"
        assert ours[b"srv/swap/link-to-directory"].kind == "dir"
        assert ours[b"srv/swap/target/inside"].kind == "file"
        assert ours[b"srv/swap/linked-a"].links == (b"srv/swap/linked-a",)
        assert ours[b"srv/swap/attributes"].xattrs == {b"user.new": b"new"}
        assert b"srv/gone" not in ours
    assert b"system.posix_acl_default" in umoci[b"srv/odd/acl-directory"].xattrs
    assert {path for path in umoci if path.startswith(b"srv/made-again/")} == {
        b"srv/made-again/sub",
        b"srv/made-again/sub/file",
    }
    assert b"srv/untouched/file" not in umoci
    assert umoci[b"usr/lib/through-a-link"].kind == "file"
    for maker in (b"tar", b"bsdtar"):
        assert umoci[b"srv/by-%b/nanoseconds" % maker].mtime_ns % 1000
        assert b"security.capability" in umoci[b"srv/by-%b/capable" % maker].xattrs
    assert buildah[b"srv/swap/directory-to-file"].kind == "file"
    assert b"security.capability" in buildah[b"usr/bin/ping"].xattrs
    assert b"usr/bin/less" not in buildah
    assert {path for path in buildah if path.startswith(b"srv/made-again/")} == {
        b"srv/made-again/both",
        b"srv/made-again/new",
    }


def test_a_directory_replaced_by_a_file_as_umoci_records_it(workshop: Path, tmp_path: Path) -> None:
    """Whiteouts of the directory's content follow the file's entry; podman fails on them."""
    layout, bundle = workshop / "replaced.layout", workshop / "replaced.bundle"
    image = f"{layout}:latest"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", image)
    run("umoci", "unpack", "--image", image, bundle)
    changed = bundle / "rootfs/changed"
    (changed / "sub").mkdir(parents=True)
    (changed / "sub/file").write_text("old")
    run("umoci", "repack", "--refresh-bundle", "--image", image, bundle)
    shutil.rmtree(changed)
    changed.write_text("new")
    run("umoci", "repack", "--refresh-bundle", "--image", image, bundle)
    archived = tmp_path / "image.tar"
    run("skopeo", "copy", "--quiet", f"oci:{image}", f"oci-archive:{archived}")
    with ociroot.open(archived) as source:
        chosen = source.image()
        names = [entry.name for entry in chosen.layers[-1].entries()]
        assert b"changed/.wh.sub" in names
        report = chosen.extract(tmp_path / "root")
    assert report.warnings == ()
    run("umoci", "unpack", "--image", image, workshop / "replaced.again")
    theirs = snapshot(workshop / "replaced.again/rootfs")
    # The root has no entry: its attributes are unspecified.
    ours = snapshot(tmp_path / "root")
    assert differences(ours, theirs, lambda path, _: path == b".") == []


@pytest.mark.parametrize("name", IMAGES)
def test_the_report_has_the_config_that_skopeo_prints(
    name: str, extracted: Any, request: pytest.FixtureRequest
) -> None:
    image: RealImage = request.getfixturevalue(name)
    archived = f"oci-archive:{image.archives['gzip']}"
    report = extracted(name, "gzip")[1]
    assert _filled(report["config"]) == _filled(
        json.loads(run("skopeo", "inspect", "--config", archived))
    )
    inspected = json.loads(run("skopeo", "inspect", archived))
    assert report["manifest"] == inspected["Digest"]
    assert [layer["digest"] for layer in report["layers"]] == inspected["Layers"]
    assert report["platform"] == f"{inspected['Os']}/{inspected['Architecture']}"


def _filled(value: Any) -> Any:
    """Remove empty values: an absent value is equivalent."""
    if isinstance(value, dict):
        return {k: v for k, v in ((k, _filled(v)) for k, v in value.items()) if v}
    return value


@pytest.mark.parametrize("name", IMAGES)
def test_the_tree_runs_under_chroot(name: str, extracted: Any) -> None:
    root, _ = extracted(name, "gzip")
    printed = run("chroot", root, "/bin/sh", "-c", "cat /etc/os-release")
    assert "ID=debian" in printed.splitlines()
    assert run("chroot", root, "/usr/bin/dpkg", "--audit") == ""


# crun refuses the hybrid layout (a cgroup2 beside the old hierarchies), the default of some
# machines. Without that mount, in a mount namespace of its own, it sees the old layout.
WITHOUT_HYBRID = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec "$@"',
    "sh",
)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_runtime_starts_what_was_extracted(runtime: str, extracted: Any, workshop: Path) -> None:
    need_tools("runc", "crun", "unshare")
    root, report = extracted("debian_by_buildah", "gzip")
    bundle = workshop / f"bundle-{runtime}"
    bundle.mkdir()
    run("runc", "spec", "--bundle", bundle)
    spec = json.loads((bundle / "config.json").read_text())
    config = report["config"]["config"]
    script = 'cat /etc/os-release; echo "ORIGIN=$ORIGIN"'
    spec["root"]["path"] = str(root)
    spec["process"]["terminal"] = False
    spec["process"]["args"] = [*config["Cmd"], "-c", script]
    spec["process"]["env"] += config["Env"]
    (bundle / "config.json").write_text(json.dumps(spec))
    printed = run(
        *(*WITHOUT_HYBRID, runtime, "--root", bundle / "state"),
        *("run", "--bundle", bundle, f"ociroot-{os.getpid()}"),
        stdin=subprocess.DEVNULL,
    ).splitlines()
    assert "ID=debian" in printed
    assert "ORIGIN=buildah" in printed
