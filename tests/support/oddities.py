"""Changes to a tree that the real images record as layers: unusual files, changes, removals.

Each function changes a tree in place, as root, with ordinary system calls.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

# linux/capability.h: VFS_CAP_REVISION_2 with the effective bit, CAP_NET_RAW permitted.
CAP_NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
# 2023-11-14 and some nanoseconds; no two attributes of these trees are equal by chance.
MOMENT = 1_700_000_000_123_456_789
SECOND = 10**9
# Above 2^21-1, the maximum of seven octal digits.
BIG_ID = 3_000_000_000


def _write(path: Path, data: bytes | str = b"", mode: int = 0o644, owner: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def _directory(path: Path, mode: int = 0o755, owner: int = 0) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def _touch(path: Path, moment: int) -> None:
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


def add_oddities(root: Path) -> None:
    """Add one of everything that a layer can contain."""
    odd = _directory(root / "srv/odd")
    _modes_and_owners(odd)
    _extended_attributes(odd)
    _links(root, odd)
    _special_files(odd)
    _names(odd)
    _times(odd)
    _before_the_changes(root)


def _modes_and_owners(odd: Path) -> None:
    _write(odd / "set-uid", "#!/bin/sh\n", 0o4755)
    _write(odd / "set-uid-of-another", "#!/bin/sh\n", 0o6711, 1234)
    _write(odd / "big-owner", "big", 0o640, BIG_ID)
    _write(odd / "no-mode", "secret", 0)
    _directory(odd / "set-gid", 0o2775, 1234)
    _directory(odd / "sticky", 0o1777)
    _directory(odd / "closed", 0)
    _write(odd / "closed/inside", "closed")
    _directory(odd / "read-only")
    _write(odd / "read-only/inside", "read only")
    (odd / "read-only").chmod(0o555)


def _extended_attributes(odd: Path) -> None:
    capable = _write(odd / "capable", "#!/bin/true\n", 0o755)
    os.setxattr(capable, "security.capability", CAP_NET_RAW)
    both = _write(odd / "capable-set-uid", "#!/bin/true\n", 0o4755, 1234)
    os.setxattr(both, "security.capability", CAP_NET_RAW)
    noted = _write(odd / "user-xattr", "noted")
    os.setxattr(noted, "user.text", "größe".encode())
    os.setxattr(noted, "user.binary", bytes(range(256)))
    # No name with = and no empty value: Go's archive/tar does not write them.
    os.setxattr(noted, "user.like-a-record", b"a=b\n1 c=d\n")
    os.setxattr(_directory(odd / "user-xattr-directory"), "user.dir", b"\x00dir\x00")
    os.setxattr(odd / "user-xattr-directory", "trusted.note", b"trusted")
    listed = _write(odd / "acl", "acl", 0o640)
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:2345:r,m::rw", listed], check=True)
    shared = _directory(odd / "acl-directory")
    subprocess.run(["setfacl", "-m", "u:1234:rwx", shared], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx,g:2345:r,o::-", shared], check=True)
    _write(shared / "inherited", "inherited", 0o640)


def _links(root: Path, odd: Path) -> None:
    _write(odd / "links/first", "linked")
    _directory(odd / "links/sub")
    for name in ("second", "sub/third"):
        os.link(odd / "links/first", odd / "links" / name)
    os.link(odd / "capable", odd / "links/capable")
    os.link(root / "etc/debian_version", odd / "links/from-below")
    for name, target in {
        "relative": b"links/first",
        "absolute": b"/etc/debian_version",
        "dangling": b"no/such/thing",
        "loop": b"symlink-loop",
        "to-directory": b"links",
        "out": b"../../../../../../etc/passwd",
        "odd-target": b"caf\xe9 \xff",
    }.items():
        (odd / f"symlink-{name}").symlink_to(os.fsdecode(target))
    os.chown(odd / "symlink-dangling", 1234, 2345, follow_symlinks=False)
    _touch(odd / "symlink-dangling", MOMENT)
    os.link(odd / "symlink-dangling", odd / "links/symlink", follow_symlinks=False)


def _special_files(odd: Path) -> None:
    device = odd / "devices"
    _directory(device)
    os.mknod(device / "null", 0o020666, os.makedev(1, 3))
    (device / "null").chmod(0o666)
    os.mknod(device / "disk", 0o060660, os.makedev(259, 1_000_000))
    os.chown(device / "disk", 0, 6)
    os.mkfifo(odd / "fifo", 0o600)
    os.chown(odd / "fifo", 1234, 2345)
    os.link(odd / "fifo", odd / "links/fifo")
    with (odd / "sparse").open("wb") as file:
        file.seek(3 * 2**20)
        file.write(b"island")
        file.truncate(8 * 2**20)


def _names(odd: Path) -> None:
    names = os.fsencode(_directory(odd / "names"))
    for name in (
        "naïve—名前 🙂".encode(),
        b"latin-1-\xe9\xff",
        b"new\nline",
        b"back\\slash",
        b" blanks ",
        b"-dash",
        b"*?[glob]",
        b"..three",
        b"=equals=",
        b"n" * 255,
    ):
        Path(os.fsdecode(names + b"/" + name)).write_bytes(name)
    deep = odd / "names"
    for level in range(30):
        deep = deep / f"{level:02}-a-level-of-a-long-path"
    _write(deep / "bottom", "deep")
    (odd / "names/long-target").symlink_to("t" * 1000)
    os.link(deep / "bottom", odd / "names/link-to-the-bottom")


def _times(odd: Path) -> None:
    for name, moment in {
        "nanoseconds": MOMENT,
        "one-nanosecond": 1_600_000_000 * SECOND + 1,
        "trailing-zeros": 1_600_000_000 * SECOND + 120_000_000,
        "epoch": 0,
        "far-future": 2**33 * SECOND + 5 * SECOND,
    }.items():
        _touch(_write(odd / "times" / name, name), moment)
    for name in ("times", "names", "closed"):
        _touch(odd / name, MOMENT + len(name))


def _before_the_changes(root: Path) -> None:
    """Create what `swap_types` and `remove` change."""
    swap = root / "srv/swap"
    _write(swap / "directory-to-link/inside", "old")
    _write(swap / "directory-to-file/sub/inside", "old")
    _write(swap / "target/inside", "target")
    (swap / "link-to-directory").symlink_to("target")
    (swap / "link-to-file").symlink_to("target/inside")
    _write(swap / "file-to-directory", "old")
    _write(swap / "file-to-link", "old")
    _write(swap / "file-to-fifo", "old")
    _write(swap / "linked-a", "both")
    os.link(swap / "linked-a", swap / "linked-b")
    os.setxattr(_directory(swap / "attributes", 0o2750, 1234), "user.old", b"old")
    os.setxattr(_write(swap / "loses-its-xattr", "old"), "user.old", b"old")
    made_again = root / "srv/made-again"
    _write(made_again / "old", "old")
    _write(made_again / "both", "old")
    _write(made_again / "sub/old", "old")
    _write(root / "srv/gone/sub/file", "gone")
    _write(root / "srv/untouched/file", "untouched")
    for name in ("untouched/file", "untouched"):
        _touch(root / "srv" / name, MOMENT + 42)


def swap_types(root: Path) -> None:
    """Replace directories with links and vice versa, and files with other types."""
    swap = root / "srv/swap"
    shutil.rmtree(swap / "directory-to-link")
    (swap / "directory-to-link").symlink_to("target")
    (swap / "link-to-directory").unlink()
    _write(swap / "link-to-directory/inside", "new")
    (swap / "link-to-file").unlink()
    _write(swap / "link-to-file", "new")
    (swap / "file-to-directory").unlink()
    _write(swap / "file-to-directory/inside", "new")
    (swap / "file-to-link").unlink()
    (swap / "file-to-link").symlink_to("target/inside")
    (swap / "file-to-fifo").unlink()
    os.mkfifo(swap / "file-to-fifo")
    # The hard links separate: one name gets a new inode, the other keeps the old one.
    (swap / "linked-a").unlink()
    _write(swap / "linked-a", "apart")
    os.removexattr(swap / "attributes", "user.old")
    os.setxattr(swap / "attributes", "user.new", b"new")
    _directory(swap / "attributes", 0o1711, 4321)
    _touch(swap / "attributes", MOMENT)
    os.removexattr(swap / "loses-its-xattr", "user.old")
    _write(swap / "loses-its-xattr", "new")


def directory_to_file(root: Path) -> None:
    """Replace a non-empty directory with a file."""
    shutil.rmtree(root / "srv/swap/directory-to-file")
    _write(root / "srv/swap/directory-to-file", "new", 0o600)


def remove(root: Path) -> None:
    """Remove a file and a directory; replace another directory with one of other content."""
    shutil.rmtree(root / "srv/gone")
    shutil.rmtree(root / "srv/made-again")
    _write(root / "srv/made-again/both", "new")
    _write(root / "srv/made-again/new", "new")
    (root / "srv/odd/links/second").unlink()
    (root / "srv/swap/link-to-directory/inside").unlink()


def package(directory: Path, version: str) -> Path:
    """Build a package whose versions differ in what is a directory, a link and a file."""
    build = directory / f"build-{version}"
    _write(
        build / "DEBIAN/control",
        f"Package: ociroot-probe\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: nobody <nobody@localhost>\nDescription: changes between layers\n",
    )
    share = build / "usr/share/ociroot-probe"
    _write(share / "version", version + "\n")
    if version == "1":
        _write(share / "only-in-1/file", "one")
        _write(share / "data", "data of version 1\n" * 1000)
    else:
        _write(share / "only-in-2/file", "two")
        _write(share / "data/now-a-directory", "two")
        (share / "link").symlink_to("only-in-2")
    made = directory / f"ociroot-probe_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", build, made], check=True, stdout=-3
    )
    shutil.rmtree(build)
    return made


def archive_by_tar(root: Path) -> None:
    """Fill a directory with what umoci and buildah lose but tar can store."""
    _write(root / "nanoseconds", "now")
    with (root / "sparse").open("wb") as file:
        for island in range(1, 40):
            file.seek(island * 100_000)
            file.write(b"island %d" % island)
        file.truncate(5 * 2**20 + 1)
    os.setxattr(_write(root / "xattr", "xattr"), "user.text", "größe".encode())
    os.setxattr(_write(root / "capable", "capable", 0o755), "security.capability", CAP_NET_RAW)
    _write(root / ("d" * 120) / ("f" * 120), "long")
    (root / "link").symlink_to("t" * 150)
    os.link(root / ("d" * 120) / ("f" * 120), root / ("h" * 120))
    _write(root / "before-1970", "old")
    for index, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        _touch(path, MOMENT + index * 1_000_000_007)
    _touch(root / "before-1970", -86400 * SECOND)
    _touch(root, MOMENT)
