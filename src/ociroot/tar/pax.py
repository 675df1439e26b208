"""Pax extended headers (POSIX.1-2017, pax, "pax Extended Header")."""

from __future__ import annotations

from ..errors import MalformedImage, printable
from .numbers import decimal

__all__ = ["XATTR", "Records", "parse_records"]

#: The keyword prefix of extended attributes; their values are raw bytes.
XATTR = b"SCHILY.xattr."

# Sparse format 0.0 repeats these two keywords, and their order matters.
_REPEATED = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")

Records = dict[bytes, bytes]


def parse_records(content: bytes) -> tuple[Records, list[tuple[bytes, bytes]], int]:
    r"""Parse the body of a pax header.

    Each record is ``"%d %s=%s\n", <length>, <keyword>, <value>``, where the length is that of the
    whole record.

    Args:
        content: the body; the caller has bounded its size.

    Returns:
        The records by keyword, the last of each; the records that sparse format 0.0 repeats, in
        order; and the number of all records.

    Raises:
        MalformedImage: a record that does not have this form.
    """
    records: Records = {}
    repeated: list[tuple[bytes, bytes]] = []
    at = count = 0
    while at < len(content):
        space = content.find(b" ", at)
        digits = content[at:space]
        if space < 0 or not digits.isdigit():
            if not content[at:].strip(b"\0"):
                break  # some archivers pad the body with NULs
            raise MalformedImage(f"a pax record without a length: {content[at : at + 20]!r}")
        # decimal() bounds the digits: int() takes long for a long run of leading zeros.
        end = at + (int(digits) if space - at < 10 else decimal(digits, "length of a pax record"))
        equals = content.find(b"=", space, end)
        if end > len(content) or equals < 0 or content[end - 1 : end] != b"\n":
            raise MalformedImage(f"malformed pax record: {content[at : at + 40]!r}")
        keyword, value = content[space + 1 : equals], content[equals + 1 : end - 1]
        # GNU tar skips blanks before the keyword.
        if not keyword or keyword[0] in b" \t" or b"\0" in keyword:
            raise MalformedImage(f"a pax record with the invalid keyword {keyword[:40]!r}")
        if b"\0" in value and not keyword.startswith(XATTR):
            raise MalformedImage(f"the pax record {keyword[:40]!r} contains a NUL")
        if keyword in records and keyword.startswith(XATTR):
            # Go uses the last, as POSIX requires for pax's own keywords; bsdtar uses the first.
            raise MalformedImage(f"duplicate pax record {printable(keyword[:80])}")
        if keyword in _REPEATED:
            repeated.append((keyword, value))
        records[keyword] = value
        at = end
        count += 1
    return records, repeated, count
