"""Random small tar archives with all kinds of headers and extensions."""

from __future__ import annotations

from random import Random

from tests.support.build import base256, header, padded, pax_records

from .. import traps
from ..images import SEPARATOR
from ..mutate import raw
from ..mutate_tar import fixed, mutate_tar, sparse_member

__all__ = ["make_layers"]

_NAMES = (
    *(
        b"a",
        b"b",
        b"d",
        b"d/f",
        b"d/",
        b"a/b",
        b"l",
        b"l/f",
        b"./a",
        b"./",
        b"h",
        b"x y",
        b"./d/e/",
    ),
    *(b"n" * 99, b"n" * 100, b"n" * 99 + b"/", b"p/" + b"n" * 97, "é".encode(), b"d//f", b"d/./f"),
    *(b"../e", b"d/../e", b"/f", b".wh.f", b"d/.wh.f", b".wh..wh..opq", b"d/.wh..wh..opq", b"a b/"),
)
_TARGETS = (b"a", b"b", b"d/f", b"../a", b"/a", b"d", b"t" * 100, b"./a", b"", b"d/", "é".encode())
_COMMON = (*(b"0",) * 8, *(b"\0",) * 3, b"7", b"1", b"2", b"2", b"2", b"5", b"5", b"5", b"6")
_FLAGS: tuple[bytes, ...] = (
    *_COMMON,
    b"1",
    b"3",
    b"4",
    b"6",
    b"D",
    b"S",
    b"V",
    b"A",
    b"N",
    b"M",
    b"X",
    b"E",
    b"8",
    b"g",
)
_MAGICS: tuple[bytes, ...] = (
    *(b"ustar\x0000",) * 5,
    *(b"ustar  \0",) * 3,
    bytes(8),
    b"ustar\0\0\0",
    b"ustar\x00 0",
)
_MAGICS += (b"ustar \x00\x00", b"ustar\x0001", b"USTAR\x0000", b"ustar   ")
_TIMES = (
    b"00000000000\0",
    b"13727046234\0",
    b"77777777777\0",
    base256(-5, 12),
    base256(1 << 33, 12),
)
_PREFIXES = (
    b"p",
    b"p/q",
    b"p/",
    b"/p",
    b"q" * 155,
    b"q" * 131,
    b"..",
    b"./p",
    b" ",
    b"12345670123 ",
)
_DECIMALS: tuple[bytes, ...] = (
    b"0",
    b"1",
    b"7",
    b"3",
    b"512",
    b"007",
    b"+1",
    b" 1",
    b"1 ",
    b"-0",
    b"1.5",
    b"0x1",
    b"",
)
_DECIMALS += (b"1e1", b"1_0", b"0000000000000000000000001", b"4294967294", b"1.", b".5", b"-1")

_KEYS = (
    b"path",
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"atime",
    b"ctime",
    b"comment",
    b"uname",
    b"hdrcharset",
    b"SCHILY.xattr.user.a",
    b"SCHILY.devmajor",
    b"SCHILY.realsize",
    b"GNU.sparse.name",
    b"GNU.sparse.size",
    b"GNU.sparse.realsize",
    b"GNU.sparse.map",
    b"GNU.sparse.major",
    b"LIBARCHIVE.creationtime",
    b"PATH",
    b" path",
    b"LIBARCHIVE.symlinktype",
    b"SUN.devmajor",
    b"RHT.security.selinux",
    b"charset",
    b"SCHILY.dev",
    b"SCHILY.ino",
    b"SCHILY.nlink",
    b"SCHILY.fflags",
    b"SCHILY.filetype",
    b"SCHILY.offset",
    b"LIBARCHIVE.xattr.user.b",
    b"GNU.volume.label",
    b"mode",
)


def make_layers(random: Random) -> bytes:
    """Return an input for :func:`fuzz.readers.layers.compare_layers`."""
    below = random.random() < 0.25
    layers = [make_tar(random) for _ in range(random.choice((1, 1, 1, 1, 1, 2)))]
    return bytes([below]) + SEPARATOR.join(layers)


def make_tar(random: Random) -> bytes:
    """Return an archive of random members, sometimes changed once more.

    Unusual parts are rare in one archive: an input that a reader refuses compares nothing.
    """
    odd = random.choice((0.1, 0.3, 1.0))
    count = 1 if odd == 1.0 else random.choice((1, 2, 3, 4))
    tar = b"".join(_member(random, odd) for _ in range(count))
    tar += random.choice((*(bytes(1024),) * 6, b"", bytes(512), bytes(9000)))
    if random.random() < 0.3 * odd:
        tar = mutate_tar(tar, random, raw(random))
    if random.random() < 0.3 * odd:
        tar = _repaired(tar, random)
    return tar


