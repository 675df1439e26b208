"""Frames of a zstd file (RFC 8878)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .units import Decompressor, Input

__all__ = ["is_zstd", "skip_frame", "zstd_frame"]

_MAGIC = b"\x28\xb5\x2f\xfd"


def is_zstd(head: bytes | memoryview) -> bool:
    """Return whether some bytes are the beginning of a frame."""
    # RFC 8878, 3.1.2: skippable frames begin with 0x184D2A50 to 0x184D2A5F, little-endian.
    return head[:4] == _MAGIC or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50)


def skip_frame(source: Input) -> bytes | None:
    """Consume a skippable frame (RFC 8878, 3.1.2): magic number, size of the content, content.

    Returns:
        None if there was one; otherwise empty bytes, as nothing precedes the frame.
    """
    if source.head(4) == _MAGIC:
        return b""
    size = int.from_bytes(b"".join(source.iter_chunks(8))[4:], "little")
    for _ in source.iter_chunks(size):
        pass
    return None


def zstd_frame(window: int) -> Callable[[], Decompressor]:
    """Return a function that creates a decompressor of a frame.

    Args:
        window: the maximum size of its window in bytes.

    Raises:
        Unsupported: no library is installed.
    """
    from .zstd_library import standard_zstd, zstandard  # images without zstd do without

    module = standard_zstd()
    if module is None:
        # Created once: that takes longer than a small frame.
        largest = max(1 << 10, min(1 << 31, window))
        shared = zstandard().ZstdDecompressor(max_window_size=largest)
        return lambda: _ZstandardFrame(shared.decompressobj())
    # The library expects an exponent of two from 10 to 31 (with 64-bit pointers).
    options = {
        module.DecompressionParameter.window_log_max: max(10, min(31, window.bit_length() - 1))
    }
    return lambda: module.ZstdDecompressor(options=options)


class _ZstandardFrame:
    """A zstd frame through ``zstandard``, which Debian 13 has.

    Its decompressor returns the whole expansion of its input, up to 32 KiB for each byte (RFC 8878,
    3.1.1.2: a block of a few bytes expands to up to 128 KiB), so its input is passed in small
    slices.
    """

    _SLICE = 1 << 10

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._input = memoryview(b"")
        self._output = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof) and not self._output

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._output

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data) + bytes(self._input)

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes:
        self._input = memoryview(data) if data else self._input
        parts = [self._output]
        length = len(self._output)
        while self._input and length < max_length and not self._inner.eof:
            part = self._inner.decompress(self._input[: self._SLICE])
            self._input = self._input[self._SLICE :]
            parts.append(part)
            length += len(part)
        output = b"".join(parts)
        self._output = output[max_length:]
        return output[:max_length]
