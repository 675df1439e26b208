"""What two readers of an image would take for different things: refused, or decided and held.

Most of it was found by `make fuzz-readers`, which holds our reading against those of umoci, skopeo,
GNU tar and bsdtar.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import ociroot

from .support.build import archive, header, padded, pax_records

END = bytes(1024)


def extended(records: dict[bytes, bytes]) -> bytes:
    data = pax_records(records)
    return header(b"PaxHeaders.0/f", b"x", size=len(data)) + padded(data)


def old_sparse(magic: bytes) -> bytes:
    block = bytearray(header(b"f", b"S", size=5, magic=magic))
    block[386:410] = b"%011o\0%011o\0" % (0, 5)
    block[483:495] = b"%011o\0" % 5
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    return bytes(block) + padded(b"12345")


REFUSED = {
    "a NUL before digits is the end of a number to GNU tar and bsdtar, and nothing to Go": (
        header(b"f", size=b"\x000000000001\0"[:12]) + padded(b"1"),
        "an impossible size",
    ),
    "so is one behind a space": (
        header(b"f", uid=b" \x001750\0\0"),
        "an impossible uid",
    ),
    "a sparse entry is one under GNU's magic alone": (old_sparse(b"ustar\x0000"), "sparse"),
    "a volume label's data is data to GNU tar, and headers to bsdtar": (
        header(b"label", b"V", size=512) + header(b"f") + header(b"g"),
        "a volume label with 512 bytes of data",
    ),
    "GNU tar skips blanks before a keyword": (
        header(b"PaxHeaders.0/f", b"x", size=11) + padded(b"11  path=a\n") + header(b"f"),
        "a pax record with the keyword",
    ),
    "a file of which the name ends in a slash is a directory to GNU tar and bsdtar": (
        header(b"f/", size=1) + padded(b"1"),
        "a regular file whose name ends in a slash",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_readers_disagree_on_is_refused(what: str, tmp_path: Path) -> None:
    tar, problem = REFUSED[what]
    with ociroot.open(archive(tmp_path / "image.tar", [tar + END])) as source:
        image = source.image()
        with pytest.raises(ociroot.MalformedImage, match=problem):
            image.merged()


READ = {
    "old GNU sparse files": old_sparse(b"ustar  \0"),
    "numbers of spaces, or of NULs": header(b"f", uid=b" " * 8, gid=bytes(8)),
    "numbers that end in NULs": header(b"f", uid=b"7\0\0\0\0\0\0\0"),
    "a volume label": header(b"label", b"V") + header(b"f"),
}


@pytest.mark.parametrize("what", READ)
def test_what_is_like_it_is_read(what: str, tmp_path: Path) -> None:
    with ociroot.open(archive(tmp_path / "image.tar", [READ[what] + END])) as source:
        assert source.image().merged().tree.find(b"f") is not None
