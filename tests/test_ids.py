"""Maps of ids: read strictly, applied as the kernel applies them in a user namespace."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ociroot.errors import Unsupported, UsageError
from ociroot.outputs.ids import (
    MAX_ID,
    IdMap,
    IdRange,
    OwnerMap,
    parse_map,
    parse_owner,
)
from ociroot.outputs.subids import subordinate_map
from ociroot.tar.acl import mode_without_acl

from .support.namespace import in_namespace
from .support.needs import need_tools
from .support.user import workshop

LXC = parse_map("0:100000:65536")
ANY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)


def capability(root: int | None, flags: int = 1) -> bytes:
    revision = 0x02000000 if root is None else 0x03000000
    value = struct.pack("<IIIII", revision | flags, 1 << 10, 0, 0, 0)
    return value if root is None else value + struct.pack("<I", root)


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "0:1", "0:1:2:3", "0:1:2,", "a:b:c", "0:1:-1", "+0:1:2", " 0:1:2", "0:1:2 ",
        "٠:1:2",
        "0:1:0", "0:4294967295:1", "4294967295:0:1", "0:1:4294967295", "0:1:99999999999", "0x0:1:2",
        "0:100:10,5:200:10", "0:100:10,20:105:10", ",".join(f"{n}:{n}:1" for n in range(341)),
    ],
)  # fmt: skip
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_map(text)


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "a:0", "-1:0", "0:4294967295", "4294967295:0"])
def test_what_is_no_owner_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_owner(text)


def test_the_whole_range_can_be_mapped() -> None:
    whole = parse_map(f"0:0:{MAX_ID + 1}")
    assert whole.to_host(MAX_ID) == MAX_ID
    assert whole.to_host(MAX_ID + 1) is None
    assert parse_owner(f"{MAX_ID}:0") == (MAX_ID, 0)
    assert len(parse_map(",".join(f"{n}:{n}:1" for n in range(340))).ranges) == 340


@st.composite
def maps(draw: st.DrawFn, most: int = 1 << 20) -> IdMap:
    """A map of ranges that do not overlap, with holes, in another order on the host."""
    count = draw(st.integers(1, 6))
    numbers = st.lists(st.integers(0, most), min_size=2 * count, max_size=2 * count, unique=True)
    cuts = [sorted(draw(numbers)) for _ in range(2)]
    spans = [list(zip(cut[::2], cut[1::2], strict=True)) for cut in cuts]
    order = draw(st.permutations(spans[1]))
    return IdMap(
        IdRange(start, low, min(end - start, high - low))
        for (start, end), (low, high) in zip(spans[0], order, strict=True)
    )


def slow(used: IdMap, number: int) -> int | None:
    """What the map says, found by trying all ranges."""
    for start, host, size in used.ranges:
        if start <= number < start + size:
            return host + (number - start)
    return None


@given(maps(), st.data())
def test_a_map_says_what_its_ranges_say(used: IdMap, data: st.DataObject) -> None:
    edges = [n + d for each in used.ranges for n in (each[0], each[0] + each[2]) for d in (-1, 0)]
    number = data.draw(st.one_of(st.sampled_from(edges), st.integers(0, 1 << 20)))
    assert used.to_host(number) == slow(used, number)


@given(maps(), maps(), st.integers(0, 1 << 20))
def test_two_maps_after_each_other_are_one(one: IdMap, other: IdMap, number: int) -> None:
    between = slow(one, number)
    expected = slow(other, between) if between is not None else None
    try:
        both = one.then(other)
    except UsageError:
        assert expected is None
    else:
        assert both.to_host(number) == expected


@given(maps(), st.integers(0, 1 << 20))
def test_the_inverse_leads_back(used: IdMap, number: int) -> None:
    host = used.to_host(number)
    if host is not None:
        assert used.inverse().to_host(host) == number
    assert used.inverse().size == used.size


def test_what_is_not_covered_is_refused_with_the_map() -> None:
    owners = OwnerMap(LXC, parse_map("0:200000:10"))
    assert owners.owner(65535, 9) == (165535, 200009)
    with pytest.raises(Unsupported, match="the owner is 65536, which the map 0:100000:65536 does"):
        owners.owner(65536, 0)
    with pytest.raises(Unsupported, match="the group is 10, which the map 0:200000:10 does not"):
        owners.owner(0, 10)
    with pytest.raises(Unsupported, match="an ACL's group is 10"):
        owners.acl(acl((1, 7, ANY), (4, 7, ANY), (8, 7, 10), (16, 7, ANY), (32, 5, ANY)))
    with pytest.raises(Unsupported, match=r"root user of security.capability is 70000.*--squash"):
        owners.capability(capability(70000))


def test_what_is_not_covered_can_be_given_to_another_owner() -> None:
    owners = OwnerMap(LXC, LXC, squash=(7, 8))
    assert owners.owner(65536, 5) == (7, 100005)
    assert owners.owner(1, 65536) == (100001, 8)
    # Two entries for one id: acl(5) has one, and the kernel goes by the first.
    value = acl((1, 7, ANY), (2, 4, 65536), (2, 7, 65537), (4, 5, ANY), (16, 7, ANY), (32, 0, ANY))
    assert owners.acl(value) == acl((1, 7, ANY), (2, 4, 7), (4, 5, ANY), (16, 7, ANY), (32, 0, ANY))


def test_revision_2_becomes_revision_3_of_the_mapped_root() -> None:
    owners = OwnerMap(LXC, LXC)
    assert owners.capability(capability(None)) == capability(100000)
    assert owners.capability(capability(0)) == capability(100000)
    assert owners.capability(capability(5, flags=0)) == capability(100005, flags=0)
    assert owners.capability(b"") == b""
    old = struct.pack("<III", 0x01000001, 1, 0)
    assert owners.capability(old) == old


def test_without_its_acl_a_file_gives_nobody_more(tmp_path: Path) -> None:
    """As `setfacl -b`, which gives the group bits what the ACL gave the owning group."""
    value = acl((1, 7, ANY), (2, 7, 5), (4, 4, ANY), (16, 6, ANY), (32, 1, ANY))
    assert mode_without_acl(0o2761, value) == 0o2741
    assert mode_without_acl(0o2721, value[:28] + struct.pack("<HHI", 16, 2, ANY)) == 0o2701
    minimal = acl((1, 6, ANY), (4, 5, ANY), (32, 0, ANY))
    assert mode_without_acl(0o650, minimal) == 0o650
    assert mode_without_acl(0o664, b"") == 0o664
    path = tmp_path / "file"
    path.touch(0o600)
    try:
        os.setxattr(path, "system.posix_acl_access", value)
    except OSError:
        pytest.skip("this file system has no ACLs")
    before = stat.S_IMODE(path.stat().st_mode)
    need_tools("setfacl")
    subprocess.run(["setfacl", "-b", path], check=True)
    assert mode_without_acl(before, value) == stat.S_IMODE(path.stat().st_mode)


def test_messages_name_the_map_that_was_given() -> None:
    owners = OwnerMap(LXC, LXC).then(parse_map("100000:1:65536"), parse_map("100000:1:65536"))
    assert owners.owner(0, 5) == (1, 6)
    with pytest.raises(Unsupported, match="the map 0:100000:65536 does not cover"):
        owners.owner(70000, 0)
    squashing = OwnerMap(LXC, LXC, squash=(100007, 100008))
    used = parse_map("100000:1:65536")
    assert squashing.then(used, used).owner(70000, 70000) == (8, 9)
    with pytest.raises(UsageError, match="is not covered, either"):
        OwnerMap(LXC, LXC, squash=(5, 5)).then(used, used)


@pytest.mark.root
@settings(max_examples=15, deadline=None)
@given(
    maps(1 << 16),
    st.lists(st.integers(0, 1 << 16), min_size=4, max_size=4, unique=True),
    st.sampled_from([None, 0, 1]),
)
def test_the_kernel_maps_the_same(used: IdMap, numbers: list[int], revision: int | None) -> None:
    """A process in a namespace with the map writes; what it wrote is looked at from outside."""
    # Its root must be one of the host's ids, in which nothing else is.
    used = IdMap([IdRange(0, 200000, 1), *(r for r in used.ranges if r.container > 0)])
    owners = OwnerMap(used, used)
    wanted = [n for n in numbers if used.to_host(n) is not None] + [0, 0, 0, 0]
    uid, gid, named_user, named_group = wanted[:4]
    access = acl(
        *((1, 6, ANY), (2, 5, named_user), (4, 4, ANY), (8, 1, named_group)),
        *((16, 7, ANY), (32, 4, ANY)),
    )
    caps = capability(None if revision is None else wanted[0] * revision)
    with workshop() as place:
        os.chown(place, 200000, 200000)
        path = place / "file"

        def write() -> None:
            path.write_bytes(b"x")
            os.chown(path, uid, gid)
            os.setxattr(path, "security.capability", caps)
            os.setxattr(path, "system.posix_acl_access", access)

        in_namespace(used, used, write)
        status = path.stat()
        assert (status.st_uid, status.st_gid) == owners.owner(uid, gid)
        assert os.getxattr(path, "security.capability") == owners.capability(caps)
        assert os.getxattr(path, "system.posix_acl_access") == owners.acl(access)


def test_subordinate_ids_are_those_of_the_name_and_of_the_number(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text(
        "# comment\nroot:100000:65536\nrooty:1:1\n0:300000:10\nroot:5:0\nroot:x:1\nroot:1:2:3\n"
        "root:900000:20\n:5:5\nnobody:400000:1\n"
    )
    used = subordinate_map(str(path), uid=0)
    assert used == parse_map("0:100000:65536,65536:300000:10,65546:900000:20")
    with_own = subordinate_map(str(path), uid=0, first=IdRange(0, 1000, 1))
    assert with_own == parse_map("0:1000:1,1:100000:65536,65537:300000:10,65547:900000:20")
    with pytest.raises(UsageError, match="has no ids for the user 12345"):
        subordinate_map(str(path), uid=12345)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        subordinate_map(str(tmp_path / "absent"), uid=0)


def test_subordinate_ids_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("root:100000:65536\nroot:100010:5\n")
    with pytest.raises(UsageError, match="overlap on the host"):
        subordinate_map(str(path), uid=0)
