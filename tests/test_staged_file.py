"""A single file that is published: an archive, a disk image. It appears at once and whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ociroot import linux
from ociroot.errors import DestinationError
from ociroot.notices import Notices
from ociroot.publish.file import StagedFile, staged_file

from .support.mounts import mounted
from .support.needs import need_root
from .support.user import workshop


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


def write(staged: StagedFile, data: bytes) -> None:
    """As an output does that is one file."""
    fd = os.open(staged.name, linux.CREATE_FILE, 0o644, dir_fd=staged.fd)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def publish(path: Path, data: bytes, **options: Any) -> None:
    with staged_file(str(path), Notices(), **options) as staged:
        write(staged, data)
        assert not path.exists() or options
        staged.publish()
        assert path.read_bytes() == data


def test_it_appears_when_it_is_published(place: Path) -> None:
    publish(place / "out.tar", b"whole")
    assert [path.name for path in place.iterdir()] == ["out.tar"]


def test_nothing_appears_that_is_not_published(place: Path) -> None:
    with staged_file(str(place / "out.tar"), Notices()) as staged:
        write(staged, b"half")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("there", ["before", "meanwhile"])
def test_what_is_there_is_replaced_by_force_alone(place: Path, there: str) -> None:
    path = place / "out.tar"
    if there == "before":
        path.write_bytes(b"old")
    with (
        pytest.raises(DestinationError, match=r"it exists .*--force"),
        staged_file(str(path), Notices()) as staged,
    ):
        write(staged, b"new")
        path.write_bytes(b"old")
        staged.publish()
    assert path.read_bytes() == b"old"
    publish(path, b"new", force=True)
    assert [each.name for each in place.iterdir()] == ["out.tar"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_where_a_name_cannot_be_moved_without_replacing(
    place: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """NFS has no RENAME_NOREPLACE; the directory of a destination is checked for it beforehand."""

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(linux, "renameat2", refused)
    path = place / "out.tar"
    publish(path, b"whole")
    assert path.stat().st_nlink == 1
    with pytest.raises(DestinationError, match="it exists"):
        publish(path, b"other", force=False)
    assert path.read_bytes() == b"whole"
    assert [each.name for each in place.iterdir()] == ["out.tar"]


@pytest.mark.parametrize("sync", [False, True])
def test_it_is_on_the_disk_before_it_is_visible(
    place: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    calls: list[tuple[str, bool]] = []
    path = place / "out.img"
    syncfs, fsync = linux.syncfs, os.fsync

    def noting_syncfs(fd: int) -> None:
        calls.append(("syncfs", path.exists()))
        syncfs(fd)

    def noting_fsync(fd: int) -> None:
        calls.append(("fsync", path.exists()))
        fsync(fd)

    monkeypatch.setattr(linux, "syncfs", noting_syncfs)
    monkeypatch.setattr(os, "fsync", noting_fsync)
    publish(path, b"whole", sync=sync)
    assert calls == ([("syncfs", False), ("fsync", True)] if sync else [])


def test_a_name_that_cannot_be_synchronized(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refused)
    notices = Notices()
    with staged_file(str(place / "out"), notices, sync=True) as staged:
        write(staged, b"x")
        staged.publish()
    assert [warning.code for warning in notices.warnings()] == ["not-synced"]
    assert (place / "out").exists()


def test_what_the_caller_raises_stays_as_it_is(place: Path) -> None:
    """A file that the caller cannot find is not the destination's fault."""
    with pytest.raises(FileNotFoundError), staged_file(str(place / "out"), Notices()):
        (place / "absent").read_bytes()
    with (
        pytest.raises(FileExistsError),
        staged_file(str(place / "out"), Notices()) as staged,
    ):
        write(staged, b"1")
        write(staged, b"2")
    assert list(place.iterdir()) == []


def test_a_full_file_system(place: Path) -> None:
    """The message says that all is given back, as for a directory."""
    need_root()
    with mounted(place / "fs", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as fs:
        path = fs / "out.tar"
        with (
            pytest.raises(DestinationError, match="nothing was left behind") as caught,
            staged_file(str(path), Notices()) as staged,
        ):
            try:
                write(staged, bytes(1 << 20))
            except OSError as error:
                raise DestinationError.from_os(error, "write the archive") from error
        assert str(caught.value).startswith(f"{path}: cannot write the archive")
        assert list(fs.iterdir()) == []


def test_a_missing_directory_names_no_option(place: Path) -> None:
    """--parents is an option of extract."""
    with (
        pytest.raises(DestinationError, match=r"its parent directory \S* does not exist$"),
        staged_file(str(place / "absent/out"), Notices()),
    ):
        pass
