"""The tar reader: output of archivers is read correctly, malformed archives are refused."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ociroot
from ociroot.errors import LimitExceeded, MalformedImage, Unsupported
from ociroot.limits import DEFAULTS
from ociroot.tar.entry import Entry
from ociroot.tar.numbers import number, seconds
from ociroot.tar.reader import entries
from ociroot.tar.stream import ChunkStream, FileStream

from .support import build
from .support.build import Member, base256, header, padded, pax_global, pax_records
from .support.needs import need_tools

END = bytes(1024)


def read(archive: bytes, chunk: int = 1 << 16) -> list[tuple[Entry, bytes]]:
    """Read an archive in chunks of this size; return the entries with their content."""
    chunks = (archive[at : at + chunk] for at in range(0, len(archive), chunk))
    stream = ChunkStream(chunks)
    result = []
    for entry in entries(stream, DEFAULTS):
        if entry.segments is None:
            content = b"".join(map(bytes, stream.iter_chunks(entry.stored_size)))
        else:
            whole = bytearray(entry.size)
            for offset, length in entry.segments:
                whole[offset : offset + length] = b"".join(map(bytes, stream.iter_chunks(length)))
            content = bytes(whole)
        result.append((entry, content))
    return result


def names(archive: bytes) -> list[bytes]:
    return [entry.name for entry, _ in read(archive)]


# Output of archivers.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    deep = root / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (root / "plain").write_bytes(b"plain content")
    (root / "empty").touch()
    (root / "ünïcode").write_bytes(b"x" * 513)
    (deep / ("f" * 120)).write_bytes(b"deep")
    (root / "link").symlink_to("plain")
    (root / "long-link").symlink_to("t" * 150)
    os.link(root / "plain", root / "z-hard")
    os.mkfifo(root / "fifo")
    (root / "plain").chmod(0o4755)
    os.utime(root / "plain", ns=(0, 1_234_567_890_123_456_789))
    return root


KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
}


def compare_with_tarfile(path: Path) -> None:
    """Python's tarfile must see the same entries."""
    ours = read(path.read_bytes(), chunk=1000)
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as theirs:
        members = theirs.getmembers()
        assert len(ours) == len(members)
        for (entry, content), member in zip(ours, members, strict=True):
            assert entry.name.rstrip(b"/") == os.fsencode(member.name).rstrip(b"/")
            assert entry.kind == KINDS[member.type], member.name
            assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
            assert entry.mtime_ns // 10**9 == int(member.mtime)
            if entry.kind in ("symlink", "link"):
                assert entry.target == os.fsencode(member.linkname)
            if entry.kind == "file":
                file = theirs.extractfile(member)
                assert file is not None
                assert content == file.read()


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_gnu_tar(tree: Path, tmp_path: Path, format: str) -> None:
    need_tools("tar")
    # V7 and ustar cannot store all of it; tar then skips those entries and exits with 2.
    run = ["tar", f"--format={format}", "-cf", str(tmp_path / "a.tar"), "-C", str(tree), "."]
    subprocess.run(run, check=format not in ("v7", "ustar"), stderr=subprocess.DEVNULL)
    compare_with_tarfile(tmp_path / "a.tar")


@pytest.mark.parametrize("format", ["ustar", "pax", "gnutar", "v7"])
def test_bsdtar(tree: Path, tmp_path: Path, format: str) -> None:
    need_tools("bsdtar")
    run = ["bsdtar", f"--format={format}", "-cf", str(tmp_path / "a.tar"), "-C", str(tree), "."]
    subprocess.run(run, check=format not in ("v7", "ustar"), stderr=subprocess.DEVNULL)
    compare_with_tarfile(tmp_path / "a.tar")


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_python_tarfile(tree: Path, tmp_path: Path, format: int) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
        archive.add(tree, ".")
    compare_with_tarfile(tmp_path / "a.tar")


def test_pax_times_have_nanoseconds(tree: Path, tmp_path: Path) -> None:
    need_tools("tar")
    run = ["tar", "--format=posix", "-cf", str(tmp_path / "a.tar"), "-C", str(tree), "plain"]
    subprocess.run(run, check=True)
    [(entry, _)] = read((tmp_path / "a.tar").read_bytes())
    assert entry.mtime_ns == 1_234_567_890_123_456_789
    assert entry.mode == 0o4755


