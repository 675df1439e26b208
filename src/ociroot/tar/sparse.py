"""GNU sparse files in their four forms: old GNU headers, and pax formats 0.0, 0.1 and 1.0.

GNU tar manual, "Storing Sparse Files". Each form says where the stored bytes belong in the file;
the rest of the file is a hole. layer.md, "File Attributes": "Sparse files SHOULD NOT be used
because they lack consistent support across tar implementations" - so they come, and are read right.
"""

from __future__ import annotations

from ..errors import MalformedImage
from ..limits import DEFAULTS, Limits
from .numbers import decimal, number
from .pax import Records
from .stream import BLOCK, Stream, read

__all__ = ["Segments", "from_pax", "from_stream", "is_sparse", "old_gnu"]

#: Where stored bytes belong: offset and length of each run, ascending.
Segments = list[tuple[int, int]]


def _checked(segments: Segments, stored: int, size: int) -> Segments:
    if size < 0:
        raise MalformedImage(f"an impossible size of a sparse file: {size}")
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            raise MalformedImage(f"an impossible sparse map: {length} bytes at {offset} of {size}")
        end = offset + length
    if sum(length for _, length in segments) != stored:
        raise MalformedImage(f"a sparse map that does not account for the {stored} bytes stored")
    return [(offset, length) for offset, length in segments if length]


def old_gnu(
    header: bytes, stream: Stream, stored: int, limits: Limits = DEFAULTS
) -> tuple[Segments, int]:
    """Read the map of an entry of type ``S``, with the extension blocks that follow its header.

    Args:
        header: the header's 512 bytes.
        stream: the archive, right behind the header.
        stored: bytes that the entry stores.
        limits: on the runs.

    Returns:
        The map, and the size of the file in bytes.

    Raises:
        MalformedImage: a map that is impossible or cut off.
        LimitExceeded: a map of too many runs.
    """
    # Elsewhere these bytes are the prefix, and to GNU tar the entry is a file with no holes.
    if header[257:265] != b"ustar  \0":
        raise MalformedImage("a sparse entry (type S) whose header is not GNU's")
    segments: Segments = []

    def take(block: bytes, at: int, count: int) -> None:
        for start in range(at, at + count * 24, 24):
            if not block[start]:
                return
            offset = number(block[start : start + 12], "offset in a sparse map")
            length = number(block[start + 12 : start + 24], "length in a sparse map")
            segments.append((offset, length))
        # Each costs us memory, and an archive next to nothing.
        limits.check("sparse_runs", len(segments))

    size = number(header[483:495], "size of a sparse file")
    take(header, 386, 4)
    extended = header[482]
    while extended:
        block = read(stream, BLOCK)
        take(block, 0, 21)
        extended = block[504]
    return _checked(segments, stored, size), size


def is_sparse(records: Records) -> bool:
    """Say whether pax records tell of a sparse file."""
    return b"GNU.sparse.major" in records or b"GNU.sparse.size" in records


def from_pax(
    records: Records,
    repeated: list[tuple[bytes, bytes]],
    stored: int,
    limits: Limits = DEFAULTS,
) -> tuple[Segments, int]:
    """Read the map of the pax formats 0.0 and 0.1, which stands in the records.

    Args:
        records: the entry's pax records.
        repeated: in their order, the records that format 0.0 repeats.
        stored: bytes that the entry stores.
        limits: on the runs.

    Returns:
        The map, and the size of the file in bytes.

    Raises:
        MalformedImage: a map that is impossible.
        LimitExceeded: a map of too many runs.
    """
    size = decimal(records[b"GNU.sparse.size"], "size of a sparse file")
    if b"GNU.sparse.map" in records:
        text = records[b"GNU.sparse.map"]
        values = text.split(b",") if text else []
    else:
        values = [value for _, value in repeated]
        names = [name for name, _ in repeated]
        if names != [b"GNU.sparse.offset", b"GNU.sparse.numbytes"] * (len(names) // 2):
            raise MalformedImage("a sparse map whose offsets and lengths do not alternate")
    if len(values) % 2:
        raise MalformedImage("a sparse map with an offset and no length")
    limits.check("sparse_runs", len(values) // 2)
    numbers = [decimal(value, "number in a sparse map") for value in values]
    return _checked(list(zip(numbers[::2], numbers[1::2], strict=True)), stored, size), size


def from_stream(
    records: Records, stream: Stream, stored: int, limits: Limits = DEFAULTS
) -> tuple[Segments, int, int]:
    """Read the map of the pax format 1.0, which stands before the data in whole blocks.

    Args:
        records: the entry's pax records.
        stream: the archive, at the entry's data.
        stored: bytes that the entry stores, the map among them.
        limits: on the runs.

    Returns:
        The map, the size of the file in bytes, and how many bytes of data are left.

    Raises:
        MalformedImage: a map that is impossible or cut off.
        LimitExceeded: a map of too many runs.
    """
    if (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
        raise MalformedImage("an unknown version of the sparse format")
    size = decimal(records.get(b"GNU.sparse.realsize", b""), "size of a sparse file")
    text = b""
    values: list[int] = []
    wanted = 1
    used = 0
    while len(values) < wanted:
        if used + BLOCK > stored:
            raise MalformedImage("a sparse map that is cut off")
        *lines, text = (text + read(stream, BLOCK)).split(b"\n")
        used += BLOCK
        values += [
            decimal(line, "number in a sparse map") for line in lines[: wanted - len(values)]
        ]
        if wanted == 1 and values:
            if values[0] < 0:
                raise MalformedImage(f"an impossible sparse map: of {values[0]} runs")
            limits.check("sparse_runs", values[0])
            wanted = 1 + 2 * values[0]
            values += [decimal(line, "number in a sparse map") for line in lines[1:wanted]]
        if len(text) > BLOCK:
            raise MalformedImage("a sparse map that is no list of numbers")
    segments = list(zip(values[1::2], values[2::2], strict=True))
    return _checked(segments, stored - used, size), size, stored - used
