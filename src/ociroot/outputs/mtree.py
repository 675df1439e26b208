"""A tree's owners, modes, devices and extended attributes as text: an mtree file (mtree(5)).

One line is one path. ``bsdtar -cf out.tar @tree.mtree``, run in the tree, makes a tar archive with
what the lines say; devices are then taken from the lines, too, and must not be there on disk.
libarchive has no keyword for extended attributes and refuses those that it does not know, so they
stand in comments before the line that they belong to:

    #mtree v2.0
    # ociroot 1
    . type=dir uid=0 gid=0 mode=0755 time=1700000000.000000000
    # xattr security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA=
    ./usr/bin/ping type=file uid=0 gid=0 mode=0755 time=1700000000.000000000 size=12345

Names are written with octal escapes, as vis(3) has them. What is read was perhaps written by
somebody else, so every line is checked, and nothing is read that we do not write.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator

from ..errors import OcirootError, quoted
from ..limits import Limits
from ..rootfs.nodes import HOST_XATTRS, Directory, Node, weight
from ..tar.entry import Kind
from .ids import MAX_ID

__all__ = ["MAX_LINE", "MalformedRecord", "read_record", "record_lines"]

_HEAD = (b"#mtree v2.0\n", b"# ociroot 1\n")
_XATTR = b"# xattr "
# What stands for itself: blanks, ``#``, ``=`` and a backslash have a meaning in a line.
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b"#=\\")
_CODES = [bytes((c,)) if c in _PLAIN else b"\\%03o" % c for c in range(256)]
_ESCAPE = re.compile(rb"\\([0-3][0-7][0-7])")
_UNESCAPED = re.compile(rb"(?:[^\\\0-\x20\x7f-\xff]|\\[0-3][0-7][0-7])*")
_TYPES: dict[Kind, bytes] = {
    "dir": b"dir",
    "file": b"file",
    "symlink": b"link",
    "char": b"char",
    "block": b"block",
    "fifo": b"fifo",
}
_KINDS = {text: kind for kind, text in _TYPES.items()}
_TIME = re.compile(rb"(-?[0-9]{1,18})\.([0-9]{9})")
_MODE = re.compile(rb"[0-7]{4}")
_NUMBER = re.compile(rb"[0-9]{1,20}")
_DEVICE = re.compile(rb"native,([0-9]{1,10}),([0-9]{1,10})")
#: Bytes of a line: a path of the longest that there may be, escaped, or an attribute's value.
MAX_LINE = 1 << 20
_NAME = 255
# Linux has 12 bits for a device's major number and 20 for its minor one.
_MAJORS, _MINORS = 1 << 12, 1 << 20

#: What gives a node as it is written: its final owner, mode and extended attributes.
Final = Callable[[Node], Node]


class MalformedRecord(OcirootError, ValueError):
    """A file that should record the owners of a tree is none, or has been changed."""


def record_lines(root: Directory, final: Final = lambda node: node) -> Iterator[bytes]:
    """Yield the lines that record a tree, sorted by path, a directory before what is in it.

    Args:
        root: the tree.
        final: gives a node as it would be written by root.
    """
    yield from _HEAD
    yield from _entry_lines(b".", final(root))
    todo = [(b"./" + _escaped(name), node) for name, node in sorted(root.entries.items())][::-1]
    while todo:
        path, node = todo.pop()
        yield from _entry_lines(path, final(node))
        if isinstance(node, Directory):
            below = sorted(node.entries.items(), reverse=True)
            todo += [(path + b"/" + _escaped(name), child) for name, child in below]


def _escaped(name: bytes) -> bytes:
    return b"".join([_CODES[code] for code in name])


def _entry_lines(path: bytes, node: Node) -> Iterator[bytes]:
    for name, value in sorted((node.xattrs or {}).items()):
        if not name.startswith(HOST_XATTRS):
            yield b"%b%b=%b\n" % (_XATTR, _escaped(name), base64.b64encode(value))
    seconds, fraction = divmod(node.mtime_ns, 10**9)
    line = b"%b type=%b uid=%d gid=%d mode=%04o time=%d.%09d" % (
        *(path, _TYPES[node.kind], node.uid, node.gid, node.mode, seconds, fraction),
    )
    if node.kind == "file":
        line += b" size=%d" % node.size
    elif node.kind == "symlink":
        line += b" link=" + _escaped(node.target)
    elif node.kind in ("char", "block"):
        line += b" device=native,%d,%d" % node.rdev
    yield line + b"\n"


def read_record(lines: Iterable[bytes], limits: Limits) -> Directory:
    """Return the tree that lines record.

    Args:
        lines: each with its end.
        limits: on what they may ask for.

    Raises:
        MalformedRecord: a line that :func:`record_lines` does not write.
        LimitExceeded: more than may be.
    """
    return _Reader(limits).read(lines)


class _Reader:
    """Reads a record line by line."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._root: Directory | None = None
        self._memory = 0
        self._entries = 0
        self._xattrs: dict[bytes, bytes] = {}
        # The directory that the last line was in: a record goes directory by directory.
        self._last: tuple[bytes, Directory | None] = (b"", None)

    def read(self, lines: Iterable[bytes]) -> Directory:
        number = 0
        try:
            for number, line in enumerate(lines, 1):
                if len(line) > MAX_LINE or line[-1:] != b"\n":
                    raise MalformedRecord("a line that is too long, or has no end")
                if number <= len(_HEAD):
                    if line != _HEAD[number - 1]:
                        raise MalformedRecord("it is no record of ociroot")
                elif line.startswith(_XATTR):
                    self._xattr(line[len(_XATTR) : -1])
                else:
                    self._entry(line[:-1].split(b" "))
        except OcirootError as error:
            error.problem = f"line {number}: {error.problem}"
            raise
        if self._root is None or self._xattrs:
            raise MalformedRecord("it ends too early")
        return self._root

    def _xattr(self, text: bytes) -> None:
        escaped, equals, encoded = text.partition(b"=")
        name = _plain(escaped)
        try:
            value = base64.b64decode(encoded if equals else b"=", validate=True)
        except binascii.Error:
            raise MalformedRecord("an extended attribute without a value") from None
        if not name or len(name) > _NAME or name in self._xattrs or b"." not in name:
            raise MalformedRecord(f"an extended attribute with the name {quoted(name[:_NAME])}")
        self._limits.check("xattr_size", len(value))
        self._limits.check("xattrs", len(self._xattrs) + 1)
        self._xattrs[name] = value

    def _entry(self, words: list[bytes]) -> None:
        path, *pairs = words
        fields = dict(pair.partition(b"=")[::2] for pair in pairs)
        if len(fields) != len(pairs):
            raise MalformedRecord("a keyword that is there twice")
        kind = _KINDS.get(fields.pop(b"type", b""))
        if kind is None:
            raise MalformedRecord("a path without a type")
        self._entries += 1
        self._limits.check("entries", self._entries)
        node, name = self._placed(path, kind)
        _describe(node, fields)
        if fields:
            raise MalformedRecord(f"the keyword {quoted(next(iter(fields))[:40])}")
        if self._xattrs:
            node.xattrs, self._xattrs = self._xattrs, {}
        self._memory += weight(name, node)
        self._limits.check("memory", self._memory)

    def _placed(self, path: bytes, kind: Kind) -> tuple[Node, bytes]:
        """Make a node at a path."""
        if self._root is None:
            if path != b"." or kind != "dir":
                raise MalformedRecord("the first path is not the root's")
            self._root = Directory(None, b"", -1)
            return self._root, b""
        above, _, last = path.rpartition(b"/")
        parent = self._last[1] if above == self._last[0] else self._find(above)
        name = _plain(last)
        if parent is None or name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise MalformedRecord(f"the path {quoted(path[:200])}")
        if len(name) > _NAME or name in parent.entries:
            raise MalformedRecord(f"the path {quoted(path[:200])} is too long, or there twice")
        self._limits.check("depth", parent.depth + 1)
        node = Directory(parent, name, -1) if kind == "dir" else Node(kind, -1)
        parent.entries[name] = node
        self._last = above, parent
        return node, name

    def _find(self, path: bytes) -> Directory | None:
        """Return the directory at an escaped path, which begins with ``.``."""
        first, *names = path.split(b"/")
        node: Node | None = self._root if first == b"." else None
        for name in names:
            node = node.entries.get(_plain(name)) if isinstance(node, Directory) else None
        return node if isinstance(node, Directory) else None