SPARSE = [
    ["--format=oldgnu"],
    ["--format=gnu"],
    ["--format=posix", "--sparse-version=0.0"],
    ["--format=posix", "--sparse-version=0.1"],
    ["--format=posix", "--sparse-version=1.0"],
]


@pytest.mark.parametrize("options", SPARSE, ids=" ".join)
@pytest.mark.parametrize("runs", [0, 1, 3, 4, 5, 30, 200])
def test_sparse(tmp_path: Path, options: list[str], runs: int) -> None:
    """All four formats, with maps that fit the header and maps that need extension blocks."""
    need_tools("tar")
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for number in range(runs):
            file.seek(number * 65536 + 8192)
            file.write(b"%04d" % number * 1024)
        file.truncate(runs * 65536 + 70000)
    (tmp_path / "after").write_bytes(b"what follows")
    archive = tmp_path / "a.tar"
    run = ["tar", "--sparse", *options, "-cf", str(archive), "-C", str(tmp_path)]
    subprocess.run([*run, "sparse", "after"], check=True)
    sparse, after = read(archive.read_bytes(), chunk=999)
    assert sparse[0].name == b"sparse"
    assert sparse[0].segments is not None, "tar did not see the holes"
    assert sparse[1] == path.read_bytes()
    assert (after[0].name, after[1]) == (b"after", b"what follows")


# Numbers.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b" 000644\0", 0o644),
        (b"644\0\0\0\0\0", 0o644),
        (b"644 junk", 0o644),
        (b"77777777", 0o77777777),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"        ", 0),
        (base256(5_000_000_000, 8), 5_000_000_000),
        (base256(-1, 12), -1),
        (base256(2**62, 12), 2**62),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert number(field, "number") == value


@pytest.mark.parametrize(
    "field", [b"0o17\0\0\0\0", b"1_7\0\0\0\0\0", b"-17\0\0\0\0\0", b"+17\0\0\0\0\0", b"0000089\0"]
)
def test_what_int_would_take_is_no_octal_number(field: bytes) -> None:
    with pytest.raises(MalformedImage, match="invalid"):
        number(field, "size")


def test_a_number_beyond_64_bits_is_refused() -> None:
    with pytest.raises(MalformedImage, match="invalid"):
        number(base256(2**63, 12), "size")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"1.1234567899", 1_123_456_789),
        (b"0.", 0),
    ],
)
def test_seconds(text: bytes, value: int) -> None:
    assert seconds(text, "mtime") == value


@pytest.mark.parametrize("text", [b"", b".5", b"1e9", b"nan", b"9" * 20, b"9" * 5000, b"1.x"])
def test_impossible_seconds(text: bytes) -> None:
    with pytest.raises(MalformedImage, match="invalid"):
        seconds(text, "mtime")


# Headers, one rule per test.


def test_the_ustar_prefix_comes_before_the_name() -> None:
    assert names(header(b"name", prefix=b"some/where") + END) == [b"some/where/name"]


GNU = b"ustar  \0"
TIME = b"14000000000\0"


@pytest.mark.parametrize(
    "times",
    [
        TIME + TIME,  # as GNU tar writes them with --listed-incremental
        TIME,
        b" 1400000000 " * 2,
        base256(1 << 40, 12) + base256(-1, 12),
        b"\0anything",
        bytes(12) + TIME,
    ],
)
def test_old_gnu_has_times_where_others_have_a_prefix(times: bytes) -> None:
    assert names(header(b"name", magic=GNU, prefix=times) + END) == [b"name"]


@pytest.mark.parametrize("prefix", [b"some/where", b"12345", b"x", TIME + b"x", TIME[:11] + b"/x"])
def test_a_prefix_under_gnus_magic_is_refused(prefix: bytes) -> None:
    """Go's reader uses it if the times are not numbers, Python's always does."""
    with pytest.raises(MalformedImage, match="prefix"):
        read(header(b"name", magic=GNU, prefix=prefix) + END)


