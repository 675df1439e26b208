"""Mount points as destinations, and mounts below trees that are to be removed."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import linux
from ociroot.errors import DestinationError, OcirootError
from ociroot.publish.removal import remove_tree

from .support.build import Member, archive, unpacked
from .support.killed import leave
from .support.mounts import mounted
from .support.needs import need_tools
from .support.snapshot import differences, snapshot
from .support.user import NOBODY, as_ordinary_user, workshop

pytestmark = pytest.mark.root

MEMBERS = [Member(b"./", "dir", mode=0o751, uid=3, gid=4), Member(b"bin/a"), Member(b"etc/b")]


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        try:
            yield where
        finally:
            for point in mounts_below(where):
                subprocess.run(["umount", "--lazy", point], check=True)


@pytest.fixture
def image(place: Path) -> Path:
    return archive(place / "image", [MEMBERS])


def mounts_below(where: Path) -> list[str]:
    """Return the mounts below a path, the last one first: a removal may have moved them."""
    with Path("/proc/self/mountinfo").open() as lines:
        points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [point for point in reversed(points) if point.startswith(f"{where}/")]


def tmpfs(place: Path, stack: ExitStack, options: str = "mode=755") -> Path:
    return stack.enter_context(mounted(place, "-t", "tmpfs", "-o", options, "ociroot-test"))


def bound(source: Path, place: Path, stack: ExitStack) -> Path:
    return stack.enter_context(mounted(place, "--bind", source))


def extract(image: Path, root: Path, progress: Any = None, **options: Any) -> dict[str, str]:
    with ociroot.open(image) as source:
        report = source.image().extract(root, ociroot.ExtractOptions(**options), progress=progress)
    return {warning.code: warning.message for warning in report.warnings}


def mode(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


# An empty mount point that other users may write to.


@pytest.mark.parametrize("options", ["mode=1777", "mode=777", f"mode=755,uid={NOBODY},gid=7"])
def test_nobody_else_can_put_anything_there(image: Path, place: Path, options: str) -> None:
    """A new tmpfs has mode 1777, or belongs to another user."""
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack, options)
        before = mode(root)
        tried = 0

        def attack() -> list[int | None]:
            """As another user, who has opened it before."""
            errors: list[int | None] = []
            attempts: tuple[Callable[[], object], ...] = (
                lambda: (root / "evil").touch(),
                lambda: (root / "lost+found").mkdir(),
                lambda: root.chmod(0o777),
                lambda: list(root.iterdir()),
                lambda: os.mkdir("evil", dir_fd=opened),
            )
            for attempt in attempts:
                try:
                    attempt()
                except OSError as error:
                    errors.append(error.errno)
            return errors

        def progress(_: object) -> None:
            nonlocal tried
            tried += 1
            denied = as_ordinary_user(attack)
            assert len(denied) == 5
            assert set(denied) <= {errno.EACCES, errno.EPERM}

        opened = os.open(root, os.O_RDONLY)
        try:
            assert extract(image, root, progress=progress) == {}
        finally:
            os.close(opened)
        assert tried
        assert before != mode(root) == (0o751, 3, 4)
        assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]


@pytest.mark.parametrize("options", ["mode=1777", f"mode=2775,uid={NOBODY},gid=7", "mode=755"])
def test_it_is_as_before_after_a_failure(place: Path, options: str) -> None:
    """Also when the attributes of the root have been set already."""
    late = [Member(b"./", "dir", uid=9, pax={b"SCHILY.xattr.user.large": b"x" * 70_000})]
    bad = [Member(b"./", "dir", uid=9), Member(b"h", "link", target=b"absent")]
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack, options)
        before = mode(root)
        for number, members in enumerate((late, bad)):
            image = archive(place / f"image{number}", [members])
            limits = ociroot.Limits(xattr_size=1 << 20)
            with (
                ociroot.open(image, ociroot.SourceOptions(limits=limits)) as source,
                pytest.raises(OcirootError),
            ):
                source.image().extract(root)
            assert mode(root) == before
            assert list(root.iterdir()) == []


def test_what_comes_in_all_the_same_is_not_published(image: Path, place: Path) -> None:
    """By root, or by a process that had it open in another user namespace."""
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack, "mode=1777")

        def progress(_: object) -> None:
            (root / "foreign").write_text("another's")

        with pytest.raises(DestinationError, match="foreign was put into it meanwhile"):
            extract(image, root, progress=progress)
        assert [path.name for path in root.iterdir()] == ["foreign"]
        assert mode(root) == (0o1777, 0, 0)


def test_a_name_that_is_taken_meanwhile_is_not_replaced(image: Path, place: Path) -> None:
    """When the entries are moved up one by one: only those that were moved are removed again."""
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack)

        def progress(_: object) -> None:
            with suppress(FileExistsError):
                (root / "etc").mkdir()  # empty, so rename could replace it
            os.chown(root / "etc", NOBODY, NOBODY)

        with pytest.raises(DestinationError):
            extract(image, root, progress=progress)
        assert [path.name for path in root.iterdir()] == ["etc"]
        assert (root / "etc").stat().st_uid == NOBODY


@pytest.mark.parametrize("how", ["of another user", "for all to write to", "no directory"])
def test_what_only_has_the_name_of_lost_and_found(image: Path, place: Path, how: str) -> None:
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack, "mode=1777")
        if how == "no directory":
            (root / "lost+found").touch()
        else:
            (root / "lost+found").mkdir()
        if how == "of another user":
            os.chown(root / "lost+found", NOBODY, NOBODY)
        elif how == "for all to write to":
            (root / "lost+found").chmod(0o777)
        with pytest.raises(DestinationError, match="not empty"):
            extract(image, root)
        assert mode(root) == (0o1777, 0, 0)


@pytest.mark.parametrize("options", [{}, {"replace": True}, {"replace_anything": True}])
def test_a_full_one_is_offered_no_remedy_that_is_none(
    image: Path, place: Path, options: dict[str, Any]
) -> None:
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack)
        (root / "bin").mkdir()
        (root / "etc").mkdir()
        with pytest.raises(DestinationError, match="a mount point, which cannot be") as caught:
            extract(image, root, **options)
        assert "--replace" not in str(caught.value)


def test_directories_that_their_owner_may_not_write_to(place: Path) -> None:
    """An ordinary user may not move such a directory to another parent; Fedora's root is one."""
    members = [
        Member(b"./", "dir", mode=0o555),
        Member(b"proc", "dir", mode=0o555),
        Member(b"closed", "dir", mode=0),
        Member(b"bin/a"),
    ]
    image = archive(place / "image", [members])
    with ExitStack() as stack:
        root = tmpfs(place / "root", stack, f"mode=755,uid={NOBODY}")
        as_ordinary_user(lambda: extract(image, root))
        assert {path.name: path.stat().st_mode & 0o777 for path in root.iterdir()} == {
            "proc": 0o555,
            "closed": 0,
            "bin": 0o755,
        }
        assert root.stat().st_mode & 0o777 == 0o555
    new = place / "new"
    for options in ({}, {"replace": True}):
        as_ordinary_user(lambda: extract(image, new, **options))  # noqa: B023
        assert new.stat().st_mode & 0o777 == 0o555
    assert sorted(path.name for path in place.iterdir()) == ["image", "new", "root"]


