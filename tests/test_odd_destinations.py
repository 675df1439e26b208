"""Many kinds of file systems: the same tree, or a report of what cannot be stored."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import Limits, linux, tmpdir_for
from ociroot.errors import DestinationError

from .support.build import Layer, Member, archive, seconds
from .support.mounts import disk, fat, mounted
from .support.needs import need_tools
from .support.snapshot import Snapshot, differences, snapshot
from .support.user import workshop

_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *each)
    for each in (
        (1, 7, 0xFFFFFFFF),
        (2, 6, 5),
        (4, 5, 0xFFFFFFFF),
        (16, 7, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
MOMENT = seconds(1_234_567_890_123_456_789)
SPARSE = {
    b"GNU.sparse.major": b"1",
    b"GNU.sparse.minor": b"0",
    b"GNU.sparse.name": b"sparse",
    b"GNU.sparse.realsize": b"2097155",
}
# Two runs of data: "hello" at the start and "end" at 2 MiB.
ISLANDS = b"2\n0\n5\n2097152\n3\n".ljust(512, b"\0") + b"helloend"
USER = {b"SCHILY.xattr.user.note": b"\0\xff binary"}
LAYERS = [
    Layer(
        [
            Member(b"./", "dir", mode=0o751, uid=3, gid=4, pax=USER),
            Member(b"bin/su", data=b"#!" * 999, mode=0o4755),
            Member(b"bin/ping", data=b"x", pax={b"SCHILY.xattr.security.capability": _CAPABILITY}),
            Member(b"tmp", "dir", mode=0o1777, mtime=1_234_567_890),
            Member(b"acl", data=b"y", pax={b"SCHILY.xattr.system.posix_acl_access": _ACL}),
            Member(b"dev/null", "char", rdev=(1, 3), mode=0o666),
            Member(b"dev/pipe", "fifo", mode=0o600),
            Member(b"link", "symlink", target=b"bin/su", uid=7),
            Member(b"bin/hard", "link", target=b"bin/su"),
            Member(b"caf\xe9-\xff", data=b"no text"),
            Member("größe".encode(), data=random.Random(1).randbytes(70_000)),
            Member(b"gone/a", data=b"z"),
            Member(b"sparse", data=ISLANDS, pax=SPARSE),
            Member(b"moment", data=b"t", mtime=MOMENT),
            Member(b"moments", "dir", mtime=MOMENT),
            Member(b"before-1970", mtime=-86400),
            Member(b"dev/loop", "block", rdev=(7, 0)),
        ],
        "gzip",
    ),
    Layer([Member(b".wh.gone"), Member(b"bin/new", data=b"new", uid=70_000)], "zstd"),
]
PLACES: dict[str, Callable[[Path, ExitStack], Path]] = {
    "ext4": lambda place, stack: stack.enter_context(disk(place / "fs", "ext4", "32M")),
    "btrfs": lambda place, stack: stack.enter_context(disk(place / "fs", "btrfs", "128M")),
    "xfs": lambda place, stack: stack.enter_context(disk(place / "fs", "xfs", "320M", "-q")),
    "tmpfs": lambda place, stack: _tmpfs(place, stack),
    "overlay": lambda place, stack: _overlay(place, stack),
    "noexec": lambda place, stack: _tmpfs(place, stack, "noexec,nodev,nosuid,noatime"),
}


def _tmpfs(place: Path, stack: ExitStack, options: str = "mode=755") -> Path:
    return stack.enter_context(mounted(place / "fs", "-t", "tmpfs", "-o", options, "ociroot-test"))


def _overlay(place: Path, stack: ExitStack, *below: str) -> Path:
    base = stack.enter_context(disk(place / "base", "ext4", "32M"))
    for name in ("lower", "upper", "work", *(f"lower/{name}" for name in below)):
        (base / name).mkdir(parents=True)
    options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
    return stack.enter_context(mounted(place / "fs", "-t", "overlay", "-o", options, "overlay"))


@pytest.fixture
def place() -> Iterator[Path]:
    need_tools("mkfs.ext4", "mkfs.btrfs", "mkfs.xfs", "mkfs.vfat", "mount")
    with workshop() as where:
        yield where


def extract(path: Path, root: Path, **options: Any) -> tuple[str, ...]:
    with ociroot.open(path) as source:
        report = source.image().extract(root, ociroot.ExtractOptions(**options))
    return tuple(warning.code for warning in report.warnings)


XFS = (b"trusted.SGI_", b"trusted.xfs:")


def seen(root: Path) -> Snapshot:
    """Return a snapshot without what xfs adds: a second name of an ACL, a setting of its own."""
    found = snapshot(root)
    for path, record in found.items():
        kept = {n: v for n, v in record.xattrs.items() if not n.startswith(XFS)}
        found[path] = replace(record, xattrs=kept)
    return found


@contextmanager
def ready(place: Path, name: str) -> Iterator[tuple[Path, Path, Snapshot]]:
    """Provide an image, a file system, and the snapshot of the image without restrictions."""
    image = archive(place / "image", LAYERS)
    assert extract(image, place / "reference") == ()
    with ExitStack() as stack:
        yield image, PLACES[name](place, stack), snapshot(place / "reference")


@pytest.mark.root
@pytest.mark.parametrize("name", PLACES)
def test_the_same_tree_on(place: Path, name: str) -> None:
    with ready(place, name) as (image, fs, reference):
        assert extract(image, fs / "new") == ()
        assert differences(reference, seen(fs / "new")) == []
        assert extract(image, fs / "new", replace_anything=True, sync=True) == ()
        assert differences(reference, seen(fs / "new")) == []


@pytest.mark.root
@pytest.mark.parametrize("name", PLACES)
def test_a_mount_point_of(place: Path, name: str) -> None:
    """It is on another file system than its parent, so the result is staged inside."""
    with ready(place, name) as (image, fs, reference):
        assert extract(image, fs) == ()
        assert differences(reference, seen(fs)) == []


@pytest.mark.root
def test_a_tree_that_overlayfs_has_from_below_is_replaced(place: Path) -> None:
    """rename(2) of a directory of a lower layer fails with EXDEV without redirect_dir."""
    image = archive(place / "image", LAYERS)
    extract(image, place / "reference")
    with ExitStack() as stack:
        fs = _overlay(place, stack, "root/old")
        reference = snapshot(place / "reference")
        try:
            extract(image, fs / "root", replace_anything=True)
        except DestinationError as error:
            assert "EXDEV" in str(error)
            assert [path.name for path in (fs / "root").iterdir()] == ["old"]
        else:
            assert differences(reference, seen(fs / "root")) == []
        assert [path.name for path in fs.iterdir()] == ["root"]


@pytest.mark.root
def test_holes_stay_holes(place: Path) -> None:
    with ready(place, "ext4") as (image, fs, _):
        extract(image, fs / "root")
        assert (fs / "root" / "sparse").stat().st_blocks * 512 < 100_000


@pytest.mark.root
def test_a_subvolume_of_btrfs_that_holds_something_is_replaced(place: Path) -> None:
    """It is not a mount point, though its st_dev differs; the same holds for nested ones."""
    with ready(place, "btrfs") as (image, fs, reference):
        for name in ("root", "root/below"):
            create = ["btrfs", "subvolume", "create", str(fs / name)]
            subprocess.run(create, check=True, capture_output=True)
        (fs / "root" / "below" / "old").touch()
        assert extract(image, fs / "root", replace_anything=True) == ()
        assert differences(reference, seen(fs / "root")) == []
        assert [path.name for path in fs.iterdir()] == ["root"]


@pytest.mark.root
@pytest.mark.parametrize("name", ["absent", "empty", "full"])
def test_a_file_system_that_is_read_only(place: Path, name: str) -> None:
    image = archive(place / "image", LAYERS)
    with disk(place / "fs", "ext4", "16M") as fs:
        (fs / "empty").mkdir()
        (fs / "full" / "old").mkdir(parents=True)
        subprocess.run(["mount", "-o", "remount,ro", fs], check=True)
        before = snapshot(fs)
        with pytest.raises(DestinationError, match="EROFS") as caught:
            extract(image, fs / name, replace_anything=True)
        assert caught.value.exit_code == 7
        assert differences(before, snapshot(fs)) == []


@pytest.mark.root
def test_a_mount_point_that_is_read_only(place: Path) -> None:
    """An overlay without an upper directory is read-only."""
    image = archive(place / "image", LAYERS)
    for name in ("one", "two"):
        (place / name).mkdir()
    lower = f"lowerdir={place}/one:{place}/two"
    with mounted(place / "fs", "-t", "overlay", "-o", lower, "overlay") as fs:
        with pytest.raises(DestinationError, match="EROFS"):
            extract(image, fs)
        assert list(fs.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_directory_that_may_not_be_changed(place: Path, flag: str) -> None:
    """By chattr(1), which restricts root, too."""
    image = archive(place / "image", LAYERS)
    with disk(place / "fs", "ext4", "16M") as fs:
        (fs / "root" / "old").mkdir(parents=True)
        before = snapshot(fs)
        subprocess.run(["chattr", f"+{flag}", fs / "root"], check=True)
        try:
            with pytest.raises(DestinationError, match="EPERM") as caught:
                extract(image, fs / "root", replace_anything=True)
        finally:
            subprocess.run(["chattr", f"-{flag}", fs / "root"], check=True)
        assert caught.value.exit_code == 7
        assert differences(before, snapshot(fs), {"mtime_ns"}) == []


@pytest.mark.root
def test_a_file_system_without_extended_attributes(place: Path) -> None:
    """It does not report its size either, so --max-size has to be given."""
    image = archive(place / "image", LAYERS)
    extract(image, place / "reference")
    with (
        mounted(place / "fs", "-t", "ramfs", "ociroot-test") as fs,
        ociroot.open(image, ociroot.SourceOptions(limits=Limits(size=1 << 24))) as source,
    ):
        report = source.image().extract(fs / "root")
        assert [warning.code for warning in report.warnings] == ["xattrs-unsupported"]
        found = differences(snapshot(place / "reference"), snapshot(fs / "root"))
        # An ACL also affects the permissions of the group.
        assert found
        assert all("xattrs" in each or each.startswith("'acl': mode") for each in found)


@pytest.mark.root
def test_fat_by_fuse(place: Path) -> None:
    """It has neither owners nor modes, and ignores case: refused before anything is created."""
    need_tools("fusefat")
    image = archive(place / "image", LAYERS)
    with fat(place / "fs", "16M") as fs:
        for root in (fs / "root", fs):
            with pytest.raises(DestinationError, match="ENOSYS") as caught:
                extract(image, root)
            assert caught.value.exit_code == 7
            assert list(fs.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_read_only(place: Path, there: bool) -> None:
    image = archive(place / "image", LAYERS)
    (place / "source" / "root").mkdir(parents=True)
    (place / "source" / "root" / "old").touch()
    with mounted(place / "fs", "--bind", place / "source") as fs:
        subprocess.run(["mount", "-o", "remount,ro,bind", fs], check=True)
        with pytest.raises(DestinationError, match="EROFS"):
            extract(image, fs / "root" if there else fs / "new", replace_anything=there)
    assert sorted(path.name for path in (place / "source").rglob("*")) == ["old", "root"]


@pytest.mark.root
def test_vfat(place: Path) -> None:
    """It has no owners, links or devices: the first is reported, and nothing is left behind."""
    image = archive(place / "image", LAYERS)
    with disk(place / "fs", "vfat", "16M") as fs:
        with pytest.raises(DestinationError) as caught:
            extract(image, fs / "root")
        assert str(fs / "root") in str(caught.value)
        assert list(fs.iterdir()) == []


# Answers of file systems that this machine may not have.

CANNOT = {
    "link": (errno.EPERM, "cannot make the hard link"),
    "symlink": (errno.EPERM, "cannot make the symlink"),
    "chown": (errno.EPERM, "Operation not permitted"),
    "fchown": (errno.EPERM, "Operation not permitted"),
}


@pytest.mark.root
@pytest.mark.parametrize("name", CANNOT)
def test_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    code, words = CANNOT[name]

    def cannot(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    image = archive(tmp_path / "image", LAYERS)
    monkeypatch.setattr(os, name, cannot)
    with pytest.raises(DestinationError, match=words):
        extract(image, tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


@pytest.mark.root
def test_without_extended_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    image = archive(tmp_path / "image", LAYERS)
    extract(image, tmp_path / "reference")
    monkeypatch.setattr(os, "setxattr", cannot)
    assert extract(image, tmp_path / "root") == ("xattrs-unsupported",)
    found = differences(snapshot(tmp_path / "reference"), snapshot(tmp_path / "root"))
    # An ACL also affects the permissions of the group.
    assert found
    assert all("xattrs" in each or "mode" in each for each in found)


def test_names_that_are_one_to_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `A` and `a` are the same name, the second is an error and does not replace the first."""
    make = os.open

    def folding(name: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        lower = name.lower() if isinstance(name, bytes) else name
        return make(lower, flags, mode, dir_fd=dir_fd)

    image = archive(tmp_path / "image", [[Member(b"README", data=b"1"), Member(b"readme")]])
    monkeypatch.setattr(os, "open", folding)
    with pytest.raises(DestinationError, match=r"readme.*EEXIST"):
        extract(image, tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_an_exchange_without_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is detected before the work; the old tree stays."""
    image = archive(tmp_path / "image", LAYERS)
    (tmp_path / "root" / "old").mkdir(parents=True)

    def cannot(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(linux, "renameat2", cannot)
    with pytest.raises(DestinationError, match="cannot exchange two directories"):
        extract(image, tmp_path / "root", replace_anything=True)
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "root"]


@pytest.mark.root
def test_a_mount_point_without_renameat2(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flags are not supported everywhere: detected early, and nothing is overwritten."""
    image = archive(place / "image", LAYERS)

    def cannot(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    with ExitStack() as stack:
        fs = _tmpfs(place, stack)
        monkeypatch.setattr(linux, "renameat2", cannot)
        with pytest.raises(DestinationError, match="cannot rename without replacing"):
            extract(image, fs)
        assert list(fs.iterdir()) == []


@pytest.mark.root
def test_a_compressed_archive_is_decompressed_where_its_tree_needs_room(place: Path) -> None:
    with ExitStack() as stack:
        fs = _tmpfs(place, stack)
        assert tmpdir_for(str(fs)) == str(fs)
        assert tmpdir_for(str(fs / "root")) == str(fs)
        assert tmpdir_for(str(place / "root")) == str(place)
    assert tmpdir_for(str(place / "absent" / "root")) is None


@pytest.mark.root
def test_a_file_system_without_a_size_is_not_full(place: Path) -> None:
    with mounted(place / "fs", "-t", "ramfs", "ociroot-test") as fs:
        image = archive(place / "image", LAYERS)
        assert extract(image, fs / "root") == ("xattrs-unsupported",)


@pytest.mark.root
def test_btrfs_that_is_full_is_not_without_inodes(place: Path) -> None:
    noise = random.Random(1)
    members = [Member(b"%d" % n, data=noise.randbytes(5 << 20)) for n in range(40)]
    image = archive(place / "image", [members])
    limits = ociroot.Limits(size=1 << 40)
    with (
        disk(place / "fs", "btrfs", "128M") as fs,
        ociroot.open(image, ociroot.SourceOptions(limits=limits)) as source,
        pytest.raises(DestinationError, match="file system is full"),
    ):
        source.image().extract(fs / "root")


@pytest.mark.root
@pytest.mark.parametrize("replace", [False, True])
def test_an_empty_subvolume(place: Path, replace: bool) -> None:
    """It is not a mount point, and nothing can be renamed over it: it is filled in place."""
    image = archive(place / "image", LAYERS)
    with disk(place / "fs", "btrfs", "128M") as fs:
        make = ["btrfs", "subvolume", "create", str(fs / "root")]
        subprocess.run(make, check=True, capture_output=True)
        assert extract(image, fs / "root", replace=replace) == ()
