"""Snapshots of trees on disk, taken without following links, for comparison in tests."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# With SELinux, the kernel labels every new file. Elsewhere the attribute is like any other.
_LABELLED = ("security.selinux",) if Path("/sys/fs/selinux/enforce").exists() else ()


@dataclass(frozen=True)
class Record:
    """One name of a tree, with the results of stat(2), readlink(2), listxattr(2) and read(2)."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    sha256: str | None
    target: bytes | None
    rdev: tuple[int, int] | None
    links: tuple[bytes, ...]
    xattrs: dict[bytes, bytes]


Snapshot = dict[bytes, Record]
# Takes an attribute's name and the path; returns True if they may differ there.
Ignore = Container[str] | Callable[[bytes, str], bool]


def snapshot(root: Path) -> Snapshot:
    """Record everything at and below `root`, by the path relative to it (`b"."` for itself)."""
    records: Snapshot = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    digests: dict[tuple[int, int], str] = {}

    def note(path: bytes, directory: int, name: bytes, status: os.stat_result) -> None:
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        inode = (status.st_dev, status.st_ino)
        if kind != "dir":
            inodes.setdefault(inode, []).append(path)
        if kind == "file" and inode not in digests:
            digests[inode] = _digest(directory, name)
        device = kind in ("char", "block")
        records[path] = Record(
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if kind == "file" else 0,
            sha256=digests[inode] if kind == "file" else None,
            target=os.readlink(name, dir_fd=directory) if kind == "symlink" else None,
            rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else None,
            links=(),
            xattrs=_xattrs(directory, name),
        )

    for path, directory, name, status in _walk(os.fsencode(root)):
        note(path, directory, name, status)
    for paths in inodes.values():
        group = tuple(sorted(paths))
        for path in paths:
            records[path] = replace(records[path], links=group)
    return records


def _walk(root: bytes) -> Iterator[tuple[bytes, int, bytes, os.stat_result]]:
    """Yield (path, descriptor of the directory, name in it, stat) for the root and all below.

    One descriptor is open at a time and `..` leads back, so depth is not limited by the stack,
    PATH_MAX or the number of open files. The tree must not change meanwhile.
    """
    handle = os.open(root, _OPEN_DIR)
    try:
        yield b".", handle, b".", os.fstat(handle)
        prefix = b""
        waiting: list[list[bytes]] = []  # the subdirectories still to enter, one list per level
        lengths: list[int] = []  # of the prefixes to go back to
        while True:
            below: list[bytes] = []
            for name in sorted((os.fsencode(n.name) for n in os.scandir(handle)), reverse=True):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                yield prefix + name, handle, name, status
                if stat.S_ISDIR(status.st_mode):
                    below.append(name)
            waiting.append(below)
            while waiting and not waiting[-1]:
                waiting.pop()
                if waiting:
                    handle = _move(handle, b"..")
                    prefix = prefix[: lengths.pop()]
            if not waiting:
                return
            name = waiting[-1].pop()
            handle = _move(handle, name)
            lengths.append(len(prefix))
            prefix += name + b"/"
    finally:
        os.close(handle)


def _move(handle: int, name: bytes) -> int:
    other = os.open(name, _OPEN_DIR, dir_fd=handle)
    os.close(handle)
    return other


def _proc(handle: int, name: bytes) -> bytes:
    # listxattr takes no dir_fd; through /proc the path stays short however deep we are.
    return b"/proc/self/fd/%d/%b" % (handle, name)


def _xattrs(directory: int, name: bytes) -> dict[bytes, bytes]:
    path = _proc(directory, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # the file system does not support them
        return {}
    return {
        os.fsencode(key): os.getxattr(path, key, follow_symlinks=False)
        for key in names
        if key not in _LABELLED
    }


def _digest(directory: int, name: bytes) -> str:
    with open(os.open(name, _OPEN_FILE, dir_fd=directory), "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


ATTRIBUTES = tuple(field.name for field in fields(Record))


def differences(a: Snapshot, b: Snapshot, ignore: Ignore = ()) -> list[str]:
    """Return a line of text for each attribute that differs; empty if the trees are equal.

    `ignore` is a set of attributes (of `Record`, or `missing` for a path that only one side has)
    or a function of path and attribute. Where the kinds differ nothing else is compared.
    """

    def ignored(path: bytes, attribute: str) -> bool:
        return ignore(path, attribute) if callable(ignore) else attribute in ignore

    lines = []
    for path in sorted(a.keys() | b.keys()):
        left, right = a.get(path), b.get(path)
        if left is None or right is None:
            if not ignored(path, "missing"):
                side, there = ("first", right) if left is None else ("second", left)
                lines.append(f"{_show(path)}: missing in the {side}; {there}")
            continue
        for attribute in ATTRIBUTES if left.kind == right.kind else ("kind",):
            one, other = getattr(left, attribute), getattr(right, attribute)
            if one != other and not ignored(path, attribute):
                form = oct if attribute == "mode" else repr
                lines.append(f"{_show(path)}: {attribute}: {form(one)} != {form(other)}")
    return lines


def _show(path: bytes) -> str:
    return repr(path)[1:]