@pytest.mark.parametrize("magic", [b"ustar 00", b"ustarXXX", b"ustar  X"])
def test_a_prefix_under_a_magic_that_is_none_is_refused(magic: bytes) -> None:
    """bsdtar treats it as a prefix, Go's reader and GNU tar do not."""
    with pytest.raises(MalformedImage, match="prefix"):
        read(header(b"name", magic=magic, prefix=TIME + TIME) + END)
    assert names(header(b"name", magic=magic) + END) == [b"name"]


def test_v7_has_no_prefix() -> None:
    assert names(header(b"name", magic=bytes(8), prefix=b"junk") + END) == [b"name"]


def test_incremental_archives_of_gnu_tar(tree: Path, tmp_path: Path) -> None:
    need_tools("tar")
    archive, snapshot = tmp_path / "a.tar", f"--listed-incremental={tmp_path / 'snapshot'}"
    run = ["tar", "--format=gnu", snapshot, "-cf", str(archive), "-C", str(tree), "."]
    subprocess.run(run, check=True)
    content = archive.read_bytes()
    assert content[345:357].rstrip(b"\0").isdigit(), "tar has not written an access time"
    found = {name.removeprefix(b"./").rstrip(b"/") for name in names(content)}
    assert {b"plain", b"link", b"d" * 90} <= found


@pytest.mark.parametrize("magic", [bytes(8), b"ustar\x0000", GNU])
@pytest.mark.parametrize("size", [0, 512, 1000])
def test_v7_directories_end_in_a_slash(magic: bytes, size: int) -> None:
    """No data follows, whatever their size field says."""
    archive = header(b"dir/", b"\0", magic=magic, size=size) + header(b"file") + END
    assert [(e.name, e.kind, e.stored_size) for e, _ in read(archive)] == [
        (b"dir/", "dir", 0),
        (b"file", "file", 0),
    ]


def test_the_name_that_counts_says_whether_it_is_a_v7_directory() -> None:
    archive = extended({b"path": b"long/"}) + header(b"short", b"\0", size=512)
    assert [entry.kind for entry, _ in read(archive + header(b"file") + END)] == ["dir", "file"]
    archive = extended({b"path": b"long"}) + header(b"short/", b"\0", size=3) + padded(b"abc")
    [(entry, content)] = read(archive + END)
    assert (entry.name, entry.kind, content) == (b"long", "file", b"abc")


@pytest.mark.parametrize("typeflag", [b"0", b"7", b"S"])
def test_a_file_that_ends_in_a_slash_is_refused(typeflag: bytes) -> None:
    """GNU tar and bsdtar read a directory without data, Go's reader a file."""
    with pytest.raises(MalformedImage, match="ends in a slash"):
        read(header(b"dir/", typeflag, size=512, magic=GNU) + header(b"file") + END)


@pytest.mark.parametrize("typeflag", [b"0", b"7"])
def test_an_empty_file_that_ends_in_a_slash_is_only_a_whiteout(
    typeflag: bytes, tmp_path: Path
) -> None:
    """The type of a whiteout does not matter, so all readers agree."""
    for name, refused in ((b"a/", True), (b"b/.wh.a/", False), (b".wh.b/c/", False)):
        layer = [Member(b"a"), Member(name, typeflag=typeflag)]
        with ociroot.open(build.archive(tmp_path / "a.tar", [layer])) as source:
            if refused:
                with pytest.raises(MalformedImage, match="ends in a slash"):
                    source.image().tree()
            else:
                assert b"a" in source.image().tree().root.entries


@pytest.mark.parametrize("length", [1, 130, 131])
def test_star_prefix_ends_before_the_times(length: int) -> None:
    prefix = (b"p" * length).ljust(131, b"\0") + b"00000000000\0" + b"0" * 11
    block = bytearray(header(b"name", prefix=prefix))
    block[508:512] = b"tar\0"
    total = sum(block[:148]) + 256 + sum(block[156:])
    block[148:156] = b"%06o\0 " % total
    if length == 131:  # Go's reader stops there, GNU tar and bsdtar continue into the times
        with pytest.raises(MalformedImage, match="prefix"):
            read(bytes(block) + END)
    else:
        assert names(bytes(block) + END) == [b"p" * length + b"/name"]


