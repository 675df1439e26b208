"""Targets for the readers: the image archive, a layer, and pax records."""

from __future__ import annotations

import hashlib
import os
import zlib
from contextlib import suppress

from ociroot.errors import MalformedImage, OcirootError
from ociroot.layers.changeset import changes
from ociroot.limits import DEFAULTS
from ociroot.notices import Notices
from ociroot.sources.archive import ArchiveFiles
from ociroot.sources.blob import OpenFile
from ociroot.tar.entry import Entry
from ociroot.tar.names import clean
from ociroot.tar.numbers import decimal, number, seconds
from ociroot.tar.pax import parse_records
from ociroot.tar.reader import entries
from ociroot.tar.stream import BLOCK, ChunkStream, FileStream, Stream
from tests.support.build import header, padded, pax_records

from .checks import check, memory_file, refusal, undisturbed

__all__ = ["archive", "layer", "pax"]

_INT64 = range(-(1 << 63), 1 << 63)
# The members that the rest of the program reads.
_ASKED = ("oci-layout", "index.json", "manifest.json", "a", "./a/../b", "", "\udcff")

Seen = tuple[list[tuple[object, ...]], tuple[str, str] | None]


def archive(data: bytes) -> None:
    """The image archive: every member is inside the file, and is found by its name."""
    with undisturbed(), memory_file(data) as path:
        opened = OpenFile(os.open(path, os.O_RDONLY))
        try:
            files = ArchiveFiles(opened, DEFAULTS)
        except OcirootError as error:
            refusal(error)
            opened.end()
            return
        for name in (*_ASKED, *(os.fsdecode(name) for name in files.names)):
            found = files.get(name)
            if found is not None:
                check(0 <= found.offset <= found.offset + found.size <= len(data), found)
                check(sum(map(len, found.chunks(1000))) == found.size, found)
        for each in files.names:
            check(bool(each) and clean(each) == each, each)
        files.close()


def layer(data: bytes) -> None:
    """A layer: reading in odd chunks and in place agree, and its entries are valid."""
    step = 1 + zlib.crc32(data) % 1021
    chunked = look(ChunkStream(data[at : at + step] for at in range(0, len(data), step)))
    with memory_file(data) as path:
        fd = os.open(path, os.O_RDONLY)
        placed = look(FileStream(fd, len(data)))
        os.close(fd)
    check(chunked == placed, f"{chunked[1]} in chunks of {step}, {placed[1]} in place")
    notices = Notices()
    stream = ChunkStream(iter((data,)))
    try:
        for change in changes(entries(stream, DEFAULTS), notices):
            check(clean(change.parent) == change.parent, change.parent)
            check(b"/" not in change.name and change.name not in (b".", b".."), change.name)
            check(change.action == "opaque" or bool(change.name) or not change.parent, change)
    except OcirootError as error:
        refusal(error)
    for warning in notices.warnings():
        check(warning.message.isprintable(), warning)


def pax(data: bytes) -> None:
    """Pax records: encoding them again gives the same records, and valid entry attributes."""
    body = header(b"PaxHeaders.0/f", b"x", size=len(data)) + padded(data)
    layer(body + header(b"f", size=BLOCK) + bytes(BLOCK) + header(b"g", b"5"))
    try:
        records, _, _ = parse_records(data)
    except OcirootError as error:
        refusal(error)
        return
    check(parse_records(pax_records(records))[0] == records, records)
    for keyword, value in records.items():
        check(bool(keyword) and b"\0" not in keyword, keyword)
        for decode in (decimal, seconds, number):
            with suppress(MalformedImage):
                # The longest numeric field of a header.
                result = decode(value[:12] or b"\0" if decode is number else value, "number")
                check((result // 10**9 if decode is seconds else result) in _INT64, result)


def look(stream: Stream) -> Seen:
    """Read a layer: some files completely, some in part and some not at all."""
    seen: list[tuple[object, ...]] = []
    before = -1
    try:
        for place, entry in enumerate(entries(stream, DEFAULTS)):
            _check_entry(entry)
            check(entry.offset > before and entry.offset % BLOCK == 0, entry.offset)
            before = entry.offset
            size = (entry.stored_size, entry.stored_size // 2, 0)[place % 3]
            content = hashlib.sha256()
            for piece in stream.iter_chunks(size):
                content.update(piece)
            values = (getattr(entry, name) for name in Entry.__slots__)
            seen.append((*values, content.digest()))
    except OcirootError as error:
        return seen, refusal(error)
    return seen, None


def _check_entry(entry: Entry) -> None:
    """Check an entry against the documentation of its class."""
    check(0 <= entry.mode <= 0o7777, entry.mode)
    check(0 <= entry.uid <= 2**32 - 2 and 0 <= entry.gid <= 2**32 - 2, (entry.uid, entry.gid))
    check(entry.mtime_ns // 10**9 in _INT64, entry.mtime_ns)
    check(entry.size >= 0 and entry.stored_size >= 0, (entry.size, entry.stored_size))
    check(b"\0" not in entry.name and b"\0" not in entry.target, entry.name)
    check(entry.rdev[0] in range(1 << 12) and entry.rdev[1] in range(1 << 20), entry.rdev)
    check(all(entry.xattrs or {b"-": b""}) and all(map(_is_name, entry.xattrs or ())), entry.xattrs)
    check(entry.kind == "file" or (not entry.stored_size and entry.segments is None), entry)
    if entry.kind == "file" and entry.segments is None:
        check(entry.size == entry.stored_size, (entry.size, entry.stored_size))
    end = 0
    for offset, length in entry.segments or ():
        check(offset >= end and length > 0, entry.segments)
        end = offset + length
    if entry.segments is not None:
        check(end <= entry.size, (end, entry.size))
        check(sum(length for _, length in entry.segments) == entry.stored_size, entry.segments)


def _is_name(name: bytes) -> bool:
    return b"\0" not in name
