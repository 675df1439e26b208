"""A layout or a docker-archive as a tar archive."""

from __future__ import annotations

import os

from ...sources.blob import Blob, FileRange, LocalBlob, OpenFile
from ...space import SpaceBudget
from ...tar.stream import BLOCK
from .store import BlobFile
from .writing import REMEDY, FileWriter, writing

__all__ = ["ArchiveStore"]

_MAX_OCTAL = 1 << 33


class ArchiveStore:
    """A tar archive: files of mode 0644 and directories of mode 0755, 0:0, of 1970."""

    def __init__(self, fd: int, *, reserved: bool) -> None:
        """Begin an archive in an empty file.

        Args:
            fd: the file, open for reading and writing; it stays the caller's.
            reserved: whether a reserve of the file system is left free.
        """
        self._file = OpenFile(os.dup(fd))
        self._writer = FileWriter(fd, SpaceBudget(fd, remedy=REMEDY, reserved=reserved))

    @property
    def size(self) -> int:
        """See :class:`Store`."""
        return self._writer.at

    def directory(self, name: str) -> None:
        """See :class:`Store`."""
        self._writer.write(_header(name + "/", 0, b"5", 0o755))

    def add(self, name: str, content: bytes) -> None:
        """See :class:`Store`."""
        self._writer.write(_header(name, len(content)))
        self._writer.write(content)
        self._pad(len(content))

    def copy(self, name: str, blob: Blob) -> LocalBlob:
        """See :class:`Store`."""
        self._writer.write(_header(name, blob.size))
        start = self._writer.at
        self._writer.copy(blob)
        self._pad(blob.size)
        return FileRange(self._file, start, blob.size)

    def create(self) -> BlobFile:
        """See :class:`Store`. Nothing else may be written before it is finished."""
        return _Member(self._writer, self._file)

    def _pad(self, size: int) -> None:
        self._writer.write(bytes(-size % BLOCK))

    def close(self) -> None:
        """See :class:`Store`."""
        self._file.end()

    def finish(self) -> None:
        """See :class:`Store`."""
        self._writer.write(bytes(2 * BLOCK))
        self._writer.write(bytes(-self._writer.at % (20 * BLOCK)))


class _Member:
    """A member of an archive, whose header is written at its end."""

    def __init__(self, writer: FileWriter, file: OpenFile) -> None:
        self._writer = writer
        self._file = file
        self._header = writer.at
        writer.write(bytes(BLOCK))
        self._start = writer.at

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See :class:`BlobFile`."""
        self._writer.write(data)

    def finish(self, name: str) -> LocalBlob:
        """See :class:`BlobFile`."""
        size = self._writer.at - self._start
        self._writer.write(bytes(-size % BLOCK))
        with writing():
            os.pwrite(self._writer.fd, _header(name, size), self._header)
        return FileRange(self._file, self._start, size)


def _header(name: str, size: int, flag: bytes = b"0", mode: int = 0o644) -> bytes:
    """Return the header of a member; of a name that does not fit, with an extended header."""
    raw = name.encode()
    extended = b""
    if len(raw) > 100:
        # A digest of sha512: `blobs/sha512/` and 128 digits.
        length = len(raw) + len(" path=\n")
        length += len(str(length + len(str(length))))
        record = b"%d path=%b\n" % (length, raw)
        extended = _header("././@PaxHeader", len(record), b"x") + record
        extended += bytes(-len(record) % BLOCK)
        raw = raw[:100]
    # Larger ones in base 256, as GNU tar has it and every reader knows.
    shown = b"%011o\0" % size if size < _MAX_OCTAL else b"\x80" + size.to_bytes(11, "big")
    head = bytearray(
        b"%b%07o\0%07o\0%07o\0%b%011o\0        %b%b"
        % (raw.ljust(100, b"\0"), mode, 0, 0, shown, 0, flag, bytes(100))
    )
    head += b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
    head += bytes(BLOCK - len(head))
    head[148:156] = b"%06o\0 " % sum(head)
    return extended + bytes(head)
