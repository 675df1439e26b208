"""Compare a tree on disk with the same tree in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ociroot import Data, Merged
from ociroot.rootfs.contents import iter_chunks
from ociroot.rootfs.nodes import HOST_XATTRS, Directory, Node

from .checks import check

__all__ = ["compare"]

_TYPES = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}
# Times that every file system can store.
_KEPT = range(2**31)
# The kernel stores the others in another form.
_AS_GIVEN = (b"user.", b"trusted.")
_PATH_MAX = 4000
# Larger files can only be sparse; their holes are not read.
_WHOLE = 1 << 20


def compare(root: Path, merged: Merged, warnings: set[str]) -> None:
    """Check that a directory equals the merged tree.

    Args:
        root: the directory.
        merged: the tree in memory.
        warnings: the codes of the extraction's warnings; what they report is not compared.
    """
    base = os.fsencode(root)
    files: dict[Node, bytes] = {}
    _check_node(base, merged.tree.root, warnings)
    for parent, path in _directories(base, merged.tree.root):
        found = set(map(os.fsencode, os.listdir(path)))
        # Linux allows an ordinary user to create the character device 0:0, and no other.
        absent = {"char", "block"} if "devices" in warnings else set()
        wanted = {
            name
            for name, node in parent.entries.items()
            if node.kind not in absent or name in found
        }
        check(found == wanted, f"in {path!r}: {found ^ wanted}")
        for name in wanted:
            node = parent.entries[name]
            _check_node(path + b"/" + name, node, warnings)
            if node.kind == "file":
                files[node] = path + b"/" + name
    for node, stream in merged.files(files):
        if os.geteuid() == 0 or node.mode & 0o400:
            _check_content(files[node], node, stream)


def _directories(base: bytes, root: Directory) -> Iterator[tuple[Directory, bytes]]:
    todo = [(root, base)]
    while todo:
        directory, path = todo.pop()
        # The paths of deeper ones are too long for the kernel.
        if len(path) > _PATH_MAX:
            continue
        if os.geteuid() != 0 and directory.mode & 0o500 != 0o500:
            continue
        yield directory, path
        for name, node in directory.entries.items():
            if isinstance(node, Directory):
                todo.append((node, path + b"/" + name))


def _check_node(path: bytes, node: Node, warnings: set[str]) -> None:
    if len(path) > _PATH_MAX:
        return
    status = os.lstat(path)
    check(stat.S_IFMT(status.st_mode) == _TYPES[node.kind], (path, node.kind))
    xattrs = node.xattrs or {}
    if node.kind != "symlink" and not any(b"posix_acl" in name for name in xattrs):
        check(stat.S_IMODE(status.st_mode) == node.mode, (path, oct(status.st_mode), node.mode))
    if "owners" not in warnings:
        owner = (status.st_uid, status.st_gid)
        check(owner == (node.uid, node.gid), (path, owner, node.uid, node.gid))
    if node.mtime_ns // 10**9 in _KEPT:
        check(status.st_mtime_ns == node.mtime_ns, (path, status.st_mtime_ns, node.mtime_ns))
    if node.kind == "file":
        check(status.st_size == node.size, (path, status.st_size, node.size))
    if node.kind == "symlink":
        check(os.readlink(path) == node.target, (path, node.target))
    if node.kind in ("char", "block"):
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        check(device == node.rdev, (path, device, node.rdev))
    if node.kind != "dir":
        check(status.st_nlink == node.links, (path, status.st_nlink, node.links))
    if not any(code.startswith("xattrs-") for code in warnings):
        wanted = {n: v for n, v in xattrs.items() if _is_compared(n)}
        found = {n: v for n, v in _xattrs(path).items() if _is_compared(n)}
        check(found == wanted, (path, found, wanted))


def _is_compared(name: bytes) -> bool:
    return name.startswith(_AS_GIVEN) and not name.startswith(HOST_XATTRS)


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {os.fsencode(n): os.getxattr(path, n, follow_symlinks=False) for n in names}
    except OSError:  # not supported by the file system, or the file is not readable
        return {}


def _check_content(path: bytes, node: Node, stream: Data) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if node.size <= _WHOLE:
            check(os.pread(fd, node.size, 0) == b"".join(iter_chunks(node, stream)), path)
            return
        for offset, length in node.segments or ():
            check(
                os.pread(fd, length, offset) == b"".join(stream.iter_chunks(length)), (path, offset)
            )
        _check_holes(fd, node)
    finally:
        os.close(fd)


def _check_holes(fd: int, node: Node) -> None:
    """Check that the holes read as zeros and take no more blocks than they must."""
    status = os.fstat(fd)
    pages = 2 * len(node.segments or ()) + node.stored_size // 4096
    check(status.st_blocks * 512 <= max(pages, 1) * status.st_blksize, status.st_blocks)
    end = 0
    for offset, length in [*(node.segments or ()), (node.size, 0)]:
        for start in {end, max(end, offset - 4096)}:
            hole = os.pread(fd, min(4096, offset - start), start)
            check(not hole.strip(b"\0"), f"no zeros at {start}")
        end = offset + length
