"""The record of owners: what it says, what is read of it, and what bsdtar makes of it."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociroot.errors import LimitExceeded
from ociroot.limits import Limits
from ociroot.outputs.mtree import MalformedRecord, read_record, record_lines
from ociroot.rootfs.nodes import Directory, Node
from ociroot.tar.entry import Kind

from .support.needs import need_tools


def node(kind: Kind, **attributes: Any) -> Node:
    made = Node(kind, -1)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def below(parent: Directory, name: bytes, **attributes: Any) -> Directory:
    made = Directory(parent, name, -1)
    for key, value in attributes.items():
        setattr(made, key, value)
    parent.entries[name] = made
    return made


def sample() -> Directory:
    root = Directory(None, b"", -1)
    root.mode, root.mtime_ns = 0o1755, 1_600_000_000_123_456_789
    etc = below(root, b"etc", uid=5, gid=4294967294, mode=0o2750)
    etc.entries[b"a file"] = node(
        "file", size=3, mode=0o4755, uid=70000, xattrs={b"user.x y": b"\0\xff", b"trusted.t": b""}
    )
    etc.entries[b"back\\slash#=\n\xff\xfe"] = node("symlink", target=b"\n to #\xff", mode=0o777)
    etc.entries[b"null"] = node("char", rdev=(1, 3), mode=0o666, mtime_ns=-2_000_000_000)
    etc.entries[b"big"] = node("block", rdev=(259, 70000), mode=0o660, gid=6)
    etc.entries[b"pipe"] = node("fifo", mode=0o600)
    below(below(root, b"a-b"), b"c")
    below(root, b"a")
    return root


def described(root: Directory) -> dict[bytes, Any]:
    def about(each: Node) -> tuple[Any, ...]:
        size = each.size if each.kind == "file" else 0
        return (
            *(each.kind, each.mode, each.uid, each.gid, each.mtime_ns, each.xattrs or {}),
            *(size, each.target, each.rdev),
        )

    found = {parent.path_of(name): about(each) for parent, name, each in root.walk()}
    return {b"": about(root), **found}


def test_what_is_recorded_is_read_again() -> None:
    lines = list(record_lines(sample()))
    assert described(read_record(lines, Limits())) == described(sample())


def test_paths_are_sorted_and_on_one_line_each() -> None:
    lines = list(record_lines(sample()))
    assert lines[:3] == [
        b"#mtree v2.0\n",
        b"# ociroot 1\n",
        b". type=dir uid=0 gid=0 mode=1755 time=1600000000.123456789\n",
    ]
    paths = [line.split(b" ")[0] for line in lines if line[:1] != b"#"]
    assert paths == [
        *(b".", b"./a", b"./a-b", b"./a-b/c", b"./etc", b"./etc/a\\040file"),
        *(b"./etc/back\\134slash\\043\\075\\012\\377\\376", b"./etc/big", b"./etc/null"),
        b"./etc/pipe",
    ]
    assert all(line.isascii() and line.count(b"\n") == 1 for line in lines)


names = st.binary(min_size=1, max_size=20).filter(
    lambda name: name not in (b".", b"..") and not {0, 0x2F} & set(name)
)


@given(st.dictionaries(names, st.binary(max_size=30).map(lambda t: t.replace(b"\0", b"") or b"t")))
def test_any_name_and_target_is_read_again(links: dict[bytes, bytes]) -> None:
    root = Directory(None, b"", -1)
    for name, target in links.items():
        root.entries[name] = node("symlink", target=target)
    assert described(read_record(record_lines(root), Limits())) == described(root)


GOOD = list(record_lines(sample()))
ROOT = b". type=dir uid=0 gid=0 mode=0755 time=0.000000000\n"
FILE = b"./f type=file uid=0 gid=0 mode=0755 time=0.000000000 size=1\n"
HEAD = b"#mtree v2.0\n# ociroot 1\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"#mtree v2.0\n",
        HEAD,
        b"#mtree\n# ociroot 1\n" + ROOT,
        HEAD + ROOT[:-1],
        HEAD + FILE,
        HEAD + ROOT + ROOT,
        HEAD + ROOT + FILE + FILE,
        HEAD + ROOT + b"\n",
        HEAD + ROOT + b"# comment\n",
        HEAD + ROOT + b"/set type=file\n",
        *(HEAD + ROOT + FILE.replace(b"./f", path) for path in (
            b"./..", b"./.", b"./", b"../f", b"/f", b"f", b"./a/f", b"./\\057f", b"./\\000",
            b"./f/",
            b"./\\056\\056", b"./a\xff", b"./\\9", b"./\\400", b"./" + 256 * b"a", b"x/f",
        )),
        HEAD + ROOT + FILE + FILE.replace(b"./f", b"./f/g"),
        *(HEAD + ROOT + FILE.replace(*each) for each in (
            (b"type=file", b"type=socket"), (b" type=file", b""), (b"uid=0", b"uid=-1"),
            (b"uid=0", b"uid=4294967295"), (b" gid=0", b""), (b"mode=0755", b"mode=10000"),
            (b"mode=0755", b"mode=-755"), (b"time=0.000000000", b"time=0.0"), (b" size=1", b""),
            (b"size=1", b"size=1 size=1"), (b"size=1", b"size=1 flags=x"), (b"size=1", b"link=x"),
        )),
        HEAD + ROOT + b"./n type=char uid=0 gid=0 mode=0755 time=0.000000000 device=linux,1,3\n",
        HEAD + ROOT.replace(b"time=0.", b"time=9999999999999999999."),
        *(HEAD + ROOT + FILE.replace(b"file", b"char").replace(b"size=1", b"device=native," + each)
          for each in (b"4096,0", b"0,1048576", b"-1,0", b"1")),
        HEAD + b"# xattr user.x=AA==\n",
        *(HEAD + b"# xattr " + each + b"\n" + ROOT for each in (
            b"user.x", b"user.x=A", b"=AA==", b"user=AA==", b"user.x=AA==\n# xattr user.x=AA==",
            b"user." + 251 * b"x" + b"=",
        )),
        HEAD + b"# xattr user.x=" + b"A" * (1 << 20) + b"\n" + ROOT,
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises((MalformedRecord, LimitExceeded), match=r"^(line \d+: |it ends too early)"):
        read_record(text.splitlines(keepends=True), Limits())


@pytest.mark.parametrize(
    ("name", "limit"),
    [("entries", 5), ("depth", 1), ("xattrs", 1), ("xattr_size", 1), ("memory", 2000)],
)
def test_a_record_has_limits(name: str, limit: int) -> None:
    with pytest.raises(LimitExceeded):
        read_record(GOOD, Limits(**{name: limit}))
    read_record(GOOD, Limits())


@pytest.mark.root
def test_bsdtar_makes_of_it_the_archive_that_root_would(tmp_path: Path) -> None:
    need_tools("bsdtar")
    place = tmp_path / "tree"
    root = sample()
    for name in ("etc", "a-b/c", "a"):
        (place / name).mkdir(parents=True)
    (place / "etc/a file").write_bytes(b"abc")
    link = os.fsencode(place) + b"/etc/back\\slash#=\n\xff\xfe"
    Path(os.fsdecode(link)).symlink_to(os.fsdecode(b"\n to #\xff"))
    record, made = tmp_path / "tree.mtree", tmp_path / "out.tar"
    record.write_bytes(b"".join(record_lines(root)))
    # Devices are not there, which is as an ordinary user leaves them.
    subprocess.run(
        ["bsdtar", "--format=pax", "--options", "hdrcharset=BINARY", "-cf", made, f"@{record}"],
        cwd=place, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    kinds = {
        tarfile.REGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink",
        tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo",
    }  # fmt: skip
    expected = described(root)
    with tarfile.open(made, errors="surrogateescape") as archive:
        found = archive.getmembers()
        assert len(found) == len(expected)
        for member in found:
            path = os.fsencode(member.name).removeprefix(b".").removeprefix(b"/")
            kind, mode, uid, gid, mtime_ns, _, size, target, rdev = expected[path]
            assert kinds[member.type] == kind
            assert (member.mode, member.uid, member.gid, member.size) == (mode, uid, gid, size)
            assert abs(member.mtime - mtime_ns / 10**9) < 0.001, path
            assert os.fsencode(member.linkname) == target
            if kind in ("char", "block"):
                assert (member.devmajor, member.devminor) == rdev
        content = archive.extractfile("./etc/a file")
        assert content is not None
        assert content.read() == b"abc"
