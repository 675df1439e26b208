"""A tree of an ordinary user with its record becomes root's tree, and nothing else changes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot import ExtractOptions, OutputPolicy, OwnerMap, PathFilter, apply_owners
from ociroot.outputs import apply as applying

from .support.build import Member, archive, directory, file, link, symlink
from .support.command import run
from .support.mounts import mounted
from .support.needs import need_file, need_tools
from .support.snapshot import differences, snapshot
from .support.user import NOBODY, as_ordinary_user, workshop
from .test_shapes import ACL, CAPABILITY

pytestmark = pytest.mark.root

MEMBERS = [
    directory(b".", mode=0o711, uid=3, gid=3),
    directory(b"etc", uid=7, gid=8, mode=0o2750, xattrs={b"system.posix_acl_default": ACL}),
    file(b"etc/shadow", b"secret", uid=0, gid=42, mode=0, xattrs={b"user.a": b"b"}),
    file(b"etc/acl", b"x", uid=5, gid=5, xattrs={b"system.posix_acl_access": ACL}),
    file(b"bin/ping", b"x", uid=0, gid=0, mode=0o755, xattrs={b"security.capability": CAPABILITY}),
    file(b"bin/su", b"x", uid=0, gid=0, mode=0o4755, xattrs={b"trusted.t": b"\0\1"}),
    link(b"bin/su2", b"bin/su"),
    symlink(b"lib", b"usr/lib", uid=9, gid=9),
    file(b"a name\nwith \xff\\", b"x", uid=4294967294, gid=1),
    Member(b"dev/null", "char", rdev=(1, 3), uid=0, gid=0, mode=0o666),
    Member(b"dev/loop", "block", rdev=(7, 70000), uid=0, gid=6, mode=0o660),
    Member(b"dev/pipe", "fifo", uid=1, gid=1, mode=0o600),
    directory(b"closed", mode=0, uid=2, gid=2),
    file(b"closed/in", b"y", mode=0o400, uid=2, gid=2),
]


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        archive(where / "image", [MEMBERS])
        (where / "image").chmod(0o644)
        yield where


def extract(where: Path, name: str, options: ExtractOptions) -> list[str]:
    with ociroot.open(where / "image") as source:
        report = source.image().extract(where / name, options)
    return [warning.code for warning in report.warnings]


def recorded(where: Path, name: str = "tree", **options: object) -> Path:
    """The tree of an ordinary user, with its record beside it."""
    chosen = ExtractOptions(record="mtree", **options)  # type: ignore[arg-type]
    assert as_ordinary_user(lambda: extract(where, name, chosen)) == []
    return where / name


def test_the_tree_of_a_user_becomes_that_of_root(place: Path) -> None:
    extract(place, "root", ExtractOptions())
    tree = recorded(place)
    mine = snapshot(tree)
    assert {record.uid for record in mine.values()} == {NOBODY}
    assert not any(record.kind in ("char", "block") for record in mine.values())
    # The user can read and remove all of it.
    assert all(record.mode & 0o600 == 0o600 for record in mine.values() if record.kind != "symlink")
    assert not any(record.mode & 0o7000 for record in mine.values())
    report = apply_owners(tree)
    assert report.warnings == ()
    assert (report.changed, report.devices) == (len(mine), 2)
    assert differences(snapshot(place / "root"), snapshot(tree)) == []
    # A second time nothing changes.
    assert apply_owners(tree, place / "tree.mtree").devices == 0
    assert differences(snapshot(place / "root"), snapshot(tree)) == []


def test_a_record_has_mapped_owners(place: Path) -> None:
    used = OutputPolicy(owners=OwnerMap.parse("0:100000:65536", "0:100000:65536", "65534:65534"))
    extract(place, "root", ExtractOptions(policy=used))
    tree = recorded(place, policy=used)
    apply_owners(tree)
    assert differences(snapshot(place / "root"), snapshot(tree)) == []


def test_a_record_of_a_part_is_applied_to_it(place: Path) -> None:
    part: dict[str, Any] = {
        "filter": PathFilter(subtree=b"/", excludes=[b"su", b"null"], includes=[b"/bin", b"/dev"])
    }
    extract(place, "root", ExtractOptions(**part))
    tree = recorded(place, **part)
    assert set(snapshot(tree)) == {b".", b"bin", b"bin/ping", b"bin/su2", b"dev", b"dev/pipe"}
    apply_owners(tree)
    assert differences(snapshot(place / "root"), snapshot(tree)) == []
    tree = recorded(place, policy=OutputPolicy(devices="skip", xattrs=()), name="other")
    assert apply_owners(tree).devices == 0
    assert not any(record.xattrs for record in snapshot(tree).values())


def test_bsdtar_makes_the_archive_of_it(place: Path) -> None:
    """As the user, with owners and devices that the user could not make."""
    need_tools("bsdtar", "tar")
    extract(place, "root", ExtractOptions())
    tree = recorded(place)

    def pack() -> None:
        command = ["bsdtar", "--format=pax", "--options=hdrcharset=BINARY", "-cf", "../out.tar"]
        subprocess.run(
            [*command, "@../tree.mtree"],
            cwd=tree,
            check=True,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )

    as_ordinary_user(pack)
    (place / "got").mkdir()
    unpack = ["tar", "--numeric-owner", "-xpf", str(place / "out.tar"), "-C", str(place / "got")]
    subprocess.run(unpack, check=True)
    # What mtree has no words for: links between files, and extended attributes.
    lost = {"links", "xattrs"}
    want = {p: r for p, r in snapshot(place / "root").items() if not r.xattrs or p == b"bin/ping"}
    got = {p: r for p, r in snapshot(place / "got").items() if p in want}
    assert len(want) > 10
    assert differences(want, got, lost) == []


def test_the_commands(place: Path) -> None:
    done = run("extract", "--record-owners", "mtree", place / "image", place / "tree")
    assert done.returncode == 0, done.stderr
    done = run("extract", "--record-owners", "mtree", place / "image", place / "other.d")
    assert done.returncode == 0, done.stderr
    assert (place / "other.d.mtree").read_bytes() == (place / "tree.mtree").read_bytes()
    done = run("extract", "--record-owners", "mtree", place / "image", place / "tree")
    assert done.returncode == 7
    assert "it exists and is not empty (--replace" in done.stderr
    shutil.rmtree(place / "tree")
    done = run("extract", "--record-owners", "mtree", place / "image", place / "tree")
    assert (done.returncode, (place / "tree").exists()) == (7, False)
    assert "tree.mtree: it exists (--replace replaces it)" in done.stderr
    done = run("extract", "--record-owners=mtree", "--replace", place / "image", f"{place}/tree/")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in place.iterdir()) == [
        "image", "other.d", "other.d.mtree", "tree", "tree.mtree",
    ]  # fmt: skip
    done = run("apply-owners", place / "other.d", "--record", place / "tree.mtree")
    assert done.returncode == 0
    assert done.stderr == f"14 files and directories, 2 devices → {place}/other.d\n"
    done = run("apply-owners", "--json", "-q", place / "tree")
    assert (done.returncode, done.stderr) == (0, "")
    assert f'"record": "{place}/tree.mtree"' in done.stdout


def test_only_root_can(place: Path) -> None:
    tree = recorded(place)
    with pytest.raises(ociroot.DestinationError, match="only root can give files away"):
        as_ordinary_user(lambda: apply_owners(tree))


def test_what_is_no_record_is_refused(place: Path) -> None:
    tree = recorded(place)
    before = snapshot(tree)
    os.mkfifo(place / "pipe")
    for record in (place / "absent", place / "pipe", place / "image", Path("/dev/zero")):
        with pytest.raises(ociroot.OcirootError):
            apply_owners(tree, record)
    (place / "tree.mtree").write_bytes((place / "tree.mtree").read_bytes() + b"./../x type=dir\n")
    with pytest.raises(ociroot.OcirootError, match=r"tree.mtree: line \d+: "):
        apply_owners(tree)
    assert differences(before, snapshot(tree)) == []


# A tree whose owner does not mean well. `outside` is what must not change.


@pytest.fixture
def tree(place: Path) -> Path:
    return recorded(place)


@pytest.fixture
def outside(place: Path) -> Iterator[Path]:
    """Files of root beside the tree; they are as before when the test ends."""
    (place / "outside/etc").mkdir(parents=True)
    (place / "outside/etc/shadow").write_bytes(b"of root")
    (place / "outside/etc/acl").write_bytes(b"of root")
    (place / "outside/null").touch()
    before = snapshot(place / "outside")
    yield place / "outside"
    assert differences(before, snapshot(place / "outside"), {"links"}) == []


def replaced_by(new: Callable[[Path, Path], None], name: str) -> Callable[[Path, Path], None]:
    def attack(tree: Path, outside: Path) -> None:
        path = tree / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        new(path, outside)

    return attack


ATTACKS: dict[str, Callable[[Path, Path], None]] = {
    "a directory is a link": replaced_by(lambda p, o: p.symlink_to(o / "etc"), "etc"),
    "a file is a link": replaced_by(lambda p, o: p.symlink_to(o / "etc/shadow"), "etc/shadow"),
    "a file is a hard link": replaced_by(
        lambda p, o: p.hardlink_to(o / "etc/shadow"), "etc/shadow"
    ),
    "a file is a directory": replaced_by(lambda p, o: p.mkdir(), "etc/shadow"),
    "a file is a pipe": replaced_by(lambda p, o: os.mkfifo(p), "etc/shadow"),
    "a directory is a file": replaced_by(lambda p, o: p.touch(), "closed"),
    "a link is a file": replaced_by(lambda p, o: p.touch(), "lib"),
    "a link is a hard link": replaced_by(lambda p, o: p.hardlink_to(o / "null"), "lib"),
    "a device is a link": replaced_by(lambda p, o: p.symlink_to(o / "null"), "dev/null"),
    "a device is a file": replaced_by(lambda p, o: p.hardlink_to(o / "null"), "dev/null"),
    "a device is another": replaced_by(
        lambda p, o: os.mknod(p, stat.S_IFCHR | 0o666, os.makedev(1, 1)), "dev/null"
    ),
    "a name is missing": replaced_by(lambda p, o: None, "bin/ping"),
    "a directory is missing": replaced_by(lambda p, o: None, "closed"),
    "a third name outside": lambda tree, outside: (tree.parent / "su").hardlink_to(tree / "bin/su"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_tree_that_was_changed_is_refused(tree: Path, outside: Path, attack: str) -> None:
    ATTACKS[attack](tree, outside)
    with pytest.raises(ociroot.DestinationError):
        apply_owners(tree)
    # Until it is done again, nobody but root can enter it.
    assert (tree.stat().st_uid, stat.S_IMODE(tree.stat().st_mode)) == (0, 0o700)
    # No file has got what the record gives.
    assert not any(r.mode & 0o7000 for r in snapshot(tree).values() if r.kind == "file")


def test_a_link_on_the_way_to_the_tree_is_not_followed(tree: Path, outside: Path) -> None:
    (tree.parent / "way").symlink_to(tree.parent)
    (tree.parent / "to").symlink_to(outside)
    for path in (tree.parent / "way/tree", tree.parent / "to"):
        with pytest.raises(ociroot.DestinationError, match=r"cannot open it: (Too many|Not a)"):
            apply_owners(path, tree.parent / "tree.mtree")
    assert {record.uid for record in snapshot(tree).values()} == {NOBODY}


def test_a_mount_in_the_tree_is_refused(tree: Path, outside: Path) -> None:
    message = "etc: another file system is mounted"
    refused = pytest.raises(ociroot.DestinationError, match=message)
    with mounted(tree / "etc", "--bind", outside / "etc"), refused:
        apply_owners(tree)


def test_a_file_mounted_in_the_tree_is_refused(tree: Path, outside: Path) -> None:
    subprocess.run(["mount", "--bind", outside / "etc/acl", tree / "etc/acl"], check=True)
    try:
        with pytest.raises(ociroot.DestinationError, match="another file system is mounted"):
            apply_owners(tree)
    finally:
        subprocess.run(["umount", tree / "etc/acl"], check=True)


def test_what_the_record_does_not_have_is_told_and_left(tree: Path, outside: Path) -> None:
    (tree / "etc/more").write_bytes(b"x")
    (tree / "etc/sub").symlink_to(outside)
    os.setxattr(tree / "bin/su", "user.planted", b"x")
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:rwx", tree / "bin/su"], check=True)
    before = snapshot(tree)
    report = apply_owners(tree)
    assert [(w.code, w.count) for w in report.warnings] == [("not-recorded", 2)]
    after = snapshot(tree)
    assert before[b"etc/more"] == after[b"etc/more"]
    # An ACL would let the former owner change a set-id program.
    assert after[b"bin/su"].xattrs == {b"trusted.t": b"\0\1"}


def acls(path: Path | str) -> list[str]:
    return [name for name in os.listxattr(path) if name.startswith("system.posix_acl_")]


@pytest.mark.parametrize("when", ["before", "while the device is made"])
def test_a_default_acl_does_not_let_the_former_owner_in(
    place: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A directory's default ACL becomes the ACL of what is made in it."""
    grant = ["setfacl", "-d", "-m", f"u:{NOBODY}:rwx", str(tree / "dev")]
    extract(place, "root", ExtractOptions())
    if when == "before":
        as_ordinary_user(lambda: subprocess.run(grant, check=True))
        assert acls(tree / "dev") == ["system.posix_acl_default"]
    mknod = os.mknod

    def make(name: bytes, mode: int, device: int, *, dir_fd: int) -> None:
        if when != "before":
            subprocess.run(grant, check=True)
        mknod(name, mode, device, dir_fd=dir_fd)
        inherited = acls(f"/proc/self/fd/{dir_fd}/{os.fsdecode(name)}")
        assert bool(inherited) is (when != "before")

    monkeypatch.setattr(os, "mknod", make)
    assert apply_owners(tree).devices == 2
    assert acls(tree / "dev/loop") == acls(tree / "dev") == []
    assert differences(snapshot(place / "root"), snapshot(tree)) == []


