"""GNU sparse files in four formats: old GNU headers, and pax formats 0.0, 0.1 and 1.0.

GNU tar manual, "Storing Sparse Files". Each format has a map of where the stored bytes belong in
the file; the rest of the file is a hole. layer.md, "File Attributes": "Sparse files SHOULD NOT be
used because they lack consistent support across tar implementations". Images contain them all the
same.
"""

from __future__ import annotations

from ..errors import MalformedImage
from ..limits import Limits
from .counting import Counted
from .numbers import decimal, number
from .pax import Records
from .stream import BLOCK, Stream, read

__all__ = [
    "GNU_MAGIC",
    "KEYWORDS",
    "Segments",
    "check_records",
    "from_pax",
    "from_stream",
    "old_gnu",
]

#: Magic and version in GNU's old headers.
GNU_MAGIC = b"ustar  \0"

#: Where stored bytes belong: (offset, length) of each run in bytes, ascending.
Segments = list[tuple[int, int]]

# The keywords of each pax format; any may also have the file's name, and the older ones the number
# of runs.
_FORMAT_0_0 = frozenset((b"GNU.sparse.size", b"GNU.sparse.offset", b"GNU.sparse.numbytes"))
_FORMAT_0_1 = frozenset((b"GNU.sparse.size", b"GNU.sparse.map"))
_FORMAT_1_0 = frozenset((b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.realsize"))
_NAME, _RUNS = b"GNU.sparse.name", b"GNU.sparse.numblocks"
#: The keywords that some reader treats as those of a sparse file.
KEYWORDS = _FORMAT_0_0 | _FORMAT_0_1 | _FORMAT_1_0 | {_NAME, _RUNS}


def _checked(segments: Segments, stored: int, size: int) -> Segments:
    if size < 0:
        raise MalformedImage(f"invalid size of a sparse file: {size}")
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            raise MalformedImage(f"invalid sparse map: {length} bytes at {offset} of {size}")
        end = offset + length
    if sum(length for _, length in segments) != stored:
        raise MalformedImage(f"the sparse map does not add up to the {stored} bytes stored")
    return [(offset, length) for offset, length in segments if length]


def old_gnu(
    header: bytes, stream: Stream, stored: int, limits: Limits, counted: Counted
) -> tuple[Segments, int]:
    """Read the map of an entry of type ``S``, with the extension blocks that follow its header.

    Args:
        header: the header's 512 bytes.
        stream: the archive, positioned after the header.
        stored: bytes of data that the entry stores.
        limits: bound the runs.
        counted: counts the runs of all entries.

    Returns:
        The map, and the size of the file in bytes.

    Raises:
        MalformedImage: an invalid or truncated map.
        LimitExceeded: too many runs.
    """
    if header[257:265] != GNU_MAGIC:
        # star's headers of this type have other fields there.
        raise MalformedImage("a sparse file in the old GNU format without GNU's magic")
    segments: Segments = []

    def take(block: bytes, at: int, count: int) -> None:
        for start in range(at, at + count * 24, 24):
            if not block[start]:
                return
            offset = number(block[start : start + 12], "offset in a sparse map")
            length = number(block[start + 12 : start + 24], "length in a sparse map")
            segments.append((offset, length))
        # Each run costs memory, and hardly any bytes of the archive.
        limits.check("sparse_runs", len(segments))

    size = number(header[483:495], "size of a sparse file")
    take(header, 386, 4)
    extended = header[482]
    while extended:
        counted.add(21, limits)
        block = read(stream, BLOCK)
        take(block, 0, 21)
        extended = block[504]
    return _checked(segments, stored, size), size


def check_records(records: Records) -> None:
    """Refuse sparse keywords without a complete map, or of two formats at once.

    Given only some of them, some readers apply the name or the size; others, such as Go's, nothing.
    """
    given = {keyword for keyword in KEYWORDS if keyword in records}
    needed = given - {_NAME} if given >= _FORMAT_1_0 else given - {_NAME, _RUNS}
    if needed not in (_FORMAT_0_0, _FORMAT_0_1, _FORMAT_1_0):
        raise MalformedImage("pax records of a sparse file without a complete map")
    for keyword in given:
        if not records[keyword]:
            raise MalformedImage(f"the pax record {keyword.decode()} of a sparse file is empty")


def from_pax(
    records: Records,
    repeated: list[tuple[bytes, bytes]],
    stored: int,
    limits: Limits,
    counted: Counted,
) -> tuple[Segments, int]:
    """Read the map of the pax formats 0.0 and 0.1 from the records.

    Args:
        records: the entry's pax records.
        repeated: the records that format 0.0 repeats, in order.
        stored: bytes of data that the entry stores.
        limits: bound the runs.
        counted: counts the runs of all entries.

    Returns:
        The map, and the size of the file in bytes.

    Raises:
        MalformedImage: an invalid map.
        LimitExceeded: too many runs.
    """
    size = decimal(records[b"GNU.sparse.size"], "size of a sparse file")
    if b"GNU.sparse.map" in records:
        values = records[b"GNU.sparse.map"].split(b",")
    else:
        values = [value for _, value in repeated]
        names = [name for name, _ in repeated]
        if names != [b"GNU.sparse.offset", b"GNU.sparse.numbytes"] * (len(names) // 2):
            raise MalformedImage("a sparse map whose offsets and lengths do not alternate")
    runs = len(values) // 2
    if len(values) % 2:
        raise MalformedImage("a sparse map with an offset without a length")
    if _RUNS in records and decimal(records[_RUNS], "number of runs") != runs:
        raise MalformedImage(f"a sparse map of {runs} runs, but numblocks differs")
    limits.check("sparse_runs", runs)
    counted.add(runs, limits)
    numbers = [decimal(value, "number in a sparse map") for value in values]
    return _checked(list(zip(numbers[::2], numbers[1::2], strict=True)), stored, size), size


def from_stream(
    records: Records, stream: Stream, stored: int, limits: Limits, counted: Counted
) -> tuple[Segments, int, int]:
    """Read the map of the pax format 1.0, which precedes the data in whole blocks.

    Args:
        records: the entry's pax records.
        stream: the archive, positioned at the entry's data.
        stored: bytes of data that the entry stores, including the map.
        limits: bound the runs.
        counted: counts the runs of all entries.

    Returns:
        The map, the size of the file in bytes, and the bytes of data that follow the map.

    Raises:
        MalformedImage: an invalid or truncated map.
        LimitExceeded: too many runs.
    """
    if (records[b"GNU.sparse.major"], records[b"GNU.sparse.minor"]) != (b"1", b"0"):
        raise MalformedImage("an unknown version of the sparse format")
    size = decimal(records[b"GNU.sparse.realsize"], "size of a sparse file")
    text = b""
    values: list[int] = []
    wanted = 1
    used = 0
    while len(values) < wanted:
        if used + BLOCK > stored:
            raise MalformedImage("a truncated sparse map")
        *lines, text = (text + read(stream, BLOCK)).split(b"\n")
        used += BLOCK
        values += [
            decimal(line, "number in a sparse map") for line in lines[: wanted - len(values)]
        ]
        if wanted == 1 and values:
            if values[0] < 0:
                raise MalformedImage(f"invalid sparse map: {values[0]} runs")
            limits.check("sparse_runs", values[0])
            counted.add(values[0], limits)
            wanted = 1 + 2 * values[0]
            values += [decimal(line, "number in a sparse map") for line in lines[1:wanted]]
        if len(text) > BLOCK:
            raise MalformedImage("a sparse map that is not a list of numbers")
    segments = list(zip(values[1::2], values[2::2], strict=True))
    return _checked(segments, stored - used, size), size, stored - used