def _repaired(tar: bytes, random: Random) -> bytes:
    """Change some bytes of a header, and update its checksum."""
    at = random.randrange(max(1, len(tar) // 512)) * 512
    block = bytearray(tar[at : at + 512])
    if len(block) < 512 or not any(block):
        return tar
    for _ in range(random.choice((1, 1, 2))):
        block[random.randrange(512)] = random.choice(b"\0 /0178\xff\x80a-") or 0
    return tar[:at] + fixed(bytes(block)) + tar[at + 512 :]


def _member(random: Random, odd: float) -> bytes:
    """Return an entry with its extensions."""
    if random.random() < 0.07:
        return sparse_member(random)
    before = b""
    if random.random() < 0.35:
        flags = random.choice((b"x", b"x", b"x", b"L", b"K", b"LK", b"KL", b"g", b"gx", b"X"))
        before = b"".join(_extension(random, odd, bytes([flag])) for flag in flags)
    while random.random() < odd / 10:
        before += _extension(random, odd, random.choice((b"x", b"L", b"K", b"g", b"X")))
    return before + _entry(random, odd)


def _entry(random: Random, odd: float) -> bytes:
    flag = random.choice(_FLAGS if random.random() < odd else _COMMON)
    data = random.choice((b"", b"1", b"x" * 511, b"y" * 512, b"z" * 700))
    if flag not in b"07\0SDAX8" and random.random() < 1 - odd / 5:
        data = b""
    size = len(data) if random.random() < 1 - odd / 10 else random.choice((0, 1, 512, 513))
    rare = 0.12 if odd == 1.0 or random.random() < 0.3 else 0.0
    magic = random.choice(_MAGICS if random.random() < odd else _MAGICS[:9])
    head = header(
        random.choice(_NAMES),
        flag,
        mode=_number(random, odd, random.choice(traps.MODES), 8),
        uid=_number(random, odd, random.choice((0, 0, 0, 7, 1000, 0o7777777)), 8),
        gid=_number(random, odd, random.choice((0, 0, 0, 7, 1000)), 8),
        size=_number(random, odd, size, 12),
        mtime=random.choice(_TIMES),
        target=random.choice(_TARGETS) if flag in b"12" or random.random() < 0.05 else b"",
        magic=magic,
        devmajor=_number(random, odd, random.choice((0, 1, 259)), 8),
        devminor=_number(random, odd, random.choice((0, 3, 1000)), 8),
        prefix=random.choice(_PREFIXES) if random.random() < rare else b"",
    )
    if random.random() < 0.05:
        head = fixed(head[:508] + random.choice((b"tar\0", b"tar ", b"\1\2\3\4")))
    if random.random() < 0.05:
        # Times in the prefix, as in GNU tar and star.
        at = random.choice((345, 357, 476, 488))
        head = fixed(head[:at] + b"13727046234\0" + head[at + 12 :])
    return head + (padded(data) if random.random() < 0.97 else data)


def _number(random: Random, odd: float, value: int, width: int) -> bytes:
    """Encode a number as some archiver does, or in an invalid form."""
    digits = b"%o" % value
    full = digits.rjust(width - 1, b"0")
    plain = full + b"\0"
    if random.random() < 1 - odd / 3:
        return plain
    return random.choice(
        (
            full + b" ",
            digits.rjust(width, b"0"),
            digits.rjust(width - 2, b"0") + b" \0",
            digits.rjust(width - 2) + b" \0",
            digits.rjust(width - 1) + b"\0",
            digits.ljust(width, b"\0"),
            digits.ljust(width),
            (b"\0" + digits).ljust(width, b"\0"),
            (b" \0" + digits).ljust(width, b"\0"),
            (digits + b"\0x7").ljust(width, b"\0"),
            (digits + b" 1").ljust(width, b"\0"),
            (digits + b"-").ljust(width, b"\0"),
            (b"-" + digits).ljust(width, b"\0"),
            (b"+" + digits).ljust(width, b"\0"),
            (b"0x" + digits).ljust(width, b"\0"),
            (digits + b"8").ljust(width, b"\0"),
            (b"\t" + digits).ljust(width, b"\0"),
            (digits + b"\n").ljust(width, b"\0"),
            bytes(width),
            b" " * width,
            base256(value, width),
            b"\x80" + b"\0" * (width - 5) + value.to_bytes(4, "big"),
            b"\x81" + b"\0" * (width - 5) + value.to_bytes(4, "big"),
            base256(-1 - value, width),
        )
    )[:width]


def _extension(random: Random, odd: float, flag: bytes) -> bytes:
    if flag in b"LK":
        body = random.choice(_NAMES if flag == b"L" else _TARGETS) * random.choice((1, 1, 2))
        body += random.choice((b"\0", b"\0", b"", b"\0x", b"\0\0"))
    else:
        body = b"".join(_record(random, odd, flag) for _ in range(random.choice((1, 1, 2, 3))))
        body += bytes(random.choice((*(0,) * 9, 3)))
    name = random.choice((b"PaxHeaders.0/x", b"././@LongLink", b"a", b"d/"))
    head = header(
        name,
        flag,
        size=_number(random, odd, len(body), 12),
        magic=random.choice(_MAGICS[:8]),
        target=b"t" if random.random() < 0.02 else b"",
    )
    return head + padded(body)


def _record(random: Random, odd: float, flag: bytes) -> bytes:
    if flag == b"g" and random.random() < 0.9:
        return pax_records({b"comment": random.choice((b"c", b"", b"=\n"))})
    keyword = random.choice(_KEYS[:7] if random.random() > odd else _KEYS)
    if keyword.lower().endswith(b"path") or keyword == b"GNU.sparse.name":
        value = random.choice((*_NAMES, *_TARGETS))
    elif keyword == b"size":
        value = random.choice((b"0", b"1", b"511", b"512", b"700", *_DECIMALS))
    elif keyword == b"hdrcharset":
        value = random.choice((b"BINARY", b"ISO-IR 10646 2000 UTF-8", b"x"))
    elif keyword == b"SCHILY.fflags":
        value = random.choice((b"nodump", b"immutable"))
    elif b"attr" in keyword:
        value = random.choice((b"v", b"", b"=\n\0", b"QUJD"))
    else:
        value = random.choice(_DECIMALS)
    record = pax_records({keyword: value})
    if random.random() < odd / 12:
        record = random.choice(
            (
                b"0" + record,
                b" " + record,
                record[:-1],
                record[:-1] + b"x",
                record.replace(b"=", b"", 1),
                b"+" + record,
                record.replace(b" ", b"\t", 1),
                record.replace(b" ", b"  ", 1),
                record + b"\n",
                b"\n" + record,
            )
        )
    return record