def test_what_is_done_meanwhile_comes_too_late(
    tree: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner has the directories open, and tries something between any two of our steps."""
    held = {}
    for name in ("", "etc", "bin"):
        held[name] = os.open(tree / name, os.O_RDONLY | os.O_DIRECTORY)
    opened = os.open(tree / "bin/su", os.O_RDWR)
    tried: list[str] = []

    def attack() -> list[str]:
        """As the tree's owner: exchange, link and make names in directories that are open."""
        worked = []
        for number, work in enumerate(
            (
                lambda: os.rename(
                    "shadow", "moved", src_dir_fd=held["etc"], dst_dir_fd=held["etc"]
                ),
                lambda: os.symlink(outside / "etc", "planted", dir_fd=held[""]),
                lambda: os.unlink("ping", dir_fd=held["bin"]),
                lambda: os.link(f"/proc/self/fd/{opened}", place_of_links / str(len(tried))),
                lambda: os.link("su", place_of_links / f"d{len(tried)}", src_dir_fd=held["bin"]),
            )
        ):
            try:
                work()  # type: ignore[no-untyped-call]
                worked.append(str(number))
            except OSError:
                pass
        return worked

    place_of_links = tree.parent / "links"
    place_of_links.mkdir()
    place_of_links.chmod(0o777)
    real = applying._Applier._take

    def take(self: applying._Applier, handle: int, node: ociroot.Node) -> None:
        real(self, handle, node)
        tried.extend(as_ordinary_user(attack))

    monkeypatch.setattr(applying._Applier, "_take", take)
    try:
        apply_owners(tree)
    except ociroot.DestinationError as error:
        assert "it has a name that the record does not have" in str(error)
    # It may be that a link to a file of theirs was made in time, which is a file of theirs.
    for path in place_of_links.iterdir():
        assert not path.stat().st_mode & 0o7000, "a set-id program is outside the tree"
    assert set(tried) <= {"3", "4"}
    for fd in (*held.values(), opened):
        os.close(fd)


def test_fuse_overlayfs_shows_what_attributes_record(place: Path) -> None:
    need_tools("fuse-overlayfs")
    need_file("/dev/fuse")
    extract(place, "root", ExtractOptions())
    options = ExtractOptions(record="xattr")
    assert as_ordinary_user(lambda: extract(place, "tree", options)) == ["owners-unrecorded"]
    (place / "merged").mkdir()
    with mounted_by_fuse(f"lowerdir={place}/tree", place / "merged"):
        want, got = snapshot(place / "root"), snapshot(place / "merged")
    # Nothing but files and directories can have the attribute, and devices could not be made.
    # An ACL is not recorded, and with it the mode's group bits are its mask.
    assert (want[b"etc/acl"].mode, got[b"etc/acl"].mode) == (0o674, 0o644)
    kept = [p for p, each in want.items() if each.kind in ("file", "dir") and p != b"etc/acl"]
    assert len(kept) == 11
    want, got = ({path: tree[path] for path in kept} for tree in (want, got))
    assert differences(want, got, {"xattrs", "links"}) == []


@pytest.mark.parametrize("at", range(0, 60, 4))
def test_what_was_stopped_can_be_done_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A failure of any of the calls that change something; then without it."""
    extract(place, "root", ExtractOptions())
    tree = recorded(place)
    calls = 0

    def failing(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in (
            "fchown",
            "fchmod",
            "chown",
            "chmod",
            "setxattr",
            "removexattr",
            "utime",
            "mknod",
        ):
            patch.setattr(os, name, failing(name))
        try:
            apply_owners(tree)
        except ociroot.DestinationError as error:
            assert "EIO" in str(error)
        else:
            assert calls <= at
    assert apply_owners(tree).warnings == ()
    assert differences(snapshot(place / "root"), snapshot(tree)) == []


class mounted_by_fuse:
    """A mount of fuse-overlayfs, for a block."""

    def __init__(self, layers: str, where: Path) -> None:
        self.layers, self.where = layers, where

    def __enter__(self) -> None:
        subprocess.run(["fuse-overlayfs", "-o", self.layers, self.where], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.where], check=True)
