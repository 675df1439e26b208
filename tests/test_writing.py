"""What is made of an entry, in one process and in two: attributes, and nothing that was there."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import extract as extracting
from ociroot.errors import DestinationError

from .support.build import Member, archive
from .support.needs import need_root
from .support.snapshot import snapshot
from .support.user import as_ordinary_user, workshop

# Too large for the second process: the first one writes it.
LARGE = bytes(100_000)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
# With the root of the user namespace that it holds in.
CAPABILITY_3 = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 100_000)

Extract = Callable[..., ociroot.Report]


@pytest.fixture(params=[False, True], ids=["one process", "two processes"])
def extract(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Extract:
    """Extract an image by this many processes, however small it is."""
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def run(image: Path, root: Path, **options: Any) -> ociroot.Report:
        with ociroot.open(image) as source:
            return source.image().extract(root, writer_process=request.param, **options)

    return run


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


@pytest.mark.parametrize("value", [CAPABILITY, CAPABILITY_3], ids=["revision 2", "revision 3"])
def test_capabilities_of_files_of_another_owner(
    place: Path, extract: Extract, value: bytes
) -> None:
    """chown(2) takes them away, and the set-id bits, so they come after it."""
    need_root()
    about: dict[str, Any] = {"uid": 7, "gid": 8, "mode": 0o6755}
    attributes = {b"security.capability": value, b"user.k": b"v"}
    members = [
        Member(b"small", data=b"x", xattrs=attributes, **about),
        Member(b"large", data=LARGE, xattrs=attributes, **about),
        Member(b"plain", data=b"x", **about),
    ]
    assert extract(archive(place / "image", [members]), place / "root").warnings == ()
    found = snapshot(place / "root")
    for name in (b"small", b"large", b"plain"):
        record = found[name]
        assert (record.uid, record.gid, record.mode) == (7, 8, 0o6755)
        assert record.xattrs == ({} if name == b"plain" else attributes)


@pytest.mark.parametrize("value", [CAPABILITY, CAPABILITY_3], ids=["revision 2", "revision 3"])
def test_capabilities_without_privileges(place: Path, extract: Extract, value: bytes) -> None:
    """They are counted as left out, whichever revision they are of."""
    need_root()
    attributes = {b"security.capability": value, b"user.k": b"v"}
    members = [Member(b"a", data=b"x", xattrs=attributes), Member(b"b", xattrs=attributes)]
    image = archive(place / "image", [members])
    warnings = as_ordinary_user(lambda: extract(image, place / "root").warnings)
    assert {w.code: w.count for w in warnings} == {"owners": 2 + 1, "xattrs-privileged": 2}
    assert snapshot(place / "root")[b"b"].xattrs == {b"user.k": b"v"}


@pytest.mark.parametrize("what", ["a file", "a link", "a link to nothing"])
def test_what_has_come_in_the_way_of_a_file(
    place: Path, monkeypatch: pytest.MonkeyPatch, extract: Extract, what: str
) -> None:
    """It is neither written to nor followed: O_EXCL and O_NOFOLLOW."""
    victim = place / "victim"
    victim.write_text("the victim's")
    real = os.open

    def plant(name: Any, flags: int, *rest: Any, dir_fd: int | None = None) -> int:
        if name == b"f" and flags & os.O_CREAT:
            assert flags & os.O_NOFOLLOW
            if what == "a file":
                os.link(victim, name, dst_dir_fd=dir_fd)
            else:
                os.symlink(victim if what == "a link" else place / "none", name, dir_fd=dir_fd)
        return real(name, flags, *rest, dir_fd=dir_fd)

    image = archive(place / "image", [[Member(b"d/f", data=b"x", mode=0o600)]])
    monkeypatch.setattr(os, "open", plant)
    with pytest.raises(DestinationError, match="EEXIST") as caught:
        extract(image, place / "root")
    assert caught.value.errno == errno.EEXIST
    assert caught.value.member == b"d/f"
    assert sorted(path.name for path in place.iterdir()) == ["image", "victim"]
    assert victim.read_text() == "the victim's"
    assert victim.stat().st_mode & 0o777 == 0o644
