"""What is written of a tree, and what it becomes: filters, maps and policies on the way to disk."""

from __future__ import annotations

import os
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import ociroot
from ociroot import ExportOptions, ExtractOptions, OutputPolicy, OwnerMap, PathFilter
from ociroot.api import extraction as extracting

from .support.build import Layer, Member, archive, directory, file, link, symlink
from .support.model import ModelRefusal, expected
from .support.snapshot import Snapshot, differences, snapshot
from .support.strategies import Stack, dense_stacks, good_stacks
from .support.user import workshop

pytestmark = pytest.mark.root

SETTINGS = settings(
    deadline=None,
    max_examples=int(os.environ.get("OCIROOT_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LXC = OwnerMap.parse("0:100000:65536", "0:200000:65536")
ANY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *each)
    for each in [(1, 6, ANY), (2, 5, 7), (4, 4, ANY), (8, 1, 9), (16, 7, ANY), (32, 4, ANY)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


@pytest.fixture(params=["one process", "two"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write by one process, and by two."""
    monkeypatch.setattr(extracting, "WORTH_A_PROCESS", 0 if request.param == "two" else 1 << 60)
    if len(os.sched_getaffinity(0)) == 1:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    yield request.param


def extract(layers: Any, where: Path, **options: Any) -> ociroot.Report:
    image = archive(where / "image", layers)
    with ociroot.open(image) as source:
        chosen = ExtractOptions(**{"writer_process": True, **options})
        return source.image().extract(where / "rootfs", chosen)


def written(layers: Any, **options: Any) -> Snapshot:
    with workshop() as where:
        extract(layers, where, **options)
        return snapshot(where / "rootfs")


def codes(report: ociroot.Report) -> list[tuple[str, int]]:
    return [(warning.code, warning.count) for warning in report.warnings]


# Filters.

PATTERNS = st.lists(
    st.sampled_from(
        [
            *(b"a", b"b", b"/a", b"/b", b"a/", b"c", b"/a/b", b"b/**", b"**/a/b", b"a/*", b"/*/b"),
            *("é".encode(), b"\xff*", b"[ab]", b"/a/**/b", b"/b/a/c", b"?/a", b"a/b/c"),
        ]
    ),
    max_size=2,
)


@SETTINGS
@given(st.one_of(good_stacks, dense_stacks), PATTERNS, PATTERNS, st.booleans())
def test_what_is_written_is_what_the_finished_tree_has(
    stack: Stack, excludes: list[bytes], includes: list[bytes], two: bool
) -> None:
    try:
        whole = expected(stack)
    except ModelRefusal:
        assume(False)
    path_filter = PathFilter(excludes=excludes, includes=includes)
    kept = {path for path in whole if path == b"." or is_kept(path, whole, path_filter)}
    # A directory above something that is kept is kept for it.
    kept |= {
        b"/".join(path.split(b"/")[:n]) for path in kept for n in range(1, path.count(b"/") + 1)
    }
    with workshop() as where, pytest.MonkeyPatch.context() as patch:
        patch.setattr(extracting, "WORTH_A_PROCESS", 0 if two else 1 << 60)
        extract(stack, where, filter=path_filter)
        got = snapshot(where / "rootfs")
    want = {
        path: replace(whole[path], links=tuple(p for p in whole[path].links if p in kept))
        for path in kept
    }
    assert differences(want, got) == []


def is_kept(path: bytes, whole: Snapshot, path_filter: PathFilter) -> bool:
    """Whether a path is kept for itself, asked without what is in memory of the way to it."""
    names = path.split(b"/")
    position = path_filter.start()
    for number, name in enumerate(names):
        last = number == len(names) - 1
        position = position.below(name, not last or whole[path].kind == "dir")
    return position.is_in and not position.is_out


HIDDEN = [
    [
        directory(b"a"), directory(b"b"), directory(b"c"),
        file(b"a/one", b"content"), link(b"b/two", b"a/one"), link(b"b/three", b"b/two"),
        link(b"c/four", b"a/one"), file(b"a/gone", b"x"), link(b"b/gone", b"a/gone"),
        symlink(b"a/sym", b"target"), link(b"b/sym", b"a/sym"), symlink(b"b/to-a", b"../a/one"),
    ],
    [file(b".wh.c"), file(b"b/.wh.gone"), link(b"b/five", b"a/one"), directory(b"d/e")],
]  # fmt: skip


def test_a_hard_link_whose_first_name_is_skipped_has_its_content(processes: str) -> None:
    got = written(HIDDEN, filter=PathFilter(excludes=[b"/a"]))
    group = (b"b/five", b"b/three", b"b/two")
    assert set(got) == {b".", b"b", b"b/sym", b"b/to-a", b"d", b"d/e", *group}
    assert got[b"b/two"].links == group
    assert got[b"b/two"].size == 7
    assert got[b"b/sym"].target == b"target"
    # A link is written whatever is left of its target.
    assert got[b"b/to-a"].target == b"../a/one"


def test_a_name_that_was_written_first_and_removed_is_no_place_to_link_to(processes: str) -> None:
    layers = [
        [file(b"a", b"content"), link(b"x/hidden", b"a")],
        [file(b".wh.a"), link(b"b", b"x/hidden")],
        [link(b"c", b"b")],
    ]
    got = written(layers, filter=PathFilter(excludes=[b"/x"]))
    assert set(got) == {b".", b"b", b"c"}
    assert got[b"b"].links == (b"b", b"c")
    assert got[b"b"].size == 7


def test_directories_that_were_made_for_what_is_gone_are_removed(processes: str) -> None:
    layers = [[file(b"a/b/x.py", b"x"), file(b"c/y.py")], [file(b"a/b/.wh.x.py")]]
    assert set(written(layers, filter=PathFilter(includes=[b"*.py"]))) == {b".", b"c", b"c/y.py"}


@pytest.mark.parametrize("subtree", [b"usr/lib", b"/usr/lib/", b"lib", b"/etc/../lib/.", b"l2"])
def test_a_subtree_is_found_through_links(processes: str, subtree: bytes) -> None:
    layers = [
        [directory(b"usr/lib", mode=0o711, uid=4), file(b"usr/lib/x", b"1")],
        [symlink(b"lib", b"usr/lib"), symlink(b"l2", b"/lib"), file(b"lib/y", b"2")],
        [file(b"etc/z"), link(b"usr/lib/z", b"etc/z")],
    ]  # fmt: skip
    got = written(layers, filter=PathFilter(subtree=subtree))
    assert set(got) == {b".", b"x", b"y", b"z"}
    assert (got[b"."].mode, got[b"."].uid) == (0o711, 4)


def test_a_subtree_that_is_replaced_is_the_last_one(processes: str) -> None:
    layers = [
        [file(b"a/b/old", b"1"), directory(b"a/b/d")],
        [file(b".wh.a")],
        [file(b"a/b/new"), directory(b"a/b", mode=0o700)],
        [directory(b"a/b/d"), file(b"a/b/d/x")],
    ]
    got = written(layers, filter=PathFilter(subtree=b"a/b"))
    assert set(got) == {b".", b"new", b"d", b"d/x"}
    assert got[b"."].mode == 0o700


@pytest.mark.parametrize(
    ("subtree", "message"), [(b"nowhere", "there is no nowhere"), (b"f", "f is a file, not a dir")]
)
def test_a_subtree_that_is_not_there_leaves_nothing(subtree: bytes, message: str) -> None:
    with workshop() as where:
        with pytest.raises(ociroot.OcirootError, match=message):
            extract([[file(b"f")]], where, filter=PathFilter(subtree=subtree))
        assert not (where / "rootfs").exists()


# Maps.


def test_owners_acls_and_capabilities_are_mapped(processes: str) -> None:
    members = [
        directory(b"d", uid=7, gid=8, xattrs={b"system.posix_acl_default": ACL}),
        file(b"f", b"x", uid=5, gid=6, xattrs={b"system.posix_acl_access": ACL, b"user.x": b"y"}),
        file(b"ping", uid=0, gid=0, mode=0o4755, xattrs={b"security.capability": CAPABILITY}),
        symlink(b"s", b"f", uid=3, gid=4),
        Member(b"null", "char", rdev=(1, 3), uid=1, gid=2),
        link(b"hard", b"ping"),
    ]
    got = written([members], policy=OutputPolicy(owners=LXC))
    owners = {path: (record.uid, record.gid) for path, record in got.items()}
    assert owners == {
        b".": (100000, 200000), b"d": (100007, 200008), b"f": (100005, 200006),
        b"ping": (100000, 200000), b"hard": (100000, 200000), b"s": (100003, 200004),
        b"null": (100001, 200002),
    }  # fmt: skip
    assert got[b"ping"].mode == 0o4755
    assert got[b"ping"].xattrs == {
        b"security.capability": struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 100000)
    }
    mapped = ACL.replace(struct.pack("<HHI", 2, 5, 7), struct.pack("<HHI", 2, 5, 100007))
    mapped = mapped.replace(struct.pack("<HHI", 8, 1, 9), struct.pack("<HHI", 8, 1, 200009))
    assert got[b"f"].xattrs == {b"system.posix_acl_access": mapped, b"user.x": b"y"}
    assert got[b"d"].xattrs == {b"system.posix_acl_default": mapped}


@SETTINGS
@given(good_stacks, st.booleans())
def test_a_mapped_tree_is_the_tree_with_mapped_owners(stack: Stack, two: bool) -> None:
    try:
        whole = expected(stack)
    except ModelRefusal:
        assume(False)
    used = OwnerMap.parse("0:1000:1000,1000:0:1000,2000:2000:4294965295", "0:0:4294967295")
    with workshop() as where, pytest.MonkeyPatch.context() as patch:
        patch.setattr(extracting, "WORTH_A_PROCESS", 0 if two else 1 << 60)
        extract(stack, where, policy=OutputPolicy(owners=used))
        got = snapshot(where / "rootfs")

    def host(uid: int) -> int:
        return uid + (1000 if uid < 1000 else -1000) if uid < 2000 else uid

    want = {path: replace(record, uid=host(record.uid)) for path, record in whole.items()}
    assert differences(want, got) == []


OUTSIDE = [file(b"ok"), file(b"d/far", b"x", uid=70000, gid=0, mode=0o4755)]


def test_an_owner_that_the_map_does_not_cover_is_refused(processes: str) -> None:
    with workshop() as where:
        with pytest.raises(ociroot.Unsupported) as caught:
            extract([OUTSIDE], where, policy=OutputPolicy(owners=LXC))
        assert str(caught.value).endswith(
            "d/far: the owner is 70000, which the map 0:100000:65536 does not cover "
            "(--squash-unmapped UID:GID gives it to another owner)"
        )
        assert caught.value.exit_code == 5
        assert not (where / "rootfs").exists()


def test_a_directory_that_the_map_does_not_cover_is_refused(processes: str) -> None:
    with pytest.raises(ociroot.Unsupported, match="image, d: the group is 65536, which"):
        written([[directory(b"d", gid=65536)]], policy=OutputPolicy(owners=LXC))


def test_what_a_later_layer_gives_away_or_removes_is_not_refused(processes: str) -> None:
    layers = [
        [*OUTSIDE, directory(b"e", uid=99999), file(b"e/in", uid=70000), file(b"h", uid=80000)],
        [file(b"d/far", b"y", uid=1), file(b".wh.e"), link(b"d/h", b"h")],
        [file(b".wh.h")],
        [file(b"d/.wh.h")],
    ]
    got = written(layers, policy=OutputPolicy(owners=LXC))
    assert got[b"d/far"].uid == 100001
    assert set(got) == {b".", b"ok", b"d", b"d/far"}


def test_what_is_skipped_is_not_refused(processes: str) -> None:
    got = written([OUTSIDE], policy=OutputPolicy(owners=LXC), filter=PathFilter(excludes=[b"far"]))
    assert set(got) == {b".", b"ok", b"d"}


def test_a_million_owners_that_are_not_covered_take_no_memory() -> None:
    """Those that are kept until the end are bounded; beyond that it is refused at once."""
    members = [file(b"f%d" % number, uid=70000) for number in range(10_100)]
    with pytest.raises(ociroot.Unsupported, match="the owner is 70000"):
        written([[*members, file(b"broken", pax={b"size": b"x"})]], policy=OutputPolicy(owners=LXC))


def test_what_is_squashed_lends_no_rights(processes: str) -> None:
    squashing = OwnerMap(LXC.uids, LXC.gids, squash=(65534, 65533))
    members = [
        *OUTSIDE,
        file(b"cap", uid=70000, xattrs={b"security.capability": CAPABILITY, b"user.a": b"b"}),
        file(b"kept", uid=7, gid=0, mode=0o4755),
        directory(b"sgid", uid=70000, mode=0o2755),
    ]
    with workshop() as where:
        report = extract([members], where, policy=OutputPolicy(owners=squashing))
        got = snapshot(where / "rootfs")
    assert (got[b"d/far"].uid, got[b"d/far"].gid, got[b"d/far"].mode) == (65534, 200000, 0o755)
    assert got[b"cap"].xattrs == {b"user.a": b"b"}
    assert got[b"kept"].mode == 0o4755
    assert got[b"sgid"].mode == 0o2755
    assert codes(report) == [("set-id-owner", 2)]


def test_a_capability_is_not_given_to_another_root(processes: str) -> None:
    """That of a user namespace whose root the map does not cover: the host's root has another."""
    squashing = OwnerMap(LXC.uids, LXC.gids, squash=(0, 0))
    no_root = OwnerMap.parse("1:100001:65535", "0:200000:65536", "0:0")
    theirs = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 70000)
    members = [
        file(b"far", uid=1, mode=0o4755, xattrs={b"security.capability": theirs, b"user.a": b"b"}),
        file(b"near", uid=1, xattrs={b"security.capability": CAPABILITY}),
    ]
    with workshop() as where:
        report = extract([members], where, policy=OutputPolicy(owners=squashing))
        got = snapshot(where / "rootfs")
    assert codes(report) == [("set-id-owner", 1)]
    # The owner is covered, so that the file is still set-user-ID.
    assert (got[b"far"].uid, got[b"far"].mode) == (100001, 0o4755)
    assert got[b"far"].xattrs == {b"user.a": b"b"}
    assert set(got[b"near"].xattrs) == {b"security.capability"}
    with workshop() as where:
        report = extract([members], where, policy=OutputPolicy(owners=no_root))
        got = snapshot(where / "rootfs")
        assert codes(report) == [("set-id-owner", 2)]
        with ociroot.open(where / "image") as source:
            refused = OutputPolicy(owners=LXC)
            with pytest.raises(ociroot.Unsupported, match=r"root user of security\.capability"):
                source.image().extract(where / "other", ExtractOptions(policy=refused))
    assert got[b"near"].xattrs == {}


def test_without_owners_everything_is_one_users(processes: str) -> None:
    members = [
        file(b"theirs", uid=7, gid=7, mode=0o4755), file(b"ours", mode=0o4755, uid=0, gid=0),
        file(b"cap", uid=7, xattrs={b"security.capability": CAPABILITY}),
        symlink(b"s", b"x", uid=9), directory(b"d", uid=9),
    ]  # fmt: skip
    with workshop() as where:
        report = extract([members], where, policy=OutputPolicy(owner=(0, 0)))
        got = snapshot(where / "rootfs")
    assert {(record.uid, record.gid) for record in got.values()} == {(0, 0)}
    assert (got[b"theirs"].mode, got[b"ours"].mode) == (0o755, 0o4755)
    assert got[b"cap"].xattrs == {}
    assert codes(report) == [("set-id-owner", 2)]


PRIVILEGED = [
    file(b"suid", mode=0o4755, xattrs={b"user.a": b"b"}), file(b"sgid", mode=0o2711),
    file(b"able", xattrs={b"security.capability": CAPABILITY, b"user.a": b"b"}),
    file(b"plain"), directory(b"d", mode=0o2755),
]  # fmt: skip


def test_without_set_id_no_file_keeps_privileges(processes: str) -> None:
    policy = OutputPolicy(set_id=False)
    with workshop() as where:
        report = extract([PRIVILEGED], where, policy=policy)
        got = snapshot(where / "rootfs")
        with ociroot.open(where / "image") as source:
            exported = source.image().export(where / "root.tar", ExportOptions(policy=policy))
        with tarfile.open(where / "root.tar") as tar:
            archived = {member.name.removeprefix("./"): member for member in tar}
    modes = {b"suid": 0o755, b"sgid": 0o711, b"able": 0o644, b"plain": 0o644, b"d": 0o2755}
    assert {name: got[name].mode for name in modes} == modes
    assert {name: archived[name.decode()].mode for name in modes} == modes
    assert got[b"suid"].xattrs == got[b"able"].xattrs == {b"user.a": b"b"}
    assert not [key for key in archived["able"].pax_headers if "capability" in key]
    assert codes(report) == [("set-id", 3)]
    assert [(each.code, each.count) for each in exported.warnings] == [("set-id", 3)]


def test_attributes_that_record_owners_are_no_attributes_of_the_image() -> None:
    """So the patterns for the image's attributes do not match them."""
    layers = [[file(b"f", uid=7, mode=0o4755, xattrs={b"user.a": b"b"})]]
    got = written(layers, policy=OutputPolicy(xattrs=()), record="xattr")
    assert got[b"f"].xattrs == {b"user.containers.override_stat": b"7:0:4755:file"}


# Devices and extended attributes.

DEVICES = [Member(b"null", "char", rdev=(1, 3)), link(b"zero", b"null"), file(b"f")]


def test_devices_can_be_skipped(processes: str) -> None:
    with workshop() as where:
        report = extract([DEVICES], where, policy=OutputPolicy(devices="skip"))
        assert set(snapshot(where / "rootfs")) == {b".", b"f"}
        assert codes(report) == []


def test_devices_can_be_refused_if_they_are_there_in_the_end(processes: str) -> None:
    policy = OutputPolicy(devices="error")
    with pytest.raises(ociroot.Unsupported, match=r"null: it is a device \(--devices skip leaves"):
        written([DEVICES], policy=policy)
    assert set(written([DEVICES, [file(b".wh.null"), file(b".wh.zero")]], policy=policy)) == {
        *(b".", b"f"),
    }


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ((b"*",), {b"user.a", b"user.b", b"trusted.c"}),
        ((b"user.*",), {b"user.a", b"user.b"}),
        ((b"user.a", b"trusted.?"), {b"user.a", b"trusted.c"}),
        ((), set()),
    ],
)
def test_extended_attributes_are_chosen_by_patterns(
    processes: str, patterns: tuple[bytes, ...], kept: set[bytes]
) -> None:
    attributes = {b"user.a": b"1", b"user.b": b"2", b"trusted.c": b"3"}
    layers = [[file(b"f", xattrs=attributes), directory(b"d", xattrs=attributes)]]
    got = written(layers, policy=OutputPolicy(xattrs=patterns))
    assert set(got[b"f"].xattrs) == set(got[b"d"].xattrs) == kept


def test_a_file_whose_acl_is_dropped_is_open_to_nobody_else(processes: str) -> None:
    members = [file(b"f", mode=0o674, xattrs={b"system.posix_acl_access": ACL})]
    policy = OutputPolicy(xattrs=(b"user.*",))
    with workshop() as where:
        report = extract([members], where, policy=policy)
        got = snapshot(where / "rootfs")
        with ociroot.open(where / "image") as source:
            options = ociroot.ExportOptions(policy=policy)
            exported = source.image().export(where / "rootfs.tar", options)
        with tarfile.open(where / "rootfs.tar") as archived:
            assert archived.getmember("./f").mode == 0o644
    assert (got[b"f"].mode, got[b"f"].xattrs) == (0o644, {})
    assert report.warnings == exported.warnings == ()


def test_without_a_wish_nothing_stands_between_tree_and_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fast way stays as fast as it was."""
    monkeypatch.setattr("ociroot.api.shaping.FinalOperations", None)
    assert set(written([[file(b"f")]])) == {b".", b"f"}
    with pytest.raises(TypeError):
        written([[file(b"f")]], filter=PathFilter(excludes=[b"x"]))


def test_layers_with_compression_are_read_again_for_hidden_content() -> None:
    layers = [Layer(members, "gzip") for members in HIDDEN]
    got = written(layers, filter=PathFilter(excludes=[b"/a"]))
    assert got[b"b/two"].size == 7