@pytest.mark.parametrize("typeflag", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_what_is_no_file_has_no_data(typeflag: bytes) -> None:
    """Some archivers store the size of a hard link or a directory; no data follows."""
    first = header(b"first", typeflag, size=700, target=b"x")
    assert names(first + header(b"second") + END) == [b"first", b"second"]


def test_checksums_of_signed_bytes_are_accepted() -> None:
    block = header("ä".encode() * 20)
    signed = sum(block[:148]) + 256 + sum(block[156:]) - 256 * 40
    block = block[:148] + b"%06o\0 " % signed + block[156:]
    assert names(block + END) == ["ä".encode() * 20]


def test_checksums_above_65521_are_accepted() -> None:
    assert names(header(b"\xff" * 100, target=b"\xff" * 100, prefix=b"\xff" * 155) + END)


def test_a_volume_label_is_no_file() -> None:
    assert names(header(b"label", b"V") + header(b"file") + END) == [b"file"]


def test_contiguous_files_are_files() -> None:
    [(entry, content)] = read(header(b"c", b"7", size=3) + padded(b"abc") + END)
    assert (entry.kind, content) == ("file", b"abc")


# Extensions.


def extended(records: dict[bytes, bytes], typeflag: bytes = b"x") -> bytes:
    data = pax_records(records)
    return header(b"pax", typeflag, size=len(data)) + padded(data)


def test_pax_records_go_over_the_header() -> None:
    records = {
        b"path": b"n" * 300,
        b"linkpath": b"l" * 300,
        b"uid": b"3000000000",
        b"gid": b"4000000000",
        b"mtime": b"-1.25",
        b"size": b"4",
        b"SCHILY.xattr.user.bin": b"a=b\n\0\xff",
        b"comment": b"whatever",
    }
    [(entry, content)] = read(extended(records) + header(b"short", size=0) + padded(b"data") + END)
    assert (entry.name, entry.target) == (b"n" * 300, b"l" * 300)
    assert (entry.uid, entry.gid) == (3_000_000_000, 4_000_000_000)
    assert entry.mtime_ns == -1_250_000_000
    assert (entry.size, content) == (4, b"data")
    assert entry.xattrs == {b"user.bin": b"a=b\n\0\xff"}


def test_pax_records_are_for_one_entry_only() -> None:
    archive = extended({b"path": b"long", b"SCHILY.xattr.user.a": b"1"}) + header(b"a")
    [_, (second, _)] = read(archive + header(b"b") + END)
    assert (second.name, second.xattrs) == (b"b", None)


@pytest.mark.parametrize("keyword", [b"path", b"linkpath", b"uid", b"gid", b"mtime", b"size"])
def test_an_empty_record_is_refused(keyword: bytes) -> None:
    """POSIX has it delete the header's field, and readers disagree on the result."""
    with pytest.raises(MalformedImage, match=keyword.decode()):
        read(extended({keyword: b""}) + header(b"c") + END)
    assert names(extended({b"comment": b""}) + header(b"c") + END) == [b"c"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_pax_header_replaces_the_one_before_it(count: int) -> None:
    """As in Go's reader, GNU tar and bsdtar."""
    first = extended({b"path": b"first", b"mtime": b"7", b"SCHILY.xattr.user.a": b"1"})
    archive = first * count + extended({b"SCHILY.xattr.user.b": b"2"}) + header(b"name")
    [(entry, _)] = read(archive + END)
    assert (entry.name, entry.mtime_ns, entry.offset) == (b"name", 0, 0)
    assert entry.xattrs == {b"user.b": b"2"}
    [(entry, _)] = read(first * count + extended({}) + header(b"name") + END)
    assert (entry.name, entry.mtime_ns, entry.xattrs) == (b"name", 0, None)


def test_a_pax_header_replaces_the_sparse_map_of_the_one_before_it() -> None:
    archive = extended(SPARSE_0_1) + extended({b"mtime": b"7"}) + header(b"s", size=8)
    [(entry, content)] = read(archive + padded(b"12345678") + END)
    assert (entry.segments, content) == (None, b"12345678")


def test_global_comments_are_passed_over() -> None:
    """As `git archive` writes them."""
    comment = pax_global({b"comment": b"a commit"})
    archive = comment + comment + header(b"a") + comment + extended({b"mtime": b"8"}) + header(b"b")
    found = read(archive + comment + END)
    assert [(e.name, e.mtime_ns, e.xattrs) for e, _ in found] == [
        (b"a", 0, None),
        (b"b", 8 * 10**9, None),
    ]


@pytest.mark.parametrize(
    "keyword", [b"path", b"mtime", b"size", b"SCHILY.xattr.user.a", b"GNU.sparse.name", b"charset"]
)
@pytest.mark.parametrize("value", [b"1", b""])
def test_other_global_records_are_refused(keyword: bytes, value: bytes) -> None:
    """Go's reader ignores them, GNU tar applies them, bsdtar some."""
    archive = pax_global({b"comment": b"x", keyword: value}) + header(b"a") + END
    with pytest.raises(MalformedImage, match=f"global extended header with {keyword.decode()}"):
        read(archive)


def long_name(text: bytes, typeflag: bytes = b"L") -> bytes:
    head = header(b"././@LongLink", typeflag, size=len(text) + 1, magic=GNU)
    return head + padded(text + b"\0")


COMMENT = pax_global({b"comment": b"x"})
LABEL = header(b"label", b"V")


@pytest.mark.parametrize("between", [COMMENT, LABEL], ids=["comment", "label"])
def test_nothing_stands_between_an_extension_and_its_entry(between: bytes) -> None:
    """Go's reader drops the extension or applies it to the label; others do neither."""
    for extension in (extended({b"path": b"p"}), long_name(b"l"), long_name(b"t", b"K")):
        with pytest.raises(MalformedImage, match="between an extended header and its entry"):
            read(extension + between + header(b"a") + END)
        assert len(names(between + extension + header(b"a") + END)) == 1


@pytest.mark.parametrize("records", [{b"path": b"p"}, {b"mtime": b"1"}, {}], ids=str)
@pytest.mark.parametrize("typeflag", [b"L", b"K"])
def test_pax_headers_and_long_names_do_not_go_together(
    records: dict[bytes, bytes], typeflag: bytes
) -> None:
    """Go's reader and GNU tar disagree on which name applies."""
    pax, long = extended(records), long_name(b"l", typeflag)
    for extensions in (pax + long, long + pax, pax + long + pax):
        with pytest.raises(MalformedImage, match="pax header and a GNU long name"):
            read(extensions + header(b"a") + END)


def test_of_several_long_names_the_last_one_counts() -> None:
    """As in Go's reader, GNU tar and bsdtar, in either order."""
    one = long_name(b"n1") + long_name(b"t1", b"K")
    for archive in (one + long_name(b"n2"), long_name(b"t1", b"K") + one + long_name(b"n2")):
        [(entry, _)] = read(archive + header(b"a", b"2", target=b"t") + END)
        assert (entry.name, entry.target, entry.offset) == (b"n2", b"t1", 0)


@pytest.mark.parametrize("typeflag", [b"L", b"K"])
def test_an_empty_long_name_is_refused(typeflag: bytes) -> None:
    empty = header(b"././@LongLink", typeflag, magic=GNU)
    for extension in (long_name(b"", typeflag), empty, long_name(b"\0x", typeflag)):
        with pytest.raises(MalformedImage, match="empty"):
            read(extension + header(b"a") + END)


def test_gnu_long_names() -> None:
    member = Member(b"n" * 300, "symlink", target=b"t" * 300)
    [(entry, _)] = read(build.tar([member], "gnu"))
    assert (entry.name, entry.target) == (b"n" * 300, b"t" * 300)


@pytest.mark.parametrize(
    "body",
    [
        b"x path=a\n",
        b"path=a\n",
        b"9 path=ab",
        b"99 path=a\n",
        b"5 =a\n",
        b"6 path",
        b"0 path=a\n",
        b"-9 path=a\n",
        b"9999999999999999999999 path=a\n",
    ],
)
def test_broken_pax_records_are_refused(body: bytes) -> None:
    archive = header(b"pax", b"x", size=len(body)) + padded(body) + header(b"a") + END
    with pytest.raises(MalformedImage, match="pax record"):
        read(archive)


@pytest.mark.parametrize("keyword", [b"path", b"linkpath"])
def test_a_nul_in_a_name_is_refused(keyword: bytes) -> None:
    with pytest.raises(MalformedImage, match="NUL"):
        read(extended({keyword: b"a\0b"}) + header(b"a") + END)


@pytest.mark.parametrize(
    "records",
    [
        {b"size": b"-1"},
        {b"size": b"1e3"},
        {b"uid": b"-1"},
        {b"uid": b"4294967295"},
        {b"gid": b"x"},
        {b"mtime": b"soon"},
        {b"SCHILY.xattr.": b"x"},
    ],
    ids=str,
)
def test_impossible_records_are_refused(records: dict[bytes, bytes]) -> None:
    with pytest.raises(MalformedImage):
        read(extended(records) + header(b"a") + END)


def test_a_header_that_extends_without_end_is_a_limit() -> None:
    with pytest.raises(LimitExceeded):
        read(header(b"pax", b"x", size=1 << 21))


# Leading zeros do not count as digits.


@pytest.mark.parametrize("zeros", [0, 1, 8, 20, 5000, 300_000])
def test_leading_zeros_of_pax_numbers(zeros: int) -> None:
    long = b"0" * zeros
    records = {b"size": long + b"4", b"uid": long + b"7", b"mtime": b"-" + long + b"1.25"}
    head = header(b"a", size=0) + padded(b"data")
    [(entry, content)] = read(extended(records) + head + END)
    assert (entry.size, content, entry.uid, entry.mtime_ns) == (4, b"data", 7, -1_250_000_000)


def test_leading_zeros_of_a_records_length() -> None:
    for body in (b"0012 path=b\n", b"0" * 90 + b"101 path=b\n"):
        assert len(body) == int(body.split()[0])
        [(entry, _)] = read(header(b"x", b"x", size=len(body)) + padded(body) + header(b"a") + END)
        assert entry.name == b"b"


def test_zeros_do_not_hide_a_number_that_is_too_large() -> None:
    for value in (b"0" * 30 + b"9" * 19, b"9" * 5000):
        with pytest.raises(MalformedImage, match="invalid size"):
            read(extended({b"size": value}) + header(b"a") + END)


# Unusual input that all tested readers agree on.

READ_BY_ALL = {
    "V7 directory with a size": header(b"dir/", b"\0", size=512) + header(b"file"),
    "two pax headers": extended({b"path": b"p"}) + extended({b"mtime": b"1"}) + header(b"name"),
    "two long names": long_name(b"n1") + long_name(b"n2") + header(b"name"),
    "long target, long name": long_name(b"t", b"K")
    + long_name(b"n")
    + header(b"l", b"2", target=b"x"),
    "long name, long target": long_name(b"n")
    + long_name(b"t", b"K")
    + header(b"l", b"2", target=b"x"),
    "zeros before a size": extended({b"size": b"0" * 30 + b"3"}) + header(b"name") + padded(b"abc"),
    "zeros before a length": header(b"x", b"x", size=12) + padded(b"0012 path=b\n") + header(b"a"),
    "times of GNU": header(b"name", magic=GNU, prefix=TIME + TIME),
    "a global comment": COMMENT + header(b"name"),
}


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
@pytest.mark.parametrize("what", READ_BY_ALL)
def test_other_programs_read_the_same(what: str, program: str, tmp_path: Path) -> None:
    need_tools(program)
    archive = READ_BY_ALL[what] + header(b"last") + END
    (tmp_path / "a.tar").write_bytes(archive)
    # Not listed: GNU tar skips data that a V7 directory does not have.
    (tmp_path / "out").mkdir()
    run = [program, "-xf", str(tmp_path / "a.tar"), "-C", str(tmp_path / "out")]
    # libarchive warns of a second pax header as malformed; from 3.8 on it refuses the archive.
    done = subprocess.run(run, check=False, stderr=subprocess.DEVNULL)
    found = {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()}
    if (program, what) == ("bsdtar", "two pax headers") and done.returncode and not found:
        return
    assert found == {name.rstrip(b"/") for name in names(archive)}


# Wrong sparse maps.


@pytest.mark.parametrize(
    "map",
    [b"0,4,2,4", b"4,4,0,4", b"0,8,100,1", b"0,4", b"0,4,5", b"0,-1,5,9", b"0,9999999999999999999"],
)
def test_an_impossible_sparse_map_is_refused(map: bytes) -> None:
    records = {b"GNU.sparse.size": b"100", b"GNU.sparse.map": map}
    with pytest.raises(MalformedImage):
        read(extended(records) + header(b"s", size=8) + padded(b"12345678") + END)


SPARSE_0_1 = {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,8"}
SPARSE_1_0 = {
    b"GNU.sparse.major": b"1",
    b"GNU.sparse.minor": b"0",
    b"GNU.sparse.realsize": b"100",
}


@pytest.mark.parametrize(
    "records",
    [
        {b"GNU.sparse.name": b"n"},
        {b"GNU.sparse.size": b"100"},
        {b"GNU.sparse.realsize": b"100"},
        {b"GNU.sparse.map": b"0,8"},
        {b"GNU.sparse.numblocks": b"1"},
        {b"GNU.sparse.offset": b"0", b"GNU.sparse.numbytes": b"8"},
        {b"GNU.sparse.size": b"100", b"GNU.sparse.offset": b"0"},
        {b"GNU.sparse.major": b"1"},
        {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"},
        {b"GNU.sparse.size": b"100", b"GNU.sparse.name": b"n"},
        {**SPARSE_0_1, b"GNU.sparse.realsize": b"100"},
        {**SPARSE_0_1, b"GNU.sparse.offset": b"0", b"GNU.sparse.numbytes": b"8"},
        {**SPARSE_0_1, **SPARSE_1_0},
        {**SPARSE_1_0, b"GNU.sparse.size": b"50"},
        {**SPARSE_1_0, b"GNU.sparse.numblocks": b"1"},
        {**SPARSE_0_1, b"GNU.sparse.map": b""},
        {**SPARSE_0_1, b"GNU.sparse.name": b""},
        {**SPARSE_0_1, b"GNU.sparse.numblocks": b"2"},
        {**SPARSE_0_1, b"GNU.sparse.numblocks": b"x"},
    ],
    ids=str,
)
def test_sparse_keywords_without_a_complete_map_are_refused(records: dict[bytes, bytes]) -> None:
    """Go's reader sees a plain file, GNU tar and bsdtar another name or size."""
    with pytest.raises(MalformedImage, match=r"sparse|runs"):
        read(extended(records) + header(b"s", size=8) + padded(b"12345678") + END)


@pytest.mark.parametrize("typeflag", [b"1", b"2", b"3", b"4", b"5", b"6", b"D", b"S"])
def test_only_files_are_sparse(typeflag: bytes) -> None:
    block = header(b"s", typeflag, target=b"t", magic=GNU)
    with pytest.raises(MalformedImage, match="sparse"):
        read(extended(SPARSE_0_1) + block + END)
    with pytest.raises(MalformedImage, match="sparse"):
        read(extended(SPARSE_0_1) + header(b"s/", b"\0") + END)


@pytest.mark.parametrize("magic", [b"ustar\x0000", bytes(8)])
def test_old_sparse_files_are_gnus(magic: bytes) -> None:
    """Go's reader refuses another magic, others read a map that does not exist."""
    with pytest.raises(MalformedImage, match="magic"):
        read(header(b"s", b"S", magic=magic) + END)


@pytest.mark.parametrize("typeflag", [b"0", b"\0", b"7"])
def test_a_sparse_map_in_the_records(typeflag: bytes) -> None:
    body = header(b"s", typeflag, size=8) + padded(b"12345678")
    more = {b"GNU.sparse.numblocks": b"1", b"GNU.sparse.name": b"other"}
    for records in (SPARSE_0_1, {**more, **SPARSE_0_1}):
        [(entry, content)] = read(extended(records) + body + END)
        assert (entry.size, content) == (100, b"12345678" + bytes(92))
        assert entry.name == records.get(b"GNU.sparse.name", b"s")


def test_a_sparse_map_that_never_ends_is_refused() -> None:
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"100",
    }
    for body in (b"3\n0\n1\n".ljust(512, b"\0"), b"1" * 2048, b"300000000\n".ljust(512, b"0")):
        with pytest.raises((MalformedImage, LimitExceeded)):
            read(extended(records) + header(b"s", size=len(body)) + body + END)


# Malformed archives.


def test_a_bad_checksum_is_refused_with_its_offset() -> None:
    good = header(b"a", size=3) + padded(b"abc")
    with pytest.raises(MalformedImage, match="checksum") as caught:
        read(good + header(b"b", checksum=b"000001\0 ") + END)
    assert caught.value.offset == 1024


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 1000, 1023, 1025, 1535])
def test_a_truncated_archive_is_refused(cut: int) -> None:
    archive = header(b"a", size=512) + b"x" * 512 + header(b"b")
    with pytest.raises(MalformedImage, match="truncated"):
        read(archive[:cut])


def test_an_archive_may_end_without_padding() -> None:
    """Archives of `umoci insert` do."""
    [(entry, content)] = read(header(b"a", size=8) + b"inserted")
    assert (entry.name, content) == (b"a", b"inserted")


def test_an_archive_may_end_without_a_marker() -> None:
    assert names(header(b"a")) == [b"a"]
    assert names(header(b"a") + bytes(512)) == [b"a"]
    assert names(b"") == []


def test_zeros_that_are_not_the_end_are_refused() -> None:
    """Some readers stop at one block of zeros, others continue."""
    with pytest.raises(MalformedImage, match="zeros"):
        read(header(b"a") + bytes(512) + header(b"b") + END)


def test_an_extension_of_nothing_is_refused() -> None:
    for end in (END, b""):
        with pytest.raises(MalformedImage, match="ends between"):
            read(extended({b"path": b"a"}) + end)


@pytest.mark.parametrize("field", ["size", "mode", "uid", "mtime"])
def test_impossible_numbers_are_refused(field: str) -> None:
    width = 12 if field in ("size", "mtime") else 8
    value = base256(-5, width) if field in ("size", "uid") else b"xyz".ljust(width, b"\0")
    with pytest.raises(MalformedImage, match="invalid"):
        read(header(b"a", **{field: value}) + END)


def test_an_impossible_device_number_is_refused() -> None:
    with pytest.raises(MalformedImage, match="device number"):
        read(header(b"d", b"3", devmajor=b"0777777\0") + END)


@pytest.mark.parametrize("typeflag", [b"M", b"N", b"Z", b"\xff"])
def test_unknown_types_are_not_supported(typeflag: bytes) -> None:
    with pytest.raises(Unsupported, match="type"):
        read(header(b"a", typeflag) + END)


# Chunks of any size.


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=30))
def test_the_seams_of_chunks_do_not_matter(sizes: list[int]) -> None:
    members = [
        Member(b"n" * 150, data=b"x" * 1000, xattrs={b"user.a": b"b" * 700}),
        Member(b"dir", "dir"),
        Member(b"e", data=b"y" * 511),
    ]
    archive = build.tar(members)
    chunks: list[bytes] = []
    at = 0
    while at < len(archive):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(archive[at : at + size])
        at += size
    stream = ChunkStream(iter(chunks))
    found = [
        (e.name, b"".join(map(bytes, stream.iter_chunks(e.stored_size))))
        for e in entries(stream, DEFAULTS)
    ]
    assert found == [(m.name, m.data) for m in members]
    stream.drain()
    assert stream.position == len(archive)