# Mounts in a tree that is to be removed.


@pytest.mark.parametrize("depth", ["", "a", "a/b", "a/b/c", "a/b/c/d"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_is_not_emptied_nor_changed(place: Path, depth: str, kind: str) -> None:
    """At any depth: a directory that is moved up to be emptied may be a mount point."""
    tree, precious = place / "tree", place / "precious"
    (tree / depth).mkdir(parents=True)
    precious.mkdir()
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "ociroot-test", tree / depth], check=True)
    else:
        subprocess.run(["mount", "--bind", precious, tree / depth], check=True)
    (tree / depth / "file").write_text("mine")
    (tree / depth).chmod(0o500)
    before = snapshot(tree / depth)
    parent_fd = os.open(place, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="busy"):
            remove_tree(parent_fd, "tree")
    finally:
        os.close(parent_fd)
    (point,) = mounts_below(place)
    assert differences(before, snapshot(Path(point))) == []


def without_proc(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command without /proc."""
    need_tools("unshare")
    script = 'mount -t tmpfs none /proc && exec "$@"'
    return subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
            *(sys.executable, "-m", "ociroot", *map(str, command)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("proc", [True, False])
@pytest.mark.parametrize("below", ["data", "var/lib/with a blank/data"])
def test_a_bind_mount_below_the_old_tree_is_kept(
    image: Path, place: Path, proc: bool, below: str
) -> None:
    root, precious = place / "root", place / "precious"
    for name in ("bin", "etc", below):
        (root / name).mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("mine")
    with ExitStack() as stack:
        bound(precious, root / below, stack)
        before = snapshot(root)
        if proc:
            with pytest.raises(DestinationError) as caught:
                extract(image, root, replace=True)
            said = str(caught.value)
        else:
            done = without_proc("extract", "--replace", image, root)
            assert done.returncode == 7
            said = done.stderr
        assert f"{below} is mounted below it; unmount it first" in said
        assert differences(before, snapshot(root)) == []
    assert (precious / "file").read_text() == "mine"
    assert sorted(path.name for path in place.iterdir()) == ["image", "precious", "root"]


def test_without_proc_all_else_goes(image: Path, place: Path) -> None:
    root = place / "root"
    deep = root / "bin" / "/".join(["d"] * 300)
    for options in ((), ("--replace",), ("--replace",)):
        done = without_proc("extract", *options, image, root)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
        assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]
        deep.mkdir(parents=True)
    with ExitStack() as stack:
        assert without_proc("extract", image, tmpfs(place / "fs", stack)).returncode == 0


def test_where_mounts_cannot_be_told_nothing_is_replaced(
    image: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither /proc nor statx(2) with mount IDs, as before Linux 5.8 in a chroot."""
    root = place / "root"
    extract(image, root)
    leave(image, place / "other")
    before = snapshot(root)
    monkeypatch.setattr(linux, "mount_id", lambda _: None)
    with pytest.raises(DestinationError, match="cannot be determined without /proc"):
        extract(image, root, replace=True)
    assert differences(before, snapshot(root)) == []
    # Everything else works; left-overs of other runs are not removed.
    assert "left-over-kept" in extract(image, place / "other")
    assert (place / "other/bin/a").exists()


def test_what_was_mounted_meanwhile_is_kept(image: Path, place: Path) -> None:
    root, precious = place / "root", place / "precious"
    for name in ("bin", "etc/data"):
        (root / name).mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("mine")
    precious.chmod(0o500)
    before = snapshot(precious)

    def progress(_: object) -> None:
        if not mounts_below(place):
            subprocess.run(["mount", "--bind", precious, root / "etc/data"], check=True)

    assert "left-over" in extract(image, root, replace=True, progress=progress)
    assert sorted(path.name for path in root.iterdir()) == ["bin", "etc"]
    extract(image, root, replace=True)  # the next run keeps it, too
    assert differences(before, snapshot(precious)) == []
    subprocess.run(["umount", mounts_below(place)[0]], check=True)
    extract(image, root, replace=True)
    assert sorted(path.name for path in place.iterdir()) == ["image", "precious", "root"]


def test_a_left_over_that_is_a_mount_point_is_left_alone(image: Path, place: Path) -> None:
    leave(image, place / "root")
    (left,) = place.glob(".root.ociroot-*")
    with ExitStack() as stack:
        bound(left, place / "elsewhere", stack)
        bound(place / "elsewhere", left, stack)
        assert "left-over-kept" in extract(image, place / "root")
        assert (left / "rootfs").is_dir()
    assert (left / "rootfs").is_dir()


# An image inside its own destination.


def test_blobs_of_a_layout_behind_a_bind_mount_of_the_destination(place: Path) -> None:
    root = place / "root"
    for name in ("bin", "etc"):
        (root / name).mkdir(parents=True)
    layout = unpacked(archive(place / "image", [MEMBERS]), place / "layout")
    (layout / "blobs").rename(root / "blobs")
    (layout / "blobs").mkdir()
    before = snapshot(root)
    subprocess.run(["mount", "--bind", root / "blobs", layout / "blobs"], check=True)
    try:
        with pytest.raises(DestinationError, match="the image is inside it"):
            extract(layout, root, replace=True)
        assert differences(before, snapshot(root)) == []
    finally:
        subprocess.run(["umount", layout / "blobs"], check=True)


@pytest.mark.parametrize("what", ["the destination", "a directory in it", "the file"])
@pytest.mark.parametrize("proc", [True, False])
def test_an_image_behind_a_bind_mount_of_its_destination(
    place: Path, what: str, proc: bool
) -> None:
    root, other = place / "root", place / "other"
    for name in ("bin", "etc", "images/more"):
        (root / name).mkdir(parents=True)
    image = archive(root / "images/more/image", [MEMBERS])
    with ExitStack() as stack:
        if what == "the file":
            (place / "file").touch()
            subprocess.run(["mount", "--bind", image, place / "file"], check=True)
            path = place / "file"
        elif what == "a directory in it":
            path = bound(root / "images", other, stack) / "more/image"
        else:
            path = bound(root, other, stack) / "images/more/image"
        before = snapshot(root)
        if proc:
            with pytest.raises(DestinationError, match="the image is inside it"):
                extract(path, root, replace=True)
        else:
            done = without_proc("extract", "--replace", path, root)
            assert done.returncode == 7
            assert "the image is inside it" in done.stderr
        assert differences(before, snapshot(root)) == []
        # Beside the destination it is allowed.
        extract(path, place / "new")
        extract(path, place / "new", replace=True)


def test_an_image_on_the_same_file_system_elsewhere(image: Path, place: Path) -> None:
    (place / "images").mkdir()
    image.rename(place / "images/image")
    with ExitStack() as stack:
        path = bound(place / "images", place / "other", stack) / "image"
        for options in ({}, {"replace": True}):
            assert extract(path, place / "root", **options) == {}
