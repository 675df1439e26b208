"""Extensions that precede an entry's header: pax records and GNU's long names.

POSIX.1-2017, pax, "pax Extended Header": records "shall override" the fields of the header.

Readers agree on a pax header before an entry (the last of several applies) and on GNU's long name
and long link target (in either order; the last of several applies). They disagree on everything
else between an extension and its entry: Go's reader drops the extension at a global header, applies
it to a volume label, and prefers a long name to a pax record, while GNU tar does the opposite. All
of that is refused.
"""

from __future__ import annotations

from ..errors import MalformedImage, Unsupported, printable
from ..limits import Limits
from . import acl, sparse
from .counting import Counted
from .entry import Entry
from .numbers import decimal, seconds
from .pax import XATTR, Records, parse_records
from .stream import BLOCK, Stream, read

__all__ = ["Extensions"]

# Linux's XATTR_NAME_MAX.
_MAX_XATTR_NAME = 255
# The types of entries that may be sparse in a pax format.
_REGULAR = (b"0", b"\0", b"7")
# The types of entries that have no data.
_NO_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_DEVICE = (b"SCHILY.devmajor", b"SCHILY.devminor")
_PROPERTIES = (b"path", b"linkpath", b"uid", b"gid", b"mtime")


class Extensions:
    """The extended headers (x, X, L, K) of the entry that follows them.

    Attributes:
        any: whether there is anything to apply to the current entry.
        start: the offset of its first extended header.
    """

    def __init__(self, limits: Limits, counted: Counted) -> None:
        self._limits = limits
        self._counted = counted
        self.start = 0
        self.forget()

    def forget(self) -> None:
        """Reset for the next entry."""
        self.any = False
        self._records: Records | None = None
        self._repeated: list[tuple[bytes, bytes]] = []
        self._long_name: bytes | None = None
        self._long_target: bytes | None = None
        self._sparse = False
        self.start = 0
        self._length = 0

    def check_end(self) -> None:
        """Refuse an archive that ends between an extended header and its entry."""
        if self.any:
            raise MalformedImage("the archive ends between an extended header and its entry")

    def pass_over(self, what: str) -> None:
        """Skip a header without an entry; refuse it between an extended header and its entry."""
        if self.any:
            raise MalformedImage(f"{what} between an extended header and its entry")
        self._counted.add(1, self._limits)

    def take(self, flag: bytes, stream: Stream, offset: int, length: int) -> None:
        """Read the content of an extended header from the stream."""
        if flag == b"g":
            self.pass_over("a global extended header")
        if flag == b"X" and self.any:
            # Go's reader treats it as an entry and applies the preceding header to it.
            raise MalformedImage(
                "a Solaris pax header (type 'X') between an extended header and its entry"
            )
        self._length += length
        self._limits.check("extension", self._length)
        content = read(stream, length)
        stream.skip_padding(-length % BLOCK)
        if flag == b"g":
            self._length = 0
            self._check_global(content)
            return
        self.start = self.start if self.any else offset
        self.any = True
        if flag in b"LK":
            self._take_long(flag, content)
            self._counted.add(1, self._limits)
            return
        if self._long_name is not None or self._long_target is not None:
            raise MalformedImage("both a pax header and a GNU long name before an entry")
        self._records, self._repeated, count = parse_records(content)
        self._counted.add(1 + count, self._limits)

    def _take_long(self, flag: bytes, content: bytes) -> None:
        if self._records is not None:
            raise MalformedImage("both a pax header and a GNU long name before an entry")
        text = content.split(b"\0", 1)[0]
        if not text:
            # Go's reader uses the header's name, others the empty one.
            raise MalformedImage("an empty GNU long name")
        if flag == b"L":
            self._long_name = text
        else:
            self._long_target = text

    def _check_global(self, content: bytes) -> None:
        """Refuse global records that would have to be applied.

        Go's reader, which containerd, podman and umoci use, ignores them; GNU tar and bsdtar apply
        some. git writes a comment, which no reader applies.
        """
        records, _, count = parse_records(content)
        self._counted.add(count, self._limits)
        for keyword in records:
            if keyword != b"comment":
                raise MalformedImage(
                    f"a global extended header with {printable(keyword[:40])}; readers agree only "
                    "on comments there"
                )

    def apply(self, entry: Entry, flag: bytes, name: bytes, stored: int) -> tuple[bytes, int]:
        """Override the fields of the entry's header; return the name and the stored size."""
        entry.offset = self.start
        self._counted.entry()
        if self._records is not None:
            name, stored = self._apply(entry, flag, self._records, name, stored)
        if self._long_name is not None:
            name = self._long_name
        if self._long_target is not None:
            entry.target = self._long_target
        if self._sparse and (flag not in _REGULAR or name[-1:] == b"/"):
            raise MalformedImage("pax records of a sparse file on another type of entry")
        self._limits.check("path", max(len(name), len(entry.target)))
        return name, stored

    def _apply(
        self, entry: Entry, flag: bytes, records: Records, name: bytes, stored: int
    ) -> tuple[bytes, int]:
        xattrs: dict[bytes, bytes] = {}
        acls = False
        for keyword, value in records.items():
            if keyword.startswith(XATTR):
                self._take_xattr(xattrs, keyword[len(XATTR) :], value)
            elif keyword in sparse.KEYWORDS:
                self._sparse = True
            elif keyword == b"size":
                # decimal() refuses an empty value: POSIX has it mean the header's size, bsdtar
                # reads 0.
                stored = decimal(value, "size")
                if stored < 0:
                    raise MalformedImage(f"invalid size: {stored}")
                if stored and flag in _NO_DATA:
                    # Some readers skip that many bytes, others read headers there.
                    raise MalformedImage("a pax size record on an entry that has no data")
            elif keyword in acl.KEYWORDS:
                acls = True
            elif keyword == b"SCHILY.realsize":
                # Written by star for sparse files; bsdtar applies it to any file.
                raise Unsupported("a sparse file in star's format")
            elif keyword in _DEVICE and flag in (b"3", b"4"):
                # Written by libarchive and star for numbers beyond Linux's; others ignore them.
                raise Unsupported(f"a device with {keyword.decode()} in a pax record")
            elif not value:
                _check_empty(keyword)
            elif keyword == b"path":
                name = value
            elif keyword == b"linkpath":
                entry.target = value
            elif keyword == b"uid":
                entry.uid = decimal(value, "uid")
            elif keyword == b"gid":
                entry.gid = decimal(value, "gid")
            elif keyword == b"mtime":
                entry.mtime_ns = seconds(value, "mtime")
        if acls:
            self._take_acls(xattrs, records)
        entry.xattrs = xattrs or None
        if self._sparse:
            sparse.check_records(records)
            name = records.get(b"GNU.sparse.name", name)
        return name, stored

    def _take_acls(self, xattrs: dict[bytes, bytes], records: Records) -> None:
        """Convert the ACLs that are given as text only.

        Of an ACL that is given in both forms the extended attribute is used: it has numeric IDs,
        and it is the one that readers written in Go (containerd, podman, umoci) apply.
        """
        for keyword, name in acl.KEYWORDS.items():
            text = records.get(keyword, b"")
            if name not in xattrs:
                value = acl.from_text(text, self._limits)
                if value is None:
                    # Kept as it is: changes() omits it with a warning.
                    self._take_xattr(xattrs, keyword, text)
                elif value:
                    self._take_xattr(xattrs, name, value)

    def _take_xattr(self, xattrs: dict[bytes, bytes], name: bytes, value: bytes) -> None:
        limits = self._limits
        if not name:
            raise MalformedImage("an extended attribute without a name")
        if len(name) > _MAX_XATTR_NAME:
            raise MalformedImage(
                f"the name of an extended attribute has {len(name)} bytes (maximum "
                f"{_MAX_XATTR_NAME})"
            )
        if len(value) > limits.xattr_size:
            raise limits.exceeded("xattr_size", len(value))
        xattrs[name] = value
        if len(xattrs) > limits.xattrs:
            raise limits.exceeded("xattrs", len(xattrs))

    def sparse(self, entry: Entry, stream: Stream, stored: int) -> int:
        """Read the map of a sparse file in a pax format; return its bytes of data."""
        records = self._records
        if not self._sparse or records is None:
            return stored
        if b"GNU.sparse.major" in records:
            entry.segments, entry.size, stored = sparse.from_stream(
                records, stream, stored, self._limits, self._counted
            )
        else:
            entry.segments, entry.size = sparse.from_pax(
                records, self._repeated, stored, self._limits, self._counted
            )
        return stored


def _check_empty(keyword: bytes) -> None:
    """Refuse an empty value of a property.

    POSIX: it "shall delete any header block field". Go's reader then uses the header's field, GNU
    tar uses an empty name or refuses it, bsdtar reads a number as 0.
    """
    if keyword in _PROPERTIES:
        raise MalformedImage(f"the pax record {keyword.decode()} is empty")
