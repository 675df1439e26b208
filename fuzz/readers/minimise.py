"""Minimise an input that shows a difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.build import BLOCK, digest, header, padded

from ..images import SEPARATOR
from ..mutate_tar import fixed, split

__all__ = ["minimise_documents", "minimise_layers"]

Shows = Callable[[bytes], bool]

_PLAIN = header(b"a", mode=b"0000644\0")
# The fields of a header: start and end offsets.
_FIELDS: tuple[tuple[int, int], ...] = (
    (0, 100),
    (100, 108),
    (108, 116),
    (116, 124),
    (124, 136),
    (136, 148),
    (156, 157),
)
_FIELDS += ((157, 257), (257, 265), (265, 329), (329, 337), (337, 345), (345, 500), (500, 512))


def minimise_layers(data: bytes, shows: Shows) -> bytes:
    """Return a smaller stack of layers that shows the same difference."""
    return _minimise(data, shows, _smaller)


def minimise_documents(data: bytes, shows: Shows) -> bytes:
    """Return a smaller image that shows the same difference, with valid digests."""
    return _minimise(data, shows, _smaller_image)


def _minimise(data: bytes, shows: Shows, smaller: Callable[[bytes], Iterator[bytes]]) -> bytes:
    tries = 400
    again = True
    while again and tries > 0:
        again = False
        for each in smaller(data):
            if each == data:
                continue
            tries -= 1
            if tries <= 0:
                break
            if shows(each):
                data, again = each, True
                break
    return data


# -- Layers ---------------------------------------------------------------------------------------


def _smaller(data: bytes) -> Iterator[bytes]:
    """Yield smaller inputs, the smallest first."""
    below, layers = data[:1], data[1:].split(SEPARATOR)
    if below > b"\0":
        yield b"\0" + data[1:]
    for number in range(len(layers)):
        if len(layers) > 1:
            yield below + SEPARATOR.join(layers[:number] + layers[number + 1 :])
    for number, layer in enumerate(layers):
        for smaller in _smaller_tar(layer):
            yield below + SEPARATOR.join([*layers[:number], smaller, *layers[number + 1 :]])


def _smaller_tar(tar: bytes) -> Iterator[bytes]:
    units, tail = split(tar)
    for number in range(len(units)):
        yield b"".join(units[:number] + units[number + 1 :]) + tail
    if tail:
        yield b"".join(units)
    for at in range(0, len(tar), BLOCK):
        yield tar[:at] + tar[at + BLOCK :]
    for at in range(0, len(tar), BLOCK):
        block = tar[at : at + BLOCK]
        if len(block) == BLOCK and fixed(block)[148:154] == block[148:154]:
            for field in _simpler(block):
                yield tar[:at] + field + tar[at + BLOCK :]
        elif any(block):
            yield from (tar[:at] + plainer + tar[at + BLOCK :] for plainer in _shorter(block))


def _simpler(block: bytes) -> Iterator[bytes]:
    """Yield a header with one field set to a common value."""
    for start, end in _FIELDS:
        if block[start:end] != _PLAIN[start:end]:
            yield fixed(block[:start] + _PLAIN[start:end] + block[end:])
        if start in (0, 157) and block[start + 2] and block[start:end].isascii():
            yield fixed(
                block[:start] + block[start : start + 2].ljust(end - start, b"\0") + block[end:]
            )


def _shorter(block: bytes) -> Iterator[bytes]:
    """Yield a block of data with one line less."""
    lines = block.rstrip(b"\0").splitlines(keepends=True)
    for number in range(len(lines)):
        yield b"".join(lines[:number] + lines[number + 1 :]).ljust(len(block), b"\0")


# -- Images ---------------------------------------------------------------------------------------


def _smaller_image(data: bytes) -> Iterator[bytes]:
    """Yield images with one member less, or with a smaller document."""
    units, tail = split(data[1:])
    for number in range(len(units)):
        yield data[:1] + b"".join(units[:number] + units[number + 1 :]) + tail
    for unit in units:
        size = int(unit[124:135], 8)
        document = unit[BLOCK : BLOCK + size]
        try:
            value = json.loads(document, object_pairs_hook=_Pairs)
        except ValueError:
            continue
        for less in _less(value):
            yield _exchanged(data, units, tail, document, _dump(less).encode())


class _Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object that can have duplicate names."""

    __slots__ = ()


def _less(value: Any) -> Iterator[Any]:
    """Yield a value with one item less."""
    if isinstance(value, _Pairs):
        for number, (name, each) in enumerate(value):
            yield _Pairs(value[:number] + value[number + 1 :])
            for less in _less(each):
                yield _Pairs((*value[:number], (name, less), *value[number + 1 :]))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield value[:number] + value[number + 1 :]
            for less in _less(each):
                yield [*value[:number], less, *value[number + 1 :]]


def _dump(value: Any) -> str:
    if isinstance(value, _Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {_dump(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value)


def _exchanged(data: bytes, units: list[bytes], tail: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a document, and its digest in the documents that refer to it."""
    changed = {old: new}
    todo = [(old, new)]
    while todo:
        before, after = todo.pop()
        names = [digest(each).partition(":")[2] for each in (before, after)]
        sizes = [
            f'{name}", "size": {len(each)}'
            for name, each in zip(names, (before, after), strict=True)
        ]
        for unit in units:
            body = unit[BLOCK : BLOCK + int(unit[124:135], 8)]
            now = changed.get(body, body)
            then = now.replace(sizes[0].encode(), sizes[1].encode())
            then = then.replace(names[0].encode(), names[1].encode())
            if then != now:
                changed[body] = then
                todo.append((now, then))
    written = []
    for unit in units:
        body = unit[BLOCK : BLOCK + int(unit[124:135], 8)]
        then = changed.get(body, body)
        name = unit[:100].replace(
            digest(body).partition(":")[2].encode(), digest(then).partition(":")[2].encode()
        )
        head = fixed(name + unit[100:124] + b"%011o\0" % len(then) + unit[136:BLOCK])
        written.append(head + padded(then))
    return data[:1] + b"".join(written) + tail
