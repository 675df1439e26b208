"""Hostile values for tar archives: names, numbers and records."""

from __future__ import annotations

# Frequent names collide; one of each hostile name is enough.
PARTS = (b"a", b"a", b"b", b"d", b"f", b"l", b"out", b"up", b"root", b"..", b".", b"")
NAMES = (
    b".wh.a",
    b".wh.f",
    b"a/.wh.f",
    b"a/.wh.d",
    b"l/.wh.f",
    b".wh..wh..opq",
    b"a/.wh..wh..opq",
    b"l/.wh..wh..opq",
    b"a/d/.wh..wh..opq",
    b".wh.",
    b".wh..",
    b"a/.wh...",
    b".wh..wh.aufs",
    b"a/.wh..wh.plnk/x",
    b".wh.a/b",
    b"../outside/f",
    b"../../outside",
    b"out/f",
    b"out/new",
    b"up/outside/f",
    b"root/a/f",
    b"/a/f",
    b"./",
    b".",
    b"/",
    b"",
    b"a//f/",
    b"\xff\x80",
    b"\x1b[2J\n",
    b"n" * 100,
    b"n" * 256,
    b"d/" * 60 + b"x",
    b"oci-layout",
    b"index.json",
    b"manifest.json",
    b"lost+found",
)
FLAGS = [bytes([flag]) for flag in b"00001122345556677\0DSVxgLKMZ"]
# Offset and width of the numeric fields: mode, uid, gid, size, mtime, checksum, major, minor.
NUMERIC = ((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (148, 8), (329, 8), (337, 8))
VALUES: tuple[int, ...] = (
    0,
    1,
    -1,
    7,
    511,
    512,
    513,
    1 << 20,
    (1 << 20) + 1,
    (1 << 31) - 1,
    1 << 31,
)
VALUES += ((1 << 32) - 2, (1 << 32) - 1, (1 << 62), (1 << 63) - 1, -(1 << 63), 4095, 1 << 12)
MODES = (0o755, 0o644, 0, 0o7777, 0o4711, 0o2770, 0o1777, 0o100644)
TEXTS = (b"", b" ", b"\0", b"8", b"-1", b"0777777 ", b"  17 \0x", b"7" * 12, b"\x80", b"\xff" * 12)
DECIMALS = (
    b"-1",
    b"0",
    b"1",
    b"512",
    b"1024",
    b"9" * 19,
    b"9" * 20,
    b"1.5",
    b"-0.000000001",
    b"x",
)
KEYS = (
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"SCHILY.xattr.user.a",
    b"SCHILY.xattr.trusted.b",
    b"SCHILY.xattr.security.capability",
    b"SCHILY.xattr.system.posix_acl_access",
    b"SCHILY.xattr.trusted.overlay.opaque",
    b"SCHILY.xattr.",
    b"GNU.sparse.major",
    b"GNU.sparse.minor",
    b"GNU.sparse.name",
    b"GNU.sparse.realsize",
    b"GNU.sparse.size",
    b"GNU.sparse.map",
    b"GNU.sparse.offset",
    b"GNU.sparse.numbytes",
    b"GNU.sparse.numblocks",
    b"comment",
    b"",
)
CAPABILITY = b"\1\0\0\2\0\x20\0\0" + bytes(12)
