"""Writing an entry, in one process and in two: attributes, and nothing existing is overwritten."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.api import extraction as extracting
from ociroot.errors import DestinationError

from .support.build import Kind, Member, archive, seconds
from .support.mounts import disk
from .support.needs import need_tools
from .support.snapshot import differences, snapshot
from .support.user import as_ordinary_user, workshop

ANY = 0xFFFFFFFF
# Too large for the second process, so the first one writes it.
LARGE = bytes(100_000)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
# With the root user of the namespace in which it is valid.
CAPABILITY_3 = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 100_000)

Extract = Callable[..., ociroot.Report]


@pytest.fixture(params=[False, True], ids=["one process", "two processes"])
def extract(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Extract:
    """Extract an image with this many processes, whatever its size."""
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})

    def run(image: Path, root: Path, **options: Any) -> ociroot.Report:
        with ociroot.open(image) as source:
            return source.image().extract(
                root, ociroot.ExtractOptions(writer_process=request.param, **options)
            )

    return run


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


@pytest.mark.root
@pytest.mark.parametrize("value", [CAPABILITY, CAPABILITY_3], ids=["revision 2", "revision 3"])
def test_capabilities_of_files_of_another_owner(
    place: Path, extract: Extract, value: bytes
) -> None:
    """chown(2) clears them and the set-id bits, so they are set after it."""
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


@pytest.mark.root
@pytest.mark.parametrize("value", [CAPABILITY, CAPABILITY_3], ids=["revision 2", "revision 3"])
def test_capabilities_without_privileges(place: Path, extract: Extract, value: bytes) -> None:
    """They are counted as skipped, whatever their revision."""
    attributes = {b"security.capability": value, b"user.k": b"v"}
    members = [Member(b"a", data=b"x", xattrs=attributes), Member(b"b", xattrs=attributes)]
    image = archive(place / "image", [members])
    warnings = as_ordinary_user(lambda: extract(image, place / "root").warnings)
    assert {w.code: w.count for w in warnings} == {"owners": 2 + 1, "xattrs-privileged": 2}
    assert snapshot(place / "root")[b"b"].xattrs == {b"user.k": b"v"}


ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *each)
    for each in ((1, 7, ANY), (2, 6, 5), (4, 5, ANY), (16, 7, ANY), (32, 4, ANY))
)
IN_A_NAMESPACE = {
    "a capability": (b"security.capability", CAPABILITY_3),
    "an ACL": (b"system.posix_acl_access", ACL),
}


@pytest.mark.root
@pytest.mark.parametrize("kind", ["file", "dir"])
@pytest.mark.parametrize("what", IN_A_NAMESPACE)
def test_owners_in_attributes_that_a_user_namespace_does_not_have(
    place: Path, what: str, kind: Kind
) -> None:
    """The image is valid, and the kernel returns EINVAL."""
    need_tools("unshare")
    enter = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        pytest.skip("there may be no user namespaces here")
    name, value = IN_A_NAMESPACE[what]
    image = archive(place / "image", [[Member(b"x", kind, xattrs={name: value})]])
    command = [*enter, sys.executable, "-m", "ociroot", "extract", str(image), str(place / "root")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 7
    about = "contains an owner that does not exist in this user namespace"
    assert f"x: the extended attribute {name.decode()} {about}" in done.stderr.replace(
        ", offset 0", ""
    )
    assert list(place.iterdir()) == [image]


def test_a_default_acl_of_what_is_no_directory(place: Path, extract: Extract) -> None:
    """Not even root can set it."""
    attributes = {b"system.posix_acl_default": ACL}
    members = [Member(b"f", data=b"x", xattrs=attributes), Member(b"d", "dir", xattrs=attributes)]
    report = extract(archive(place / "image", [members]), place / "root")
    warnings = {w.code: w.count for w in report.warnings}
    warnings.pop("owners", None)
    assert warnings == {"xattrs-unsupported": 1}
    assert snapshot(place / "root")[b"d"].xattrs == attributes


@pytest.mark.root
def test_an_attribute_that_a_file_has_no_space_for(place: Path, extract: Extract) -> None:
    """The kernel returns ENOSPC, as if the disk were full."""
    need_tools("mkfs.ext4", "mount")
    image = archive(place / "image", [[Member(b"f", data=b"x", xattrs={b"user.k": bytes(5000)})]])
    with disk(place / "fs", "ext4", "16M", "-q", "-O", "^ea_inode") as fs:
        with pytest.raises(DestinationError, match=r"user\.k: .* ENOSPC.*ext4 to 4 KiB"):
            extract(image, fs / "root")
        assert list(fs.iterdir()) == []


@pytest.mark.parametrize("what", ["a file", "a link", "a link to nothing"])
def test_what_has_come_in_the_way_of_a_file(
    place: Path, monkeypatch: pytest.MonkeyPatch, extract: Extract, what: str
) -> None:
    """It is neither written to nor followed (O_EXCL and O_NOFOLLOW)."""
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


# Times.

YEAR_2100, YEAR_2500, YEAR_1900 = 4_102_444_800, 16_725_225_600, -2_208_988_800
TIMES: dict[bytes, Fraction | int] = {
    b"usual": 1_234_567_890,
    b"1970": 0,
    b"parts": seconds(1_234_567_890_123_456_789),
    b"1969": -1,
    b"1900": YEAR_1900,
    b"2038": 2**31 - 1,
    b"later": 2**31,
    b"2100": YEAR_2100,
    b"2500": YEAR_2500,
}
MAKE: dict[str, tuple[str, ...]] = {
    "ext4": ("-q",),
    "ext4 with small inodes": ("-q", "-I", "128"),
    "xfs": ("-q",),
    "xfs without bigtime": ("-q", "-m", "bigtime=0"),
    "btrfs": (),
}
CHANGED: dict[str, set[bytes]] = {
    "ext4": {b"1900", b"2500"},
    "ext4 with small inodes": {b"parts", b"1900", b"later", b"2100", b"2500"},
    "xfs": {b"1900", b"2500"},
    "xfs without bigtime": {b"1900", b"later", b"2100", b"2500"},
    "btrfs": set(),
}


@pytest.mark.root
@pytest.mark.parametrize("kind", MAKE)
def test_times_that_the_destination_does_not_have(place: Path, extract: Extract, kind: str) -> None:
    """The kernel changes them; files of every kind are counted."""
    name, size = kind.split()[0], {"ext4": "16M", "xfs": "320M", "btrfs": "128M"}[kind.split()[0]]
    need_tools(f"mkfs.{name}", "mount")
    members = []
    for path, mtime in TIMES.items():
        members += [
            Member(b"file-" + path, data=b"x", mtime=mtime),
            Member(b"large-" + path, data=LARGE, mtime=mtime),
            Member(b"dir-" + path, "dir", mtime=mtime),
            Member(b"dir-" + path + b"/in", mtime=1),
            Member(b"link-" + path, "symlink", target=b"x", mtime=mtime),
            Member(b"fifo-" + path, "fifo", mtime=mtime, uid=7),
        ]
    image = archive(place / "image", [members])
    with disk(place / "fs", name, size, *MAKE[kind]) as fs:
        report = extract(image, fs / "root")
        found = snapshot(fs / "root")
    for path, mtime in TIMES.items():
        for what in (b"file-", b"large-", b"dir-", b"link-", b"fifo-"):
            kept = found[what + path].mtime_ns == mtime * 10**9
            assert kept == (path not in CHANGED[kind]), (what, path)
    assert {w.code: w.count for w in report.warnings} == (
        {"times": 5 * len(CHANGED[kind])} if CHANGED[kind] else {}
    )
    if kind == "ext4 with small inodes":
        message = "modification times were changed to values that the destination can store: first "
        first = "@1234567890.123456789 as @1234567890"
        assert {w.message for w in report.warnings} == {message + first}


@pytest.mark.root
def test_a_time_of_the_root_that_the_destination_does_not_have(
    place: Path, extract: Extract
) -> None:
    """Its attributes are set last, after the writer has ended."""
    need_tools("mkfs.ext4", "mount")
    members = [Member(b"./", "dir", mtime=YEAR_2100), Member(b"f", data=b"x", mtime=YEAR_2500)]
    image = archive(place / "image", [members])
    with disk(place / "fs", "ext4", "16M", "-q", "-I", "128") as fs:
        warnings = extract(image, fs / "root").warnings
        assert [(w.code, w.count) for w in warnings] == [("times", 2)]


def test_usual_times_are_not_looked_at(
    place: Path, monkeypatch: pytest.MonkeyPatch, extract: Extract
) -> None:
    """One more call per file would be too expensive."""
    looked: list[int] = []
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        looked.append(fd)
        return real(fd)

    def count(number: int, mtime: int) -> int:
        members = [Member(b"%d" % n, data=b"x", mtime=mtime) for n in range(number)]
        image = archive(place / "image", [members])
        looked.clear()
        extract(image, place / f"root{number}-{mtime}")
        return len(looked)

    monkeypatch.setattr(os, "fstat", fstat)
    assert count(100, 1_234_567_890) == count(200, 1_234_567_890)


# Results of write(2).

# Two runs of data in a sparse file: sparse format 1.0.
ISLANDS = b"2\n0\n5000\n2097152\n3\n".ljust(512, b"\0") + b"y" * 5000 + b"end"
SPARSE = {
    b"GNU.sparse." + key: value
    for key, value in (
        (b"major", b"1"),
        (b"minor", b"0"),
        (b"name", b"sparse"),
        (b"realsize", b"2097155"),
    )
}
WRITTEN = [
    Member(b"small", data=b"abcdefg" * 100),
    Member(b"large", data=b"0123456789" * 10_000),
    Member(b"sparse", data=ISLANDS, pax=SPARSE),
]


def written(answer: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each write of a file write as many bytes as `answer` returns for its size."""
    calls: dict[str, Callable[..., int]] = {"write": os.write, "pwrite": os.pwrite}

    def wrap(name: str) -> Callable[..., int]:
        real = calls[name]

        def call(fd: int, data: memoryview, *rest: int) -> int:
            if Path(f"/proc/self/fd/{fd}").readlink().name not in ("small", "large", "sparse"):
                return real(fd, data, *rest)
            size = answer(len(data))
            return real(fd, data[:size], *rest) if size else 0

        return call

    for name in calls:
        monkeypatch.setattr(os, name, wrap(name))


@pytest.mark.parametrize("most", [700, 4096])
def test_files_written_in_parts(
    place: Path, monkeypatch: pytest.MonkeyPatch, extract: Extract, most: int
) -> None:
    image = archive(place / "image", [WRITTEN])
    extract(image, place / "whole")
    written(lambda size: min(size, most), monkeypatch)
    extract(image, place / "root")
    assert differences(snapshot(place / "whole"), snapshot(place / "root")) == []


@pytest.mark.parametrize("member", WRITTEN, ids=lambda member: member.name.decode())
def test_a_file_of_which_nothing_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, extract: Extract, member: Member
) -> None:
    """A file system that writes nothing and reports no error would cause an endless loop."""
    calls = 0

    def answer(size: int) -> int:
        nonlocal calls
        calls += 1
        assert calls < 100
        return 0

    image = archive(place / "image", [[member]])
    written(answer, monkeypatch)
    with pytest.raises(DestinationError, match=r"cannot write the file: .* EIO"):
        extract(image, place / "root")
    assert list(place.iterdir()) == [image]
