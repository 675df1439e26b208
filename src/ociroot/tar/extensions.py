"""What comes before an entry's header and says more than it can: pax records and GNU's long names.

POSIX.1-2017, pax, "pax Extended Header": records "shall override" what the header says, those of
the entry's own header over those of a global one.
"""

from __future__ import annotations

from ..errors import MalformedImage
from ..limits import Limits
from . import sparse
from .entry import Entry
from .numbers import decimal, seconds
from .pax import XATTR, Records, parse_records
from .stream import BLOCK, Stream, read

__all__ = ["Extensions"]

# Linux's XATTR_NAME_MAX.
_MAX_XATTR_NAME = 255


class Extensions:
    """What extended headers say of the entry that follows them (x, X, L, K), or of all (g).

    Attributes:
        any: whether there is anything to apply to the entry in hand.
    """

    def __init__(self, limits: Limits) -> None:
        self.any = False
        self._limits = limits
        self._global: Records = {}
        # What all entries have in common, that bring no records of their own: the same objects.
        self._shared: Records = {}
        self._shared_xattrs: dict[bytes, bytes] | None = None
        self.forget()

    def forget(self) -> None:
        """Begin the next entry."""
        self.any = bool(self._global)
        self._records: Records = {}
        self._merged: Records = {}
        self._repeated: list[tuple[bytes, bytes]] = []
        self._long_name: bytes | None = None
        self._long_target: bytes | None = None
        self._start: int | None = None
        self._length = 0

    def check_end(self) -> None:
        """Refuse an archive that ends where an entry should follow."""
        if self._start is not None:
            raise MalformedImage("the archive ends between an extended header and its entry")

    def take(self, flag: bytes, stream: Stream, offset: int, length: int) -> None:
        """Read an extended header's content from the stream."""
        self._length += length
        self._limits.check("extension", self._length)
        content = read(stream, length)
        stream.skip_padding(-length % BLOCK)
        self.any = True
        if flag == b"g":
            self._take_global(content)
            if self._start is None:
                self._length = 0
            return
        self._start = offset if self._start is None else self._start
        if flag == b"L":
            self._long_name = content.split(b"\0", 1)[0]
        elif flag == b"K":
            self._long_target = content.split(b"\0", 1)[0]
        else:
            more, runs = parse_records(content)
            self._records.update(more)
            self._repeated += runs

    def _take_global(self, content: bytes) -> None:
        self._global.update(parse_records(content)[0])
        self._limits.check("extension", sum(map(len, self._global.values())))
        self._shared = _meant(self._global)
        self._shared_xattrs = _xattrs(self._global, self._limits)

    def apply(self, entry: Entry, name: bytes, stored: int) -> tuple[bytes, int]:
        """Put it over what the entry's header said; return the name and the stored size."""
        if self._start is not None:
            entry.offset = self._start
        if self._records:
            self._merged = _meant({**self._global, **self._records})
            entry.xattrs = _xattrs(self._merged, self._limits)
        else:
            self._merged, entry.xattrs = self._shared, self._shared_xattrs
        name, stored = _apply(entry, name, stored, self._merged)
        name = self._long_name if self._long_name is not None else name
        if self._long_target is not None:
            entry.target = self._long_target
        self._limits.check("path", max(len(name), len(entry.target)))
        return name, stored

    def sparse(self, entry: Entry, stream: Stream, stored: int) -> int:
        """Read the map of a file that is sparse in the way of pax; return the bytes of data."""
        if not sparse.is_sparse(self._merged):
            return stored
        if b"GNU.sparse.major" in self._merged:
            entry.segments, entry.size, stored = sparse.from_stream(
                self._merged, stream, stored, self._limits
            )
        else:
            entry.segments, entry.size = sparse.from_pax(
                self._merged, self._repeated, stored, self._limits
            )
        return stored


def _meant(records: Records) -> Records:
    """Leave out what is taken back.

    POSIX: an empty value "shall delete any header block field, previously entered extended header
    value, or global extended header value".
    """
    return {k: value for k, value in records.items() if value or k.startswith(XATTR)}


def _apply(entry: Entry, name: bytes, stored: int, records: Records) -> tuple[bytes, int]:
    """Put what pax records say over what the header said; return the name and the stored size."""
    for keyword, value in records.items():
        if keyword == b"path":
            name = value
        elif keyword == b"linkpath":
            entry.target = value
        elif keyword == b"size":
            stored = decimal(value, "size")
            if stored < 0:
                raise MalformedImage(f"an impossible size: {stored}")
        elif keyword == b"uid":
            entry.uid = decimal(value, "uid")
        elif keyword == b"gid":
            entry.gid = decimal(value, "gid")
        elif keyword == b"mtime":
            entry.mtime_ns = seconds(value, "mtime")
    return records.get(b"GNU.sparse.name", name), stored


def _xattrs(records: Records, limits: Limits) -> dict[bytes, bytes] | None:
    """Return the extended attributes that pax records bring; None: there are none."""
    found: dict[bytes, bytes] = {}
    for keyword, value in records.items():
        if not keyword.startswith(XATTR):
            continue
        name = keyword[len(XATTR) :]
        if not name:
            raise MalformedImage("an extended attribute without a name")
        if len(name) > _MAX_XATTR_NAME:
            raise MalformedImage(f"an extended attribute's name of {len(name)} bytes")
        if len(value) > limits.xattr_size:
            raise limits.exceeded("xattr_size", len(value))
        found[name] = value
    if len(found) > limits.xattrs:
        raise limits.exceeded("xattrs", len(found))
    return found or None
