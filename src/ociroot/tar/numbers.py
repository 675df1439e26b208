"""The numbers of tar headers and of pax records.

POSIX.1-2017, pax, "ustar Interchange Format": numeric fields are "octal numbers … zero-filled …
terminated by one or more <space> or NUL characters". Real archivers pad with spaces on the left,
leave whole fields empty, and leave arbitrary bytes after the terminator. GNU tar and star write
numbers that do not fit as base-256, marked by the top bit of the first byte.
"""

from __future__ import annotations

import re

from ..errors import MalformedImage

__all__ = ["decimal", "number", "seconds"]

# A NUL ends the number, as in GNU tar and bsdtar.
_OCTAL = re.compile(rb" *(?:([0-7]+)(?:[ \0].*)?|[ \0]*)", re.DOTALL)
_SECONDS = re.compile(rb"(-?[0-9]+)(?:\.([0-9]*))?")
_INT64 = range(-(1 << 63), 1 << 63)
# int64 has 19 digits; int() takes quadratic time for longer numbers.
_DIGITS = 19


def number(field: bytes, what: str) -> int:
    """Decode a numeric field of a header, octal or base-256.

    Args:
        field: the bytes of the field.
        what: the name of the field, for the message.

    Raises:
        MalformedImage: it is neither, or does not fit a signed 64-bit integer.
    """
    if field[0] & 0x80:
        # Two's complement in all bits except the marker; 0x40 is the sign.
        value = int.from_bytes(field, "big") & ((1 << (len(field) * 8 - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (len(field) * 8 - 1)
        if value not in _INT64:
            raise MalformedImage(f"invalid {what}: {value}")
        return value
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise MalformedImage(f"invalid {what}: {field!r}")
    return int(match[1], 8) if match[1] else 0


def decimal(value: bytes, what: str) -> int:
    """Decode a decimal number of a pax record, which may have any number of leading zeros.

    Raises:
        MalformedImage: it is none, or does not fit a signed 64-bit number.
    """
    negative = value.startswith(b"-")
    digits = value[negative:]
    significant = digits.lstrip(b"0")
    if digits.isdigit() and len(significant) <= _DIGITS:
        number = -int(significant or b"0") if negative else int(significant or b"0")
        if number in _INT64:
            return number
    raise MalformedImage(f"invalid {what}: {value[:40]!r}")


def seconds(value: bytes, what: str) -> int:
    """Decode a pax time in seconds with a fraction; return nanoseconds.

    Digits beyond nanoseconds are truncated, as other implementations do.

    Raises:
        MalformedImage: it is not such a number, or does not fit a 64-bit time.
    """
    match = _SECONDS.fullmatch(value)
    if match is None:
        raise MalformedImage(f"invalid {what}: {value[:40]!r}")
    whole = decimal(match[1], what)
    fraction = int(((match[2] or b"")[:9] + b"000000000")[:9])
    return whole * 1_000_000_000 + (-fraction if value[:1] == b"-" else fraction)
