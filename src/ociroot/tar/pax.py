"""Pax extended headers (POSIX.1-2017, pax, "pax Extended Header")."""

from __future__ import annotations

from ..errors import MalformedImage, printable
from .numbers import decimal

__all__ = ["XATTR", "Records", "parse_records"]

#: What the records of extended attributes begin with; their values are raw bytes.
XATTR = b"SCHILY.xattr."

# Sparse format 0.0 repeats these two, so their order matters: they are kept as one list.
_REPEATED = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")

Records = dict[bytes, bytes]


def parse_records(content: bytes) -> tuple[Records, list[tuple[bytes, bytes]], int]:
    r"""Read the body of a pax header.

    Each record is ``"%d %s=%s\n", <length>, <keyword>, <value>``, whose length counts the whole
    record.

    Args:
        content: the body, which the caller has bounded.

    Returns:
        The records by keyword, the last of each; in their order those that sparse format 0.0
        repeats; and how many there are in all.

    Raises:
        MalformedImage: a record that is not of this form.
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
        # Any number of zeros may lead, and as many digits take int() long.
        end = at + (int(digits) if space - at < 10 else decimal(digits, "length of a pax record"))
        equals = content.find(b"=", space, end)
        if end > len(content) or equals < 0 or content[end - 1 : end] != b"\n":
            raise MalformedImage(f"a broken pax record: {content[at : at + 40]!r}")
        keyword, value = content[space + 1 : equals], content[equals + 1 : end - 1]
        # GNU tar skips blanks before it.
        if not keyword or keyword[0] in b" \t" or b"\0" in keyword:
            raise MalformedImage(f"a pax record with the keyword {keyword[:40]!r}")
        if b"\0" in value and not keyword.startswith(XATTR):
            raise MalformedImage(f"the pax record {keyword[:40]!r} holds a NUL")
        if keyword in records and keyword.startswith(XATTR):
            # Go takes the last, as POSIX has it of pax's own keywords; bsdtar takes the first.
            raise MalformedImage(f"duplicate pax record {printable(keyword[:80])}")
        if keyword in _REPEATED:
            repeated.append((keyword, value))
        records[keyword] = value
        at = end
        count += 1
    return records, repeated, count