def _plain(escaped: bytes) -> bytes:
    """Return a name without its escapes."""
    if not _UNESCAPED.fullmatch(escaped):
        raise MalformedRecord("a name that is not escaped")
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 8),)), escaped)


def _describe(node: Node, fields: dict[bytes, bytes]) -> None:
    """Give a node what the keywords say, and take those that are known out of them."""
    node.uid, node.gid = (_owner(fields.pop(name, b"")) for name in (b"uid", b"gid"))
    node.mode = int(_matched(_MODE, fields.pop(b"mode", b""), "mode")[0], 8)
    time = _matched(_TIME, fields.pop(b"time", b""), "time")
    node.mtime_ns = int(time[1]) * 10**9 + int(time[2])
    if node.kind == "file":
        node.size = int(_matched(_NUMBER, fields.pop(b"size", b""), "size")[0])
    elif node.kind == "symlink":
        node.target = _plain(fields.pop(b"link", b""))
    elif node.kind in ("char", "block"):
        found = _matched(_DEVICE, fields.pop(b"device", b""), "device")
        node.rdev = int(found[1]), int(found[2])
        if node.rdev[0] >= _MAJORS or node.rdev[1] >= _MINORS:
            raise MalformedRecord("a device that Linux does not have")


def _owner(text: bytes) -> int:
    number = int(_matched(_NUMBER, text, "uid or gid")[0])
    if number > MAX_ID:
        raise MalformedRecord(f"the owner {number}")
    return number


def _matched(pattern: re.Pattern[bytes], text: bytes, what: str) -> re.Match[bytes]:
    found = pattern.fullmatch(text)
    if found is None:
        raise MalformedRecord(f"a path without a {what}")
    return found
