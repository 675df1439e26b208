"""From entries to headers: what the writer writes, our reader and others' read as it was."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ociroot.errors import LimitExceeded, MalformedImage
from ociroot.limits import DEFAULTS, Limits
from ociroot.tar import acl
from ociroot.tar.entry import Entry, Kind
from ociroot.tar.reader import entries
from ociroot.tar.stream import ChunkStream
from ociroot.tar.writer import HeaderWriter, end_of_archive

from .support.needs import need_tools
from .support.snapshot import snapshot

FIELDS = ("kind", "mode", "uid", "gid", "mtime_ns", "size", "target", "rdev", "xattrs", "segments")
MINIMAL = ((1, 7, acl.NO_ID), (4, 5, acl.NO_ID), (0x20, 5, acl.NO_ID))
NAMED = acl.encode(
    [*MINIMAL[:1], (2, 6, 1000), MINIMAL[1], (8, 4, 5), (16, 7, acl.NO_ID), MINIMAL[2]]
)


def made(name: bytes = b"f", kind: Kind = "file", **rest: Any) -> Entry:
    entry = Entry()
    entry.name, entry.kind = name, kind
    entry.mode, entry.uid, entry.gid, entry.mtime_ns = 0o644, 0, 0, 0
    entry.size = entry.stored_size = entry.offset = 0
    entry.target, entry.rdev, entry.xattrs, entry.segments = b"", (0, 0), None, None
    for field, value in rest.items():
        setattr(entry, field, value)
    return entry


def archive(*members: tuple[Entry, bytes], sparse: bool = False) -> bytes:
    """Entries and what is stored of them, as the writer writes them."""
    writer = HeaderWriter(sparse=sparse)
    out = b""
    for entry, data in members:
        out += writer.header(entry.name, entry) + data + bytes(-len(data) % 512)
    return out + end_of_archive(len(out))


def read_back(data: bytes) -> list[tuple[Entry, bytes]]:
    stream = ChunkStream(iter([data]))
    found = entries(stream, Limits(file_size=1 << 50))
    return [(e, b"".join(map(bytes, stream.iter_chunks(e.stored_size)))) for e in found]


names = st.binary(min_size=1, max_size=300).map(lambda b: b.replace(b"\0", b"/")) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150
).map(str.encode)
ids = st.integers(0, 2**21 + 1) | st.integers(0, 2**32 - 2)
times = st.integers(-(2**62), 2**62) | st.integers(0, 2**33 + 2).map(lambda s: s * 10**9)
xattr_names = st.sampled_from([b"user.a", b"user.\xff%3D", b"security.capability"]) | st.binary(
    min_size=1, max_size=60
).map(lambda b: b.replace(b"=", b"-").replace(b"\0", b"."))
xattrs = st.none() | st.dictionaries(xattr_names, st.binary(max_size=1200), min_size=1, max_size=4)


@st.composite
def an_entry(draw: st.DrawFn) -> Entry:
    kind: Kind = draw(st.sampled_from(["file", "link", "symlink", "char", "block", "dir", "fifo"]))
    name = draw(names)
    name = name.rstrip(b"/") or b"x"
    target = draw(names) if kind in ("link", "symlink") else b""
    return made(
        name + b"/" if kind == "dir" else name,
        kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(ids),
        gid=draw(ids),
        mtime_ns=draw(times),
        target=target,
        rdev=(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1)))
        if kind in ("char", "block")
        else (0, 0),
        xattrs=draw(xattrs) if kind != "link" else None,
    )


@st.composite
def a_file(draw: st.DrawFn) -> tuple[Entry, bytes]:
    entry = draw(an_entry().filter(lambda e: e.kind == "file"))
    data = draw(st.binary(max_size=1500))
    entry.size = entry.stored_size = len(data)
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(1, 700), max_size=30))
        gaps = draw(st.lists(st.integers(1, 5000), min_size=len(lengths), max_size=len(lengths)))
        at, entry.segments = 0, []
        for gap, length in zip(gaps, lengths, strict=True):
            entry.segments.append((at + gap, length))
            at += gap + length
        data = bytes(i % 251 for i in range(sum(lengths)))
        entry.size = at + draw(st.integers(0, 10_000_000))
        entry.stored_size = len(data)
    return entry, data


@given(st.lists(an_entry().map(lambda e: (e, b"")) | a_file(), max_size=5))
@example([(made(b"a/" * 50 + b"x"), b"")])
@example([(made(b"a" * 155 + b"/" + b"b" * 100), b"")])
@example([(made(b"a" * 156 + b"/" + b"b" * 100), b"")])
@example([(made(b"a" * 155 + b"/" + b"b" * 99 + b"/", "dir"), b"")])
@example([(made(b"/" + b"b" * 100), b"")])
@example([(made(b"s", "symlink", target=b"t" * 4095), b"")])
@example([(made(b"\xff" * 90, segments=[], size=7), b"")])
@example([(made(b"x", mtime_ns=-1), b""), (made(b"x", mtime_ns=-1_500_000_000), b"")])
@example([(made(b"x", xattrs={b"user." + b"n" * 80: b""}), b"")])
def test_what_was_written_is_read(members: list[tuple[Entry, bytes]]) -> None:
    data = archive(*members, sparse=True)
    assert len(data) % 10240 == 0
    back = read_back(data)
    assert len(back) == len(members)
    for (entry, content), (other, found) in zip(members, back, strict=True):
        assert other.name == entry.name
        assert found == content
        for field in FIELDS:
            wanted = getattr(entry, field)
            if field == "mode" and entry.kind == "link":
                continue
            assert getattr(other, field) == wanted, field


def test_only_what_needs_it_has_an_extended_header() -> None:
    plain = HeaderWriter()
    for entry in (
        made(b"x" * 100),
        made("grüße".encode()),
        made(b"a" * 155 + b"/" + b"b" * 100),
        made(uid=2**21 - 1, gid=2**21 - 1, size=2**33 - 1, mtime_ns=(2**33 - 1) * 10**9),
        made(kind="symlink", target=b"t" * 100),
        made(kind="block", rdev=(4095, 2**20 - 1)),
    ):
        assert len(plain.header(entry.name, entry)) == 512
    for entry in (
        made(b"x" * 101),
        made(b"caf\xe9"),
        made(uid=2**21),
        made(gid=2**32 - 2),
        made(size=2**33),
        made(mtime_ns=1),
        made(mtime_ns=-(10**9)),
        made(mtime_ns=2**33 * 10**9),
        made(kind="symlink", target=b"t" * 101),
        made(xattrs={b"user.a": b""}),
    ):
        assert len(plain.header(entry.name, entry)) == 1536, entry


def test_a_header_without_its_records_makes_nothing_roots() -> None:
    entry = made(uid=2**32 - 2, gid=2**21, mtime_ns=-5)
    header = HeaderWriter().header(b"f", entry)[1024:]
    assert header[108:124] == b"7777777\x007777777\0"
    assert header[136:148] == b"00000000000\0"


def test_a_link_has_the_attributes_of_its_inode_and_no_others() -> None:
    node = made(mode=0o4755, uid=7, gid=2**22, mtime_ns=1, size=99, xattrs={b"user.a": b"1"})
    ((link, _),) = read_back(HeaderWriter().header(b"b", node, b"a") + end_of_archive(0))
    assert (link.kind, link.target, link.size, link.xattrs) == ("link", b"a", 0, None)
    assert (link.mode, link.uid, link.gid, link.mtime_ns) == (0o4755, 7, 2**22, 1)


def test_a_sparse_file_is_expanded_unless_holes_are_kept() -> None:
    node = made(size=5000, segments=[(512, 100)])
    assert HeaderWriter().stored_size(node) == 5000
    ((entry, _),) = read_back(HeaderWriter().header(b"f", node) + bytes(5120) + bytes(1024))
    assert (entry.size, entry.segments) == (5000, None)
    assert HeaderWriter(sparse=True).stored_size(node) == 100


def test_hdrcharset_is_said_once_and_first() -> None:
    entry = made(b"\xff" * 101, "symlink", target=b"\xfe" * 101)
    header = HeaderWriter().header(entry.name, entry)
    assert header[512:].startswith(b"21 hdrcharset=BINARY\n")
    assert header.count(b"hdrcharset") == 1
    assert HeaderWriter().header(b"x" * 101, made()).count(b"hdrcharset") == 0


# -- ACLs -----------------------------------------------------------------------------------------


def test_an_acl_is_there_twice() -> None:
    node = made(xattrs={b"system.posix_acl_access": NAMED})
    text = b"user::rwx,user:1000:rw-,group::r-x,group:5:r--,mask::rwx,other::r-x"
    header = HeaderWriter().header(b"f", node)
    assert b"SCHILY.acl.access=" + text + b"\n" in header
    assert b"SCHILY.xattr.system.posix_acl_access=" + NAMED + b"\n" in header


acls = st.lists(
    st.tuples(st.sampled_from([2, 8]), st.integers(0, 7), st.integers(0, 2**32 - 2)),
    max_size=5,
    unique_by=lambda e: (e[0], e[2]),
).map(lambda named: sorted([*named, *MINIMAL, *([(16, 7, acl.NO_ID)] if named else [])]))


@given(acls)
def test_an_acl_survives_as_text(entries: list[acl.AclEntry]) -> None:
    value = acl.encode(entries)
    text = acl.to_text(value)
    assert text is not None
    assert acl.from_text(text, DEFAULTS) == value
    assert acl.from_text(text.replace(b",", b"\n") + b"\n", DEFAULTS) == value


@pytest.mark.parametrize(
    ("value", "why"),
    {
        b"": "nothing",
        b"\x02\0\0\0": "no entries",
        b"\x03\0\0\0" + bytes(8): "another version",
        NAMED[:-1]: "cut off",
        acl.encode([(1, 9, 0)]): "a bit too many",
        acl.encode([(64, 7, 0)]): "an unknown tag",
    }.items(),
)
def test_what_has_no_text_form_has_none(value: bytes, why: str) -> None:
    assert acl.to_text(value) is None, why


@pytest.mark.parametrize(
    "text",
    [
        b"user::rwx,user:lisa:rw-:1000,group::r-x,group:tty:r--:5,mask::rwx,other::r-x",
        b"user::rwx,group::r-x,other::r-x,user:lisa:rw-:1000,group:tty:r--:5,mask::rwx",
        b"user::rwx\nuser:1000:rw-\t\t#effective:rw-\ngroup::r-x\n\ngroup:5:r--\nmask::rwx\nother::r-x",
    ],
    ids=["star", "bsdtar", "acl_to_text"],
)
def test_the_forms_of_archivers_are_read(text: bytes) -> None:
    assert acl.from_text(text, DEFAULTS) == NAMED


@pytest.mark.parametrize(
    "text",
    [
        b"user::rwx,nobody",
        b"user::rwxx",
        b"user::xwr",
        b"user::7",
        b"owner::rwx",
        b"default:user::rwx",
        b"user::rwx:0",
        b"mask:1:rwx",
        b"other:x:rwx",
        b"user:1000:rwx:1001",
        b"user:4294967295:rwx",
        b"user:x:rwx:4294967295",
        b"user:x:rwx:99999999999",
        b"user:x:rwx:-1",
        b"user:1:rwx,user:01:r--",
        b"mask::rwx,mask::r--",
        b"user:a:b:rwx:1",
    ],
)
def test_what_is_no_acl_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedImage):
        acl.from_text(text, DEFAULTS)


def test_an_acl_of_names_is_nobodys_and_a_long_one_is_refused() -> None:
    assert acl.from_text(b"user::rwx\nuser:daemon:r--\nmask::r--\n", DEFAULTS) is None
    assert acl.from_text(b" \n,#user::rwx\n", DEFAULTS) == b""
    assert acl.from_text(b"user:%b:rwx" % (b"1" * 11), DEFAULTS) is None
    limits = Limits(xattr_size=20)
    assert acl.from_text(b"user::rwx,user:1:rwx", limits)
    with pytest.raises(LimitExceeded, match="--max-xattr-size"):
        acl.from_text(b"user::rwx,user:1:rwx,user:2:rwx", limits)


# -- other readers --------------------------------------------------------------------------------

LONG = b"/".join([b"component-" + b"x" * 240] * 8)
STRANGE = [
    (made(b"./", "dir", mode=0o755, mtime_ns=1_000_000_001_500_000_000), b""),
    (made(b"./caf\xe9", mtime_ns=-1_500_000_000), b"1"),
    (made(b"./grie\xc3\x9fbrei", uid=2**21, gid=2**31), b"2"),
    (made(b"./line\nfeed = 1", mtime_ns=4102444800 * 10**9 + 1), b"3"),
    (made(b"./link", "symlink", target=b"\xff" * 300, mode=0o777, uid=5), b""),
    (made(b"./null", "char", rdev=(1, 3), mode=0o666), b""),
    (made(b"./block", "block", rdev=(259, 70000), mode=0o660), b""),
    (made(b"./pipe", "fifo", mode=0o600, gid=2**32 - 2), b""),
    (made(b"./" + b"d/" * 60, "dir", mode=0o1755, mtime_ns=7), b""),
    (made(b"./" + b"d/" * 60 + b"f" * 255, mode=0o6755), b"4"),
    (made(b"./" + LONG, mode=0o600), b"5"),
    (made(b"./again", "link", target=b"./" + LONG, mode=0o600), b""),
    (made(b"./holes", size=1 << 20, segments=[(4096, 4096), (65536, 9)]), b"h" * 4105),
    (made(b"./hole", size=1 << 20, segments=[]), b""),
    (made(b"./ho\xffle", size=9000, segments=[(8192, 808)]), b"i" * 808),
    (made(b"./acl", mode=0o775, xattrs={b"system.posix_acl_access": NAMED, b"user.b": b"\0"}), b""),
    (made(b"./z", xattrs={b"security.capability": b"\1\0\0\2\0\4" + bytes(14)}), b""),
]  # fmt: skip
TOOLS = {
    # With the options of Proxmox VE, as it restores a container.
    "tar": (
        *("tar", "-p", "--sparse", "--numeric-owner", "--acls", "--xattrs"),
        *("--xattrs-include=user.*", "--xattrs-include=security.capability"),
    ),
    "bsdtar": ("bsdtar", "-p", "--numeric-owner", "--acls", "--xattrs"),
}


def strange_archive() -> bytes:
    for entry, data in STRANGE:
        if entry.kind == "file" and entry.segments is None:
            entry.size = entry.stored_size = len(data)
    return archive(*STRANGE, sparse=True)


@pytest.mark.root
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_other_readers_take_it_for_the_same(tmp_path: Path, tool: str, locale: str) -> None:
    need_tools(tool)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(
        [*TOOLS[tool], "-xf", "-", "-C", root],
        input=strange_archive(),
        env=os.environ | {"LC_ALL": locale},
        check=True,
        capture_output=True,
    )
    found = snapshot(root)
    for entry, data in STRANGE:
        path = entry.name.removeprefix(b"./").rstrip(b"/") or b"."
        record = found[path]
        if path == b"again":
            assert record.links == (b"again", LONG)
            continue
        assert record.kind == entry.kind
        assert record.mode == entry.mode
        assert (record.uid, record.gid) == (entry.uid, entry.gid), path
        # It writes in the root afterwards, and takes -1.5 for -1 and a half more.
        if tool != "bsdtar" or path not in (b".", b"caf\xe9"):
            assert record.mtime_ns == entry.mtime_ns, path
        assert record.target == (entry.target or None)
        assert (record.rdev or (0, 0)) == entry.rdev
        assert record.xattrs == (entry.xattrs or {}), path
        if entry.kind == "file":
            content = (root / os.fsdecode(path)).read_bytes()
            assert len(content) == entry.size
            runs = [(0, entry.size)] if entry.segments is None else entry.segments
            for offset, length in runs:
                assert content[offset : offset + length] == data[:length]
                data = data[length:]
            assert not data


def test_pythons_reader_takes_it_for_the_same() -> None:
    # Not the devices, which are as they were, nor what it has no word for.
    with tarfile.open(fileobj=io.BytesIO(strange_archive()), errors="surrogateescape") as tar:
        found = {os.fsencode(member.name): member for member in tar}
    for entry, _ in STRANGE:
        member = found[entry.name.rstrip(b"/")]
        assert member.uid == entry.uid
        assert member.gid == entry.gid
        assert member.mode == entry.mode
        assert member.size == entry.size
        assert os.fsencode(member.linkname) == entry.target
        assert float(member.mtime) == pytest.approx(entry.mtime_ns / 10**9)
        if entry.kind == "file":
            assert member.issparse() == (entry.segments is not None)
