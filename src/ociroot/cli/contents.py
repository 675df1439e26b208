"""The contents of files on stdout, which may be a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from .. import OcirootError

__all__ = ["BinaryData", "write_content"]

# What no text holds, and some of what a terminal obeys: control characters but for white space.
_CONTROL = "[\0-\x08\x0b\x0e-\x1f\x7f-\x9f]"


class BinaryData(OcirootError):
    """Binary data would have gone to a terminal."""


def write_content(pieces: Iterable[memoryview], *, force: bool) -> None:
    """Write a file's content to stdout.

    Args:
        pieces: the content.
        force: whether a terminal may get binary data.

    Raises:
        BinaryData: it is binary data, and stdout is a terminal; it has not got any of that.
    """
    out = sys.stdout.buffer
    for piece in pieces if force or not sys.stdout.isatty() else _text_only(pieces):
        out.write(piece)
    out.flush()


def _text_only(pieces: Iterable[memoryview]) -> Iterator[memoryview]:
    import codecs
    import re

    search = re.compile(_CONTROL).search
    decode = codecs.getincrementaldecoder("utf-8")().decode
    for piece in pieces:
        try:
            is_text = search(decode(piece)) is None
        except UnicodeDecodeError:
            is_text = False
        if not is_text:
            raise BinaryData(
                "binary data is not written to a terminal", remedy="--force does it all the same"
            )
        yield piece
