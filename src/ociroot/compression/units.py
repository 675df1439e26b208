"""Compressed data as a series of units: gzip members, zstd frames and the like.

A gzip file is a series of members (RFC 1952, 2.2) and a zstd file a series of frames, some of them
skippable (RFC 8878, 3): pigz, eStargz and zstd:chunked write many. The decompressors of all
libraries stop at the end of a member or frame, and do not report truncated input: this module
handles both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from ..errors import MalformedImage
from .meter import Meter

__all__ = [
    "CHUNK",
    "FIRST",
    "Decompressor",
    "Input",
    "UnitFormat",
    "decompress_units",
    "nothing_first",
]

#: The size in bytes of chunks between threads and for the libraries. A quarter of it takes a tenth
#: more time because of wake-ups of the threads; a larger size is not faster.
CHUNK = 1 << 20
#: The size in bytes of the first slice of a unit; each further slice is four times as large.
FIRST = 4 << 10


class Input:
    """Compressed bytes that arrive in chunks and are consumed in slices.

    The libraries copy what follows the end of a member or frame. So they get small slices, and
    unused input is returned by moving the position back, without copying, however many units a
    chunk has.
    """

    def __init__(self, chunks: Iterator[bytes], meter: Meter, compression: str) -> None:
        self._chunks = chunks
        self._meter = meter
        self.compression = compression
        self._view = memoryview(b"")
        self._at = 0

    def _next(self) -> bytes:
        chunk = next(self._chunks, b"")
        self._meter.take(len(chunk))
        return chunk

    def head(self, size: int) -> memoryview:
        """Return the next bytes without consuming them; fewer at the end."""
        while len(self._view) - self._at < size and (chunk := self._next()):
            rest = self._view[self._at :]
            self._view, self._at = memoryview(b"".join((rest, chunk))), 0
        return self._view[self._at : self._at + size]

    def take(self, size: int) -> memoryview:
        """Consume at least one and at most ``size`` bytes.

        Raises:
            MalformedImage: the input has ended.
        """
        if self._at == len(self._view):
            self._view, self._at = memoryview(self._next()), 0
            if not self._view:
                raise MalformedImage(f"the {self.compression} data is truncated")
        data = self._view[self._at : self._at + size]
        self._at += len(data)
        return data

    def take_back(self, size: int) -> None:
        """Return the last ``size`` consumed bytes to the input."""
        self._at -= size

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """Consume exactly ``size`` bytes.

        Raises:
            MalformedImage: the input has fewer.
        """
        while size:
            piece = self.take(size)
            size -= len(piece)
            yield piece

    def check_padding(self) -> None:
        """Check that only zeros remain."""
        while self.head(1):
            data = bytes(self.take(CHUNK))
            if data.count(0) != len(data):
                name = self.compression
                raise MalformedImage(f"data that is not {name} follows the {name} data")


class Decompressor(Protocol):
    """A decompressor of one unit: the common interface of the libraries and the adapters."""

    @property
    def eof(self) -> bool:
        """Whether the unit has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether more input is required for further output."""

    @property
    def unused_data(self) -> bytes:
        """The input after the end of the unit."""

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes:
        """Decompress the next bytes; return at most ``max_length`` bytes."""


class UnitFormat(NamedTuple):
    """A format that consists of a series of units.

    Attributes:
        begins: returns whether the next bytes are the beginning of a unit.
        start: consumes the part of a unit's beginning that the library must not see, and returns
            its replacement; None: the unit has no data, and has been consumed.
        new: creates a decompressor of one unit.
    """

    begins: Callable[[memoryview], bool]
    start: Callable[[Input], bytes | None]
    new: Callable[[], Decompressor]


def nothing_first(source: Input) -> bytes | None:
    """Consume nothing: the library gets the whole unit."""
    return b""


def decompress_units(source: Input, unit_format: UnitFormat, meter: Meter) -> Iterator[bytes]:
    """Decompress a series of units."""
    begins, start, new = unit_format
    # A unit is followed by another one or by the end. gzip(1) allows trailing zeros, with which
    # tapes and some tools pad.
    while begins(source.head(10)):
        meter.begin_unit()
        data: bytes | memoryview | None = start(source)
        if data is None:
            continue
        unit = new()
        step = FIRST
        while not unit.eof:
            if not data and unit.needs_input:
                data = source.take(step)
                step = min(step * 4, CHUNK)
            try:
                output = unit.decompress(data, CHUNK)
            except Exception as error:  # each library has an exception of its own
                if any(part in str(error) for part in ("too much memory", "window", "usage limit")):
                    raise meter.limits.exceeded("window") from None
                raise MalformedImage(f"malformed {source.compression} data: {error}") from None
            data = b""
            if output:
                meter.give(len(output))
                yield output
        source.take_back(len(unit.unused_data))
    source.check_padding()
