"""Input that readers interpret differently: refused, or decided and tested.

Most of it was found by `make fuzz-readers`, which compares our reading with those of umoci, skopeo,
GNU tar and bsdtar.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

import ociroot
from fuzz.readers import trees
from fuzz.readers.known import DECIDED
from fuzz.readers.minimise import minimise_documents, minimise_layers
from fuzz.readers.targets import TARGETS

from .support.build import archive, header, padded, pax_records
from .support.needs import need_tools
from .support.snapshot import Snapshot
from .support.tally import tally

END = bytes(1024)
CASES = Path(__file__).parent.parent / "fuzz" / "cases" / "readers"
# The number of random inputs: each is read by several programs.
MOST = min(int(os.environ.get("OCIROOT_FUZZ", "500")), 500)
INPUTS = {"layers": MOST, "documents": MOST // 5}


def extended(records: dict[bytes, bytes]) -> bytes:
    data = pax_records(records)
    return header(b"PaxHeaders.0/f", b"x", size=len(data)) + padded(data)


def old_sparse(magic: bytes) -> bytes:
    block = bytearray(header(b"f", b"S", size=5, magic=magic))
    block[386:410] = b"%011o\0%011o\0" % (0, 5)
    block[483:495] = b"%011o\0" % 5
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    return bytes(block) + padded(b"12345")


def real_size(typeflag: bytes) -> bytes:
    block = bytearray(header(b"f", typeflag, size=5, magic=b"ustar  \0"))
    block[386:410] = b"%011o\0%011o\0" % (0, 5)
    block[483:495] = b"%011o\0" % 10
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    return bytes(block) + padded(b"12345")


REFUSED = {
    "a NUL before digits is the end of a number to GNU tar and bsdtar, and nothing to Go": (
        header(b"f", size=b"\x000000000001\0"[:12]) + padded(b"1"),
        "invalid size",
    ),
    "so is one behind a space": (
        header(b"f", uid=b" \x001750\0\0"),
        "invalid uid",
    ),
    "a sparse entry is one under GNU's magic alone": (old_sparse(b"ustar\x0000"), "sparse"),
    "a volume label's data is data to GNU tar, and headers to bsdtar": (
        header(b"label", b"V", size=512) + header(b"f") + header(b"g"),
        "a volume label with 512 bytes of data",
    ),
    "so is a pax header of Solaris's type": (
        header(b".wh.f", b"X", size=11) + padded(b"11 path=ab\n") + header(b"f"),
        "a header of type b'X' with the name of a whiteout",
    ),
    "also where the name is in a header before it": (
        extended({b"path": b".wh.f"})
        + header(b"PaxHeaders.0/f", b"X", size=8)
        + padded(b"8 uid=7\n")
        + header(b"f"),
        "Solaris pax header .* between an extended header and its entry",
    ),
    "so is a global header, also to containerd": (
        header(b".wh..wh..opq", b"g") + header(b"f"),
        "a header of type b'g' with the name of a whiteout",
    ),
    "also one whose name is in the prefix": (
        header(b"", b"g", prefix=b"d/.wh.f") + header(b"f"),
        "a header of type b'g' with the name of a whiteout",
    ),
    "bsdtar takes a device's numbers from pax records": (
        extended({b"SCHILY.devminor": b"1"}) + header(b"f", b"3"),
        "SCHILY.devminor",
    ),
    "a volume label is a whiteout to umoci by its name": (
        header(b".wh.f", b"V"),
        "a header of type b'V' with the name of a whiteout",
    ),
    "GNU tar skips blanks before a keyword": (
        header(b"PaxHeaders.0/f", b"x", size=11) + padded(b"11  path=a\n") + header(b"f"),
        "a pax record with the invalid keyword",
    ),
    "a file of which the name ends in a slash is a directory to GNU tar and bsdtar": (
        header(b"f/", size=1) + padded(b"1"),
        "a regular file whose name ends in a slash",
    ),
    "GNU tar and bsdtar skip as many bytes as a pax record says, of what has no data, too": (
        extended({b"size": b"512"}) + header(b"f", b"2", target=b"x") + header(b"g"),
        "a pax size record on an entry that has no data",
    ),
    "a header of V7 has no device numbers": (
        header(b"f", b"3", magic=bytes(8), devmajor=b"0000001\0"),
        "a device in a header that is neither POSIX nor GNU format",
    ),
    "nor has one of a magic that nearly is GNU's": (
        header(b"f", b"4", magic=b"ustar   ", devmajor=b"0000001\0"),
        "a device in a header that is neither POSIX nor GNU format",
    ),
    "bsdtar takes the real size of any file": (real_size(b"0"), "the real size"),
    "also behind a sparse file with the same": (
        real_size(b"S") + real_size(b"0"),
        "the real size",
    ),
    "bsdtar takes star's real size of any file": (
        extended({b"SCHILY.realsize": b"3"}) + header(b"f"),
        "star's format",
    ),
    "of an attribute that is there twice bsdtar takes the first": (
        extended({b"SCHILY.xattr.user.a": b"1", b"SCHILY.xattr.user.b": b"1"}).replace(
            b"user.b", b"user.a"
        )
        + header(b"f"),
        "duplicate pax record SCHILY.xattr.user.a",
    ),
    "an empty number is 0 to bsdtar, and the header's to Go": (
        extended({b"uid": b""}) + header(b"f", uid=b"0000007\0"),
        "the pax record uid is empty",
    ),
    "an empty path is one to GNU tar, and none to Go": (
        extended({b"path": b""}) + header(b"f"),
        "the pax record path is empty",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_readers_disagree_on_is_refused(what: str, tmp_path: Path) -> None:
    tar, problem = REFUSED[what]
    with ociroot.open(archive(tmp_path / "image.tar", [tar + END])) as source:
        image = source.image()
        with pytest.raises((ociroot.MalformedImage, ociroot.Unsupported), match=problem):
            image.merged()


READ = {
    "a sparse file with its real size": real_size(b"S"),
    "a file with numbers of a device": extended({b"SCHILY.devmajor": b"1"}) + header(b"f"),
    "a device in GNU's header": header(b"f", b"3", magic=b"ustar  \0", devmajor=b"0000001\0"),
    "a pax record that gives no size": extended({b"size": b"0"}) + header(b"f", b"5"),
    "old GNU sparse files": old_sparse(b"ustar  \0"),
    "numbers of spaces, or of NULs": header(b"f", uid=b" " * 8, gid=bytes(8)),
    "numbers that end in NULs": header(b"f", uid=b"7\0\0\0\0\0\0\0"),
    "a volume label": header(b"label", b"V") + header(b"f"),
}


@pytest.mark.parametrize("what", READ)
def test_what_is_like_it_is_read(what: str, tmp_path: Path) -> None:
    with ociroot.open(archive(tmp_path / "image.tar", [READ[what] + END])) as source:
        assert source.image().merged().tree.find(b"f") is not None


# Other programs on the same bytes.


@pytest.fixture
def readers() -> None:
    need_tools("umoci", "skopeo", "tar", "bsdtar")


def cases() -> list[Path]:
    return sorted(CASES.glob("*/*"))


@pytest.mark.root
@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_was_found_is_no_longer_read_in_two_ways(case: Path) -> None:
    assert TARGETS[case.parent.name].compare(case.read_bytes()).differences == ()


@pytest.mark.root
@pytest.mark.usefixtures("readers")
def test_every_decision_has_a_case() -> None:
    """A decision without a case could hide another difference."""
    met = {name for c in cases() for name in TARGETS[c.parent.name].compare(c.read_bytes()).decided}
    assert met == {decision.name for decision in DECIDED}


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.usefixtures("readers")
@pytest.mark.parametrize("name", TARGETS)
def test_random_inputs(name: str) -> None:
    target = TARGETS[name]
    both = 0
    for number in range(INPUTS[name]):
        data = target.make(Random(f"{name} {number}"))
        result = target.compare(data)
        assert result.differences == (), number
        both += len(result.accepted) > 1
        tally("an input to several readers", "none differs" if result.accepted else "refused")
    # An input that only one reader accepts compares nothing.
    assert both > INPUTS[name] // 5


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_the_same_each_time(name: str) -> None:
    make = TARGETS[name].make
    assert [make(Random(n)) for n in range(50)] == [make(Random(n)) for n in range(50)]


@pytest.mark.root
@pytest.mark.usefixtures("readers")
def test_a_difference_is_seen_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that one of two readers does not see is a finding, whatever the table says."""
    unpack = trees.by_umoci

    def without_f(layout: Path, root: Path) -> Snapshot | None:
        found = unpack(layout, root)
        return {n: r for n, r in found.items() if n != b"f"} if found is not None else None

    monkeypatch.setattr(trees, "by_umoci", without_f)
    data = b"\1" + header(b"e") + header(b"f", mode=b"0004755\0", size=3) + padded(b"abc") + END
    compare = TARGETS["layers"].compare
    [difference] = compare(data).differences
    assert difference.signature == "umoci-missing-file"
    small = minimise_layers(data, lambda each: bool(compare(each).differences))
    assert small == b"\0" + header(b"f")


def test_documents_are_made_small_with_right_digests() -> None:
    data = TARGETS["documents"].make(Random(1))
    small = minimise_documents(data, lambda each: b"config" in each)
    assert 0 < len(small) < len(data) // 2
