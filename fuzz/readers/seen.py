"""The entries that a reader sees in a tar archive, in one form for all readers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from ociroot.limits import DEFAULTS
from ociroot.tar.entry import Entry
from ociroot.tar.reader import entries
from ociroot.tar.stream import BLOCK, ChunkStream, Stream

__all__ = ["Seen", "contents", "named", "ours"]


class Seen(NamedTuple):
    """One entry. Attributes that a reader does not report are None.

    Attributes:
        kind: as :attr:`ociroot.tar.entry.Entry.kind`.
        name: as in the archive, without redundant slashes.
        mode: the permission, set-id and sticky bits.
        uid: the owner.
        gid: the group.
        mtime_ns: the modification time in nanoseconds.
        size: bytes of a regular file, holes included; 0 for other types.
        target: the target of a link.
        rdev: the numbers of a device.
        content: the digest of a regular file's content.
        xattrs: the extended attributes.
        sparse: whether it has holes (only in our reading).
        head: the entry's headers and extensions (only in our reading).
    """

    kind: str
    name: bytes
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    size: int | None = None
    target: bytes = b""
    rdev: tuple[int, int] | None = None
    content: str | None = None
    xattrs: dict[bytes, bytes] | None = None
    sparse: bool | None = None
    head: bytes = b""

    @property
    def header(self) -> bytes:
        """The entry's own header, without the extensions before it."""
        return self.head[-BLOCK:]


def named(name: bytes) -> bytes:
    """Return a name without trailing and repeated slashes."""
    while b"//" in name:
        name = name.replace(b"//", b"/")
    return name if name == b"/" else name.removesuffix(b"/")


class _Noting(ChunkStream):
    """A stream that records the position of the last header."""

    def __init__(self, data: bytes) -> None:
        super().__init__(iter((data,)))
        self.header_end = 0

    def block(self) -> tuple[bytes, int] | None:
        found = super().block()
        self.header_end = self.position
        return found


def contents(tar: bytes) -> Iterator[bytes]:
    """Yield the contents of an archive's regular files."""
    stream = ChunkStream(iter((tar,)))
    for entry in entries(stream, DEFAULTS):
        if entry.kind == "file":
            yield _content(entry, stream)


def _content(entry: Entry, stream: Stream) -> bytes:
    if entry.segments is None:
        return b"".join(stream.iter_chunks(entry.size))
    content = bytearray(entry.size)
    for offset, length in entry.segments:
        content[offset : offset + length] = b"".join(stream.iter_chunks(length))
    return bytes(content)


def ours(tar: bytes) -> Iterator[Seen]:
    """Yield the entries that we see in an archive.

    Raises:
        OcirootError: we refuse it.
    """
    stream = _Noting(tar)
    for entry in entries(stream, DEFAULTS):
        head = tar[entry.offset : stream.header_end]
        is_file = entry.kind == "file"
        yield Seen(
            entry.kind,
            named(entry.name),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size if is_file else 0,
            entry.target if entry.kind in ("link", "symlink") else b"",
            entry.rdev if entry.kind in ("char", "block") else None,
            hashlib.sha256(_content(entry, stream)).hexdigest() if is_file else None,
            entry.xattrs or {},
            entry.segments is not None,
            head,
        )
