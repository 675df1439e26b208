"""Mutations that keep the structure of an archive or a document, so that most of it is read.

Every mutator takes the input, the maximum size of the result in bytes, a random generator, and a
mutator of plain bytes: libFuzzer's, or :func:`raw` without libFuzzer.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from random import Random

from tests.support.build import Compression, compress

from .images import SEPARATOR
from .mutate_json import mutate_json
from .mutate_tar import mutate_pax, mutate_tar, splice

__all__ = [
    "Mutator",
    "crossed",
    "mutate_document",
    "mutate_form",
    "mutate_stack",
    "raw",
    "records",
    "tars",
    "units",
]

Raw = Callable[[bytes, int], bytes]
Mutator = Callable[[bytes, int, Random, Raw], bytes]

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2F, 0x30, 0x37, 0x0A)
_PACKED: tuple[Compression, ...] = ("gzip", "zstd")
_MAX_PLAIN = 1 << 16


def raw(random: Random) -> Raw:
    """Return a mutator of plain bytes."""

    def mutate(data: bytes, limit: int) -> bytes:
        changed = bytearray(data or b"\0")
        for _ in range(random.choice((1, 1, 2, 4))):
            at = random.randrange(len(changed) + 1)
            match random.randrange(5):
                case 0:
                    changed[at : at + 1] = bytes([random.randrange(256)])
                case 1:
                    changed[at : at + 1] = bytes([random.choice(_NUMBERS)])
                case 2:
                    changed[at:at] = random.randbytes(random.choice((1, 1, 4)))
                case 3:
                    del changed[at : at + random.choice((1, 1, 4, 16))]
                case _:
                    end = at + random.choice((1, 8, 32))
                    changed[at:at] = changed[at:end]
        return bytes(changed[:limit])

    return mutate


def tars(data: bytes, limit: int, random: Random, raw: Raw) -> bytes:
    """Mutate a tar archive: mostly its members, sometimes its bytes."""
    if random.random() < 0.1:
        return raw(data, limit)
    return mutate_tar(data, random, raw)[:limit]


def records(data: bytes, limit: int, random: Random, raw: Raw) -> bytes:
    """Mutate pax records: mostly with valid lengths."""
    if random.random() < 0.4:
        return raw(data, limit)
    return mutate_pax(data, random, raw)[:limit]


def mutate_stack(data: bytes, limit: int, random: Random, raw: Raw) -> bytes:
    """Mutate a stack of layers: its options, the list of layers, or one of them."""
    options, layers = data[:1] or b"\0", data[1:].split(SEPARATOR)
    at = random.randrange(len(layers))
    chance = random.random()
    if chance < 0.05:
        options = bytes([random.randrange(72)])
    elif chance < 0.08:
        layers.insert(at, random.choice(layers))
    elif chance < 0.11 and len(layers) > 1:
        del layers[at]
    elif chance < 0.16:
        layers.insert(at, mutate_tar(b"", random, raw))
    elif chance < 0.25:
        layers[at] = splice(layers[at], random.choice(layers), random)
    else:
        layers[at] = tars(layers[at], limit, random, raw)
    return (options + SEPARATOR.join(layers))[:limit]


def mutate_document(data: bytes, limit: int, random: Random, raw: Raw) -> bytes:
    """Mutate a document: its values or its bytes, rarely which document it is."""
    kind, document = data[:1] or b"\0", data[1:]
    if random.random() < 0.02:
        kind = bytes([random.randrange(8)])
    if random.random() < 0.3:
        return (kind + raw(document, limit - 1))[:limit]
    return (kind + mutate_json(document, random, raw))[:limit]


def mutate_form(data: bytes, limit: int, random: Random, raw: Raw) -> bytes:
    """Mutate a file that may be compressed as a whole: its content or its bytes."""
    if random.random() < 0.3:
        return raw(data, limit)
    if data[:2] == b"\x1f\x8b":
        try:
            plain = zlib.decompressobj(31).decompress(data, _MAX_PLAIN)
        except zlib.error:
            return raw(data, limit)
        return gzip.compress(mutate_tar(plain, random, raw), mtime=0)[:limit]
    if data[257:262] != b"ustar":
        return raw(data, limit)
    changed = mutate_tar(data, random, raw)
    if random.random() < 0.05:
        changed = compress(changed, random.choice(_PACKED))
    return changed[:limit]


def units(data: bytes, limit: int, random: Random, raw: Raw) -> bytes:
    """Mutate compressed bytes: add another member or frame, or padding, before or after them."""
    more = compress(random.randbytes(random.choice((0, 1, 300))), random.choice(_PACKED))
    match random.randrange(10):
        case 0:
            data = data + more
        case 1:
            data = more + data
        case 2:
            data = data + bytes(random.choice((1, 4, 512)))
        case 3:
            size = random.choice((0, 1, 8))
            skipped = bytes([0x50 + random.randrange(16)]) + b"\x2a\x4d\x18"
            data = skipped + size.to_bytes(4, "little") + random.randbytes(size) + data
        case 4:
            data = data[: random.randrange(len(data) + 1)]
        case _:
            data = raw(data, limit)
    return data[:limit]


def crossed(one: bytes, other: bytes, limit: int, random: Random) -> bytes:
    """Cross two stacks of layers: insert members of the other into layers of the first."""
    layers, others = one[1:].split(SEPARATOR), other[1:].split(SEPARATOR)
    at = random.randrange(len(layers))
    layers[at] = splice(layers[at], random.choice(others), random)
    return (one[:1] + SEPARATOR.join(layers))[:limit]