def test_a_file_is_indexed_without_reading_what_is_skipped(tmp_path: Path) -> None:
    """A member of 1 GiB in a sparse file is skipped immediately."""
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header(b"big", size=1 << 30))
        file.seek(1 << 30, 1)
        file.write(header(b"small", size=3) + padded(b"abc") + END)
    with path.open("rb") as file:
        stream = FileStream(file.fileno(), path.stat().st_size)
        found = [(entry.name, stream.position) for entry in entries(stream, DEFAULTS)]
    assert found == [(b"big", 512), (b"small", 1024 + (1 << 30))]


def test_a_checksum_that_is_right_only_in_small_numbers() -> None:
    """The bytes of a header can add up to more than 65521, the modulus of adler32."""
    good = bytearray(build.entry(Member(b"f"))[:512])
    good[:100] = b"\xff" * 100
    good[157:257] = b"\xff" * 100
    good[345:500] = b"\xff" * 155
    total = sum(good[:148]) + 8 * 32 + sum(good[156:])
    assert total > 65521
    good[148:156] = b"%06o\0 " % total
    assert [entry.kind for entry, _ in read(bytes(good))] == ["file"]
    good[148:156] = b"%06o\0 " % (total - 65521)
    with pytest.raises(MalformedImage, match="checksum"):
        read(bytes(good))
