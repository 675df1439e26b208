"""Random stacks of layers, drawn from few names so that they collide often."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import strategies as st

from tests.support.build import Compression, Format, Kind, Layer, Member
from tests.support.model import ModelRefusal, expected

Stack = list[list[Member]]

PARTS = [b"a", b"b", b"c", b"\xff\x80", "é".encode()]

parts = st.sampled_from(PARTS[:2] * 4 + PARTS[2:])
paths = st.lists(parts, min_size=1, max_size=4).map(b"/".join)
shallow_paths = st.lists(parts, min_size=1, max_size=2).map(b"/".join)


@st.composite
def names(draw: st.DrawFn) -> bytes:
    """Draw a path as archives write it: sometimes not in its shortest form."""
    path = draw(st.one_of(shallow_paths, paths))
    form = draw(st.integers(0, 15))
    if form == 0:
        return b"./" + path
    if form == 1:
        return b"/" + path
    if form == 2:
        return draw(parts) + b"/../" + path
    if form == 3:
        return b"../" * draw(st.integers(1, 3)) + path
    if form == 4:
        return path.replace(b"/", draw(st.sampled_from([b"//", b"/./"])))
    return path


link_targets = st.one_of(
    shallow_paths,
    paths,
    names(),
    paths.map(lambda path: b"/" + path),
    st.tuples(st.integers(1, 5), shallow_paths).map(lambda pair: b"../" * pair[0] + pair[1]),
    st.tuples(shallow_paths, shallow_paths).map(b"/../".join),
    st.sampled_from([b".", b"..", b"/", b"../..", b"a/", b"a/.", b"b/..", b"nowhere", b"//a"]),
)
modes = st.one_of(
    st.sampled_from([0o755, 0o644, 0o700, 0, 0o4755, 0o2755, 0o1777, 0o7777, 0o555]),
    st.integers(0, 0o7777),
)
owners = st.sampled_from([0, 0, 1, 1000, 65534, 100000, 8**7, 2**31, 2**32 - 2])
mtimes: st.SearchStrategy[Fraction] = st.one_of(
    st.sampled_from([0, 1, 10**9, -1, -1_500_000_000, 1_234_567_890_123_456_789]),
    st.integers(-(2**31) * 10**9, (2**33) * 10**9),
).map(lambda nanoseconds: Fraction(nanoseconds, 10**9))
xattrs = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b", b"user.\xc3\xa9"]),
    st.binary(max_size=12),
    max_size=2,
)
no_xattrs: st.SearchStrategy[dict[bytes, bytes]] = st.just({})
contents = st.one_of(st.binary(max_size=8), st.just(b"x" * 513))
devices = st.sampled_from([(1, 3), (0, 0), (7, 259), (4095, 1048575)])

_KINDS: list[Kind | str] = ["dir"] * 5 + ["file"] * 5 + ["symlink"] * 4 + ["link"] * 3
_KINDS += ["whiteout"] * 4 + ["opaque"] * 2 + ["char", "block", "fifo", "root", "strange"]


@st.composite
def members(draw: st.DrawFn) -> Member:
    """Draw any entry."""
    kind = draw(st.sampled_from(_KINDS))
    if kind in ("whiteout", "opaque", "strange"):
        return draw(whiteouts(kind))
    name = draw(names())
    if kind == "root":
        name, kind = draw(st.sampled_from([b".", b"./", b"/", b"a/..", b".."])), "dir"
    elif kind == "dir" and draw(st.booleans()):
        name += b"/"
    return Member(
        name,
        kind,  # type: ignore[arg-type]
        data=draw(contents) if kind == "file" else b"",
        mode=draw(modes),
        uid=draw(owners),
        gid=draw(owners),
        mtime=draw(mtimes),
        target=draw({"symlink": link_targets, "link": names()}.get(kind, st.just(b""))),
        rdev=draw(devices) if kind in ("char", "block") else (0, 0),
        xattrs=draw(xattrs if kind in ("file", "dir") else no_xattrs),
    )


@st.composite
def whiteouts(draw: st.DrawFn, what: str) -> Member:
    """Draw a whiteout, mostly an empty file, sometimes another type."""
    head, slash, last = draw(names()).rpartition(b"/")
    if what == "opaque":
        last = b".wh..wh..opq"
        if draw(st.integers(0, 9)) == 0:
            head, slash = b"", b""
    elif what == "strange":
        strange = [b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh..opqx", b".wh..wh..opq/a"]
        strange += [b".wh.", b".wh..", b".wh...", b".wh.a/b", b".wh..wh.orph/a", b".wh.a/.wh.b"]
        last = draw(st.sampled_from(strange))
    else:
        last = hide(last)
    kind: Kind = draw(st.sampled_from(["file"] * 6 + ["dir", "symlink", "link", "char"]))
    target = draw(link_targets) if kind in ("symlink", "link") else b""
    data = draw(contents) if kind == "file" else b""
    return Member(head + slash + last, kind, data, target=target)


def repaired(stack: Sequence[Sequence[Member]]) -> Stack:
    """Return the stack without the entries for which it would be refused.

    Half of the random entries go through a file or link to nothing; what follows the first such
    entry would never be tested.
    """
    kept: Stack = []
    for layer in stack:
        kept.append([])
        for member in layer:
            kept[-1].append(member)
            try:
                expected(kept)
            except ModelRefusal:
                kept[-1].pop()
    return kept


raw_stacks = st.lists(st.lists(members(), max_size=8), min_size=1, max_size=4)
good_stacks = raw_stacks.map(repaired)

# Only names, links and whiteouts, close together, so that their order matters.
few = st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3).map(b"/".join)
few_targets = st.one_of(
    few,
    few.map(lambda path: b"/" + path),
    few.map(lambda path: b"../" + path),
    st.sampled_from([b".", b"..", b"/", b"a/..", b"a/../b", b"b/../a"]),
)
dense_members = st.one_of(
    st.builds(Member, few, st.just("dir"), mode=st.integers(0o700, 0o777)),
    st.builds(Member, few, st.just("file"), st.sampled_from([b"1", b"2", b"3"])),
    st.builds(Member, few, st.just("symlink"), target=few_targets),
    st.builds(Member, few, st.just("link"), target=few),
    st.builds(Member, few.map(lambda path: hide(path))),
    st.builds(Member, few.map(lambda path: path + b"/.wh..wh..opq")),
)
dense_stacks = st.lists(st.lists(dense_members, max_size=5), min_size=2, max_size=3).map(repaired)


def hide(path: bytes) -> bytes:
    """Return the name of the whiteout of a path."""
    head, slash, last = path.rpartition(b"/")
    return head + slash + b".wh." + last


@st.composite
def blobs(draw: st.DrawFn, stack: Stack) -> list[Layer]:
    """Draw the layers of a stack, each stored in one of the formats."""
    layers = []
    for layer in stack:
        compression: Compression = draw(st.sampled_from(["none", "gzip", "zstd"]))
        format: Format = "pax"
        # GNU headers cannot store these.
        plain = all(not m.xattrs and Fraction(m.mtime).denominator == 1 for m in layer)
        if plain and draw(st.booleans()):
            format = "gnu"
        layers.append(Layer(layer, compression, format=format))
    return layers
