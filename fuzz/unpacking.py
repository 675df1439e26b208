"""The target for decompression: any number of members and frames, damaged, truncated, padded."""

from __future__ import annotations

import hashlib
import sys
import zlib
from unittest import mock

from ociroot.compression import CHUNK, decompress, sniff
from ociroot.errors import OcirootError
from ociroot.limits import DEFAULTS

from .checks import check, refusal

__all__ = ["codec"]

# A few bytes can expand to gigabytes; the rest is not compared.
_MOST = 8 << 20
# The preferred libraries, which have fallbacks.
_PREFERRED = {"isal": None, "backports": None, "compression": None}


def codec(data: bytes) -> None:
    """Compressed bytes: whole, in odd chunks, and with the fallbacks, the output is the same."""
    step = 1 + zlib.crc32(data) % 1021
    whole, chunked = _unpacked(data, CHUNK), _unpacked(data, step)
    with mock.patch.dict(sys.modules, _PREFERRED):
        others = _unpacked(data, CHUNK), _unpacked(data, step)
    if sniff(data[:8]) != "zstd":
        check(whole == chunked, f"{whole}, in chunks of {step} {chunked}")
        check(others[0] == others[1], f"{others[0]}, in chunks of {step} {others[1]}")
    # The libraries differ in what they refuse; and libzstd, given a frame in parts, does not notice
    # an empty frame with a declared content size.
    taken = [content for content, refused in (whole, chunked, *others) if refused is None]
    check(len(set(taken)) <= 1, f"chunks of {step} or another library: {taken}")


def _unpacked(data: bytes, step: int) -> tuple[bytes, str | None]:
    """Return the digest of the output, and the kind of the error that ended it."""
    chunks = (data[at : at + step] for at in range(0, len(data), step))
    content, size = hashlib.sha256(), 0
    try:
        for chunk in decompress(sniff(data[:8]), chunks, DEFAULTS):
            check(len(chunk) <= max(CHUNK, step), len(chunk))
            content.update(chunk[: _MOST - size])
            size += len(chunk)
            if size >= _MOST:
                break
    except OcirootError as error:
        # How much is output before it depends on the chunks.
        return b"", refusal(error)[0]
    return content.digest(), None
