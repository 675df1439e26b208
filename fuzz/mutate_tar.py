"""Mutations of the members of a tar archive, with updated header checksums."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.support.build import BLOCK, base256, header, padded, pax_records

from . import traps

__all__ = ["fixed", "mutate_pax", "mutate_tar", "sparse_member", "splice", "split"]

Raw = Callable[[bytes, int], bytes]
Units = list[bytes]


def mutate_tar(tar: bytes, random: Random, raw: Raw) -> bytes:
    """Change one or a few members of an archive."""
    units, tail = split(tar)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if not units:
            units.append(_member(random))
        random.choice(_CHANGES)(units, random, raw)
    if random.random() < 0.05:
        tail = random.choice((b"", bytes(512), bytes(1024), bytes(1536), b"x", bytes(1024) + b"x"))
    return b"".join(units) + tail


def splice(one: bytes, other: bytes, random: Random) -> bytes:
    """Insert some members of an archive into another."""
    units, tail = split(one)
    others, _ = split(other)
    if others:
        start = random.randrange(len(others))
        at = random.randrange(len(units) + 1)
        units[at:at] = others[start : start + random.choice((1, 1, 2, 5))]
    return b"".join(units) + tail


def fixed(block: bytes) -> bytes:
    """Return a header with the correct checksum."""
    total = sum(block[:148]) + sum(block[156:BLOCK]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:]


def mutate_pax(body: bytes, random: Random, raw: Raw) -> bytes:
    """Change the records of a pax header: add, remove or modify them."""
    records = _records(body)
    at = random.randrange(len(records) + 1)
    match random.randrange(6):
        case 0:
            records.insert(at, _record(random))
        case 1:
            records[at:at] = [_record(random) for _ in range(3)]
        case 2:
            del records[at : at + 1]
        case 3:
            records[at:at] = records[at : at + 1]
        case _ if at < len(records):
            keyword, value = records[at]
            if random.random() < 0.5:
                value = _value(keyword, random)
            else:
                value = raw(value or b"x", 1 << 12)
            records[at] = (keyword, value)
        case _:
            records.append(_record(random))
    return b"".join(pax_records({keyword: value}) for keyword, value in records)


# -- Taking apart ---------------------------------------------------------------------------------


def split(tar: bytes) -> tuple[Units, bytes]:
    """Return the members, each with its extended headers, and the bytes after the last."""
    units: Units = []
    begin = 0
    for at, end in _headers(tar):
        if tar[at + 156 : at + 157] not in (b"x", b"g", b"L", b"K"):
            units.append(tar[begin:end])
            begin = end
    return units, tar[begin:]


def _headers(tar: bytes) -> list[tuple[int, int]]:
    """Return the offset of each header, and the end of its data with the padding."""
    found = []
    at = 0
    while at + BLOCK <= len(tar) and tar[at : at + BLOCK].strip(b"\0"):
        flag = tar[at + 156 : at + 157]
        without = flag in (b"1", b"2", b"3", b"4", b"5", b"6") or (
            flag == b"\0" and tar[at : at + 100].split(b"\0", 1)[0].endswith(b"/")
        )
        size = 0 if without else _size(tar, at)
        end = min(at + BLOCK + size + -size % BLOCK, len(tar))
        found.append((at, end))
        at = end
    return found


def _size(tar: bytes, at: int) -> int:
    digits = tar[at + 124 : at + 136].strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else 0


def _records(body: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    at = 0
    while at < len(body):
        digits, space, _ = body[at : at + 10].partition(b" ")
        if not space or not digits.isdigit() or int(digits) <= len(digits) + 1:
            break
        text = body[at + len(digits) + 1 : at + int(digits)]
        keyword, _, value = text.removesuffix(b"\n").partition(b"=")
        found.append((keyword, value))
        at += int(digits)
    return found


# -- Putting together -----------------------------------------------------------------------------


def _name(random: Random) -> bytes:
    if random.random() < 0.5:
        return random.choice(traps.NAMES)
    return b"/".join(random.choice(traps.PARTS) for _ in range(random.choice((1, 1, 2, 2, 3, 4))))


def _number(random: Random, width: int) -> bytes:
    value = random.choice(traps.VALUES)
    if width == 8 and random.random() < 0.4:
        value = random.choice(traps.MODES)
    chance = random.random()
    if chance < 0.5 and 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if chance < 0.8:
        bits = width * 8 - 2
        return base256(max(-(1 << bits), min(value, (1 << bits) - 1)), width)
    return random.choice(traps.TEXTS)[:width].ljust(width, b"\0")


def _value(keyword: bytes, random: Random) -> bytes:
    if random.random() < 0.1:
        return random.randbytes(random.choice((0, 1, 20)))
    if keyword in (b"path", b"linkpath", b"GNU.sparse.name"):
        return _name(random)
    if keyword == b"GNU.sparse.map":
        numbers = sorted(random.choices((0, 1, 512, 1024, 4096, 8192, 1 << 62), k=4))
        return b",".join(b"%d" % number for number in numbers)
    if b"capability" in keyword:
        return traps.CAPABILITY
    if keyword.startswith(b"SCHILY"):
        return random.choice((b"", b"y", b"\0\xff=\n", b"x" * 600))
    return random.choice(traps.DECIMALS)


def _record(random: Random) -> tuple[bytes, bytes]:
    keyword = random.choice(traps.KEYS)
    return keyword, _value(keyword, random)


def _extended(flag: bytes, body: bytes) -> bytes:
    return header(b"PaxHeaders.0/x", flag, size=len(body)) + padded(body)


def _member(random: Random) -> bytes:
    flag = random.choice(traps.FLAGS[:18])
    data = random.choice((b"", b"1", b"x" * 700)) if flag in b"07\0" else b""
    head = header(
        _name(random)[:100],
        flag,
        mode=b"%07o\0" % random.choice(traps.MODES),
        size=len(data),
        target=_name(random)[:100] if flag in b"12" else b"",
        magic=random.choice((b"ustar\x0000", b"ustar  \0")),
    )
    return head + padded(data)


def sparse_member(random: Random) -> bytes:
    """Return a sparse file in one of the formats, mostly a valid one."""
    start, length = random.choice(((0, 512), (512, 512), (4096, 100), (0, 0), (1 << 40, 7)))
    size = start + length + random.choice((0, 0, 1, 10000, -1))
    data = b"s" * length
    sizes = {b"GNU.sparse.size": b"%d" % size}
    match random.randrange(4):
        case 0:
            head = bytearray(header(b"a/s", b"S", size=length, magic=b"ustar  \0"))
            head[386:410] = base256(start, 12) + base256(length, 12)
            head[483:495] = base256(size, 12)
            return fixed(bytes(head)) + padded(data)
        case 1:
            body = pax_records(sizes) + pax_records({b"GNU.sparse.numblocks": b"1"})
            body += pax_records({b"GNU.sparse.offset": b"%d" % start})
            body += pax_records({b"GNU.sparse.numbytes": b"%d" % length})
        case 2:
            body = pax_records({**sizes, b"GNU.sparse.map": b"%d,%d" % (start, length)})
        case _:
            records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
            records[b"GNU.sparse.realsize"] = b"%d" % size
            body = pax_records({**records, b"GNU.sparse.name": _name(random)})
            data = padded(b"1\n%d\n%d\n" % (start, length)) + data
    return _extended(b"x", body) + header(b"a/s", size=len(data)) + padded(data)


# -- Changes --------------------------------------------------------------------------------------


def _swap(units: Units, random: Random, raw: Raw) -> None:
    one, other = random.randrange(len(units)), random.randrange(len(units))
    units[one], units[other] = units[other], units[one]


def _duplicate(units: Units, random: Random, raw: Raw) -> None:
    units.insert(random.randrange(len(units) + 1), random.choice(units))


def _drop(units: Units, random: Random, raw: Raw) -> None:
    del units[random.randrange(len(units))]


def _insert(units: Units, random: Random, raw: Raw) -> None:
    units.insert(random.randrange(len(units) + 1), _member(random))


def _insert_sparse(units: Units, random: Random, raw: Raw) -> None:
    units.insert(random.randrange(len(units) + 1), sparse_member(random))


def _field(
    change: Callable[[bytearray, int, Random], None],
) -> Callable[[Units, Random, Raw], None]:
    """Return a mutation of archives from one of a field: it changes a random header."""

    def apply(units: Units, random: Random, raw: Raw) -> None:
        which = random.randrange(len(units))
        unit = bytearray(units[which])
        places = _headers(units[which])
        if places:
            # The entry's own header is the last one of the unit.
            at = places[-1][0] if random.random() < 0.8 else random.choice(places)[0]
            before = unit[at + 148 : at + 156]
            change(unit, at, random)
            if unit[at + 148 : at + 156] == before:
                unit[at : at + BLOCK] = fixed(bytes(unit[at : at + BLOCK]))
            units[which] = bytes(unit)

    return apply


def _rename(unit: bytearray, at: int, random: Random) -> None:
    unit[at : at + 100] = _name(random)[:100].ljust(100, b"\0")


def _retarget(unit: bytearray, at: int, random: Random) -> None:
    unit[at + 157 : at + 257] = _name(random)[:100].ljust(100, b"\0")


def _retype(unit: bytearray, at: int, random: Random) -> None:
    unit[at + 156 : at + 157] = random.choice(traps.FLAGS)


def _renumber(unit: bytearray, at: int, random: Random) -> None:
    start, width = random.choice(traps.NUMERIC)
    unit[at + start : at + start + width] = _number(random, width)


def _remagic(unit: bytearray, at: int, random: Random) -> None:
    unit[at + 257 : at + 265] = random.choice((b"ustar\x0000", b"ustar  \0", bytes(8)))
    time = b"%011o\0" % random.choice((0, 1 << 30))
    prefix = random.choice((_name(random), _name(random), time, time + time, time + b"x"))
    unit[at + 345 : at + 500] = prefix[:155].ljust(155, b"\0")
    unit[at + 508 : at + 512] = random.choice((b"tar\0", bytes(4)))


def _damage(unit: bytearray, at: int, random: Random) -> None:
    place = at + random.randrange(BLOCK)
    unit[place] = random.choice((0, 0xFF, unit[place] ^ (1 << random.randrange(8))))


def _resize(units: Units, random: Random, raw: Raw) -> None:
    """Replace the data of a member, and update its size."""
    which = random.randrange(len(units))
    places = _headers(units[which])
    if places:
        at, end = places[-1]
        data = raw(units[which][at + BLOCK : end] or b"1", 2048)
        if units[which][at + 156 : at + 157] in (b"0", b"7", b"\0", b"S", b"D"):
            head = bytearray(units[which][at : at + BLOCK])
            head[124:136] = b"%011o\0" % len(data)
            units[which] = units[which][:at] + fixed(bytes(head)) + padded(data)


def _extend(units: Units, random: Random, raw: Raw) -> None:
    """Add an extended header to a member, or change an existing one."""
    which = random.randrange(len(units))
    unit = units[which]
    places = _headers(unit)
    for at, end in places[:-1]:
        if unit[at + 156 : at + 157] in (b"x", b"g") and random.random() < 0.7:
            body = unit[at + BLOCK : end][: _size(unit, at)]
            body = mutate_pax(body, random, raw)
            units[which] = unit[:at] + _extended(unit[at + 156 : at + 157], body) + unit[end:]
            return
    flag = random.choice((b"x", b"x", b"x", b"g", b"L", b"K"))
    if flag in b"LK":
        body = _name(random) + random.choice((b"\0", b"", b"\0x"))
    else:
        body = b"".join(pax_records(dict([_record(random)])) for _ in range(random.choice((1, 2))))
    units[which] = _extended(flag, body) + unit


def _between(units: Units, random: Random, raw: Raw) -> None:
    """Insert a header between a member's extended headers and its own."""
    which = random.randrange(len(units))
    unit = units[which]
    places = _headers(unit)
    if places:
        at = places[-1][0]
        something = random.choice((b"g", b"V", b"L", b"K", b"x"))
        body = pax_records({b"comment": b"c"}) if something == b"g" else b""
        if something == b"x":
            body = b"".join(pax_records(dict([_record(random)])) for _ in range(2))
        elif something in (b"L", b"K"):
            body = _name(random) + b"\0"
        units[which] = unit[:at] + _extended(something, body) + unit[at:]


def _scratch(units: Units, random: Random, raw: Raw) -> None:
    """Change a member's bytes without updating the checksum."""
    which = random.randrange(len(units))
    units[which] = raw(units[which], len(units[which]) + BLOCK)


_CHANGES = (
    _swap,
    _duplicate,
    _drop,
    *(_insert,) * 3,
    _insert_sparse,
    *(_field(_rename),) * 4,
    *(_field(_retarget),) * 3,
    *(_field(_retype),) * 3,
    *(_field(_renumber),) * 2,
    _field(_remagic),
    _field(_damage),
    _resize,
    *(_extend,) * 4,
    *(_between,) * 2,
    _scratch,
)
