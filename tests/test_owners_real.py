"""The Debian image with its ten layers for other owners: as PVE unpacks it, and by a record."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import ociroot
from ociroot import ExtractOptions, OutputPolicy, OwnerMap

from .support.real import RealImage
from .support.real import debian as debian
from .support.real import debian_by_umoci as debian_by_umoci
from .support.real import history_by_umoci as history_by_umoci
from .support.real import workshop as workshop
from .support.snapshot import differences, snapshot
from .support.user import as_ordinary_user
from .test_owners import MAP, by_pve, different_in_a_namespace

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def place(workshop: Path) -> Path:
    """A directory that everybody may write to, on the roomy file system."""
    made = workshop / "owners"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    made.chmod(0o777)
    workshop.chmod(0o755)
    return made


def extract(image: Path, root: Path, **options: object) -> None:
    with ociroot.open(image) as source:
        chosen = ExtractOptions(writer_process=True, **options)  # type: ignore[arg-type]
        source.image().extract(root, chosen)


def test_it_is_shifted_as_pve_does_it(history_by_umoci: RealImage, place: Path) -> None:
    image = history_by_umoci.archives["gzip"]
    used = OutputPolicy(owners=OwnerMap.parse(MAP, MAP, "65534:65534"))
    extract(image, place / "plain")
    extract(image, place / "ours", policy=used)
    pack = ["tar", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "--sparse"]
    with (place / "tar").open("wb") as layer:
        subprocess.run([*pack, "-c", "-C", place / "plain", "."], check=True, stdout=layer)
    shutil.rmtree(place / "plain")
    with (place / "tar").open("rb") as layer:
        by_pve(place / "theirs", stdin=layer)
    ours, theirs = snapshot(place / "ours"), snapshot(place / "theirs")
    assert len(theirs) > 8000
    assert differences(theirs, ours, different_in_a_namespace(theirs, ours)) == []


def test_a_record_of_a_user_gives_the_tree_of_root(
    history_by_umoci: RealImage, place: Path
) -> None:
    image = history_by_umoci.archives["zstd"]
    extract(image, place / "root")
    image.chmod(0o644)
    as_ordinary_user(lambda: extract(image, place / "tree", record="mtree"))
    report = ociroot.apply_owners(place / "tree")
    assert report.warnings == ()
    assert differences(snapshot(place / "root"), snapshot(place / "tree")) == []
