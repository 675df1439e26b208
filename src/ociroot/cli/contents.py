"""Write the contents of files to stdout, which may be a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from .. import OcirootError

__all__ = ["BinaryData", "write_content"]

# Control characters except white space: not part of text, and interpreted by terminals.
_CONTROL = "[\0-\x08\x0b\x0e-\x1f\x7f-\x9f]"


class BinaryData(OcirootError):
    """Binary data would have gone to a terminal."""


def write_content(pieces: Iterable[memoryview], *, force: bool) -> None:
    """Write a file's content to stdout.

    Args:
        pieces: the content.
        force: whether a terminal may get binary data.

    Raises:
        BinaryData: the content is binary and stdout is a terminal; no binary data was written.
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
                "binary data is not written to a terminal", remedy="--force writes it anyway"
            )
        yield piece
