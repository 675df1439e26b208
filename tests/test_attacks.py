"""Images that try to escape: names and links of any kind change nothing outside the root.

Most cases are a product of a path that leads out of the root if it is followed, and an operation at
that path, in one layer or across layers. The expected result is that of the plain model, which has
no outside; the watched tree beside the root must not change.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ociroot
from tests.support.build import Layer, Member, archive, directory, file, link, symlink
from tests.support.model import ModelRefusal, expected
from tests.support.snapshot import Snapshot, differences, snapshot
from tests.support.user import as_ordinary_user, workshop

OPAQUE = b".wh..wh..opq"
Members = list[Member]


class Arena:
    """A directory with an image, its destination, and the tree that must not change."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.rootfs = place / "rootfs"
        self.watched = place / "watched"
        self.watched.mkdir()
        (self.watched / "secret").write_bytes(b"secret")
        (self.watched / "dir").mkdir(mode=0o711)
        (self.watched / "dir" / "inner").write_bytes(b"inner")
        (self.watched / "link").symlink_to("secret")
        for path in (self.watched / "secret", self.watched / "dir", self.watched):
            os.utime(path, ns=(1, 1))

    def outside(self) -> tuple[Snapshot, list[int], list[str]]:
        """Return the state that must not change."""
        inodes = [(self.watched / name).stat().st_nlink for name in ("secret", "dir/inner")]
        listing = {path.name for path in self.place.iterdir()}
        return snapshot(self.watched), inodes, sorted(listing - {"rootfs", "image"})

    def extract(
        self, *layers: Members | Layer, user: bool = False, replace: bool = False
    ) -> Snapshot | None:
        """Extract and check the outside; return the tree, or None after a refusal."""
        image = archive(self.place / "image", layers)
        before = self.outside()

        def work() -> None:
            with ociroot.open(image) as source:
                source.image().extract(
                    self.rootfs, ociroot.ExtractOptions(replace_anything=replace)
                )

        try:
            as_ordinary_user(work) if user else work()
        except ociroot.MalformedImage:
            assert replace or not os.path.lexists(self.rootfs)
            return None
        finally:
            assert self.outside() == before
        return snapshot(self.rootfs)


@pytest.fixture
def arena() -> Iterator[Arena]:
    """An arena with a timeout, since opening a FIFO would hang."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(120)
    try:
        with workshop() as place:
            yield Arena(place)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# -- Escaping paths and operations at them ---------------------------------------------------------

UP = b"../" * 12
# Each makes the name `way` lead to the watched directory, whose path is given.
WAYS: dict[str, Callable[[bytes], Members]] = {
    "absolute": lambda out: [symlink(b"way", out)],
    "relative": lambda out: [symlink(b"way", b"../watched")],
    "far up": lambda out: [symlink(b"way", UP + out.lstrip(b"/"))],
    "chained": lambda out: [
        symlink(b"way", b"one"),
        symlink(b"one", b"./d/two"),
        symlink(b"d/two", b"../three/watched"),
        symlink(b"three", b".."),
    ],
    "chained and absolute": lambda out: [symlink(b"one", out), symlink(b"way", b"/one")],
    "through itself": lambda out: [symlink(b"up", b".."), symlink(b"way", b"up/up/up/watched")],
    "to the root": lambda out: [symlink(b"way", b"/"), symlink(b"watched", out)],
    "proc": lambda out: [symlink(b"way", b"/proc/self/root" + out)],
    "proc, cwd": lambda out: [symlink(b"way", b"/proc/self/cwd/" + UP + out)],
    "directory, then link": lambda out: [
        directory(b"way"),
        file(b"way/secret"),
        file(b"way/dir/inner"),
        symlink(b"way", out),
    ],
    "link, directory, link": lambda out: [
        symlink(b"way", b"../watched"),
        directory(b"way"),
        file(b"way/f"),
        file(b"way/.wh.f"),
        symlink(b"way", out),
    ],
    "hard link to a link": lambda out: [symlink(b"one", out), link(b"way", b"one")],
    "link renamed": lambda out: [symlink(b"one", out), link(b"way", b"one"), file(b"one")],
    "directory with a link": lambda out: [
        directory(b"x"),
        symlink(b"x/way", out),
        link(b"way", b"x/way"),
    ],
}
# The same without a link: the name itself is the escaping path.
NAMES = {
    "dots": b"../watched",
    "many dots": b"a/../../../watched",
    "dots inside": b"a/b/../../../watched",
    "dots at the front": b"/../../watched",
    "dots behind a link": b"way/../../watched",
}
PAYLOADS: dict[str, Callable[[bytes], Members]] = {
    "new file": lambda way: [file(way + b"/new", b"PWNED")],
    "file": lambda way: [file(way + b"/secret", b"PWNED")],
    "file through a link there": lambda way: [file(way + b"/link", b"PWNED")],
    "file in a directory there": lambda way: [file(way + b"/dir/inner", b"PWNED", mode=0o6777)],
    "file in place of a directory": lambda way: [file(way + b"/dir", b"PWNED")],
    "directory": lambda way: [
        directory(way + b"/dir", mode=0o777, uid=7, xattrs={b"user.p": b"1"})
    ],
    "the way as a directory": lambda way: [
        directory(way + b"/", mode=0o777, uid=7),
        file(way + b"/x"),
    ],
    "the way's dot": lambda way: [directory(way + b"/.", mode=0, xattrs={b"user.p": b"1"})],
    "the way as a file": lambda way: [file(way, b"PWNED", mode=0o6777)],
    "attributes of a link": lambda way: [
        symlink(b"s", way + b"/secret", mode=0o777, uid=7, gid=7, mtime=9),
        symlink(b"t", way, mode=0, uid=7, xattrs={b"user.p": b"1"}),
    ],
    "link": lambda way: [symlink(way + b"/secret", b"PWNED"), file(way + b"/secret", b"PWNED")],
    "hard link from there": lambda way: [link(b"stolen", way + b"/secret")],
    "hard link to there": lambda way: [file(b"mine", b"PWNED"), link(way + b"/secret", b"mine")],
    "hard link and write": lambda way: [link(b"x", way), file(b"x", b"PWNED")],
    "fifo": lambda way: [Member(way + b"/secret", "fifo"), file(way + b"/secret", b"PWNED")],
    "device": lambda way: [Member(way + b"/secret", "char", mode=0o666, rdev=(1, 5))],
    "whiteout": lambda way: [file(way + b"/.wh.secret"), file(way + b"/.wh.dir")],
    "deep whiteout": lambda way: [file(way + b"/dir/.wh.inner")],
    "opaque whiteout": lambda way: [file(way + b"/" + OPAQUE)],
    "deep opaque whiteout": lambda way: [file(way + b"/dir/" + OPAQUE)],
    "whiteout of the way": lambda way: [file(b".wh.way"), file(way + b"/secret", b"PWNED")],
    "late whiteout of the way": lambda way: [file(way + b"/secret", b"PWNED"), file(b".wh.way")],
}


def modelled(layers: list[Members]) -> Snapshot | None:
    try:
        return expected(layers)
    except ModelRefusal:
        return None


def attack(arena: Arena, *layers: Members) -> Snapshot | None:
    """Extract, and compare with what the model says."""
    want, got = modelled(list(layers)), arena.extract(*layers)
    assert (got is None) == (want is None)
    if got is not None and want is not None:
        assert differences(want, got) == []
    return got


@pytest.mark.root
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("way", WAYS)
def test_no_link_leads_out(arena: Arena, way: str, payload: str) -> None:
    links = WAYS[way](os.fsencode(arena.watched))
    deed = PAYLOADS[payload](b"way")
    attack(arena, links + deed)
    subprocess.run(["rm", "-rf", arena.rootfs], check=True)
    attack(arena, links, deed)
    subprocess.run(["rm", "-rf", arena.rootfs], check=True)
    attack(arena, *([member] for member in links + deed))


@pytest.mark.root
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_name_leads_out(arena: Arena, name: bytes, payload: str) -> None:
    attack(arena, [symlink(b"way", b".."), *PAYLOADS[payload](name)])
    subprocess.run(["rm", "-rf", arena.rootfs], check=True)
    attack(arena, [symlink(b"way", b"../watched/dir")], PAYLOADS[payload](name))


def test_what_was_meant_for_outside_lies_inside(arena: Arena) -> None:
    out = os.fsencode(arena.watched)
    tree = arena.extract([symlink(b"way", out)], [file(b"way/secret", b"PWNED")])
    assert tree is not None
    assert tree[out.lstrip(b"/") + b"/secret"].size == 5
    assert tree[b"way"].target == out


@pytest.mark.parametrize("target", ["absolute", "../watched/secret", "way/secret"])
def test_no_hard_link_reaches_out(arena: Arena, target: str) -> None:
    out = os.fsencode(arena.watched)
    name = out + b"/secret" if target == "absolute" else target.encode()
    layer = [symlink(b"way", out), link(b"stolen", name)]
    assert arena.extract(layer) is None
    assert arena.extract(layer[:1], layer[1:]) is None


@pytest.mark.parametrize("kind", ["symlink", "file", "link", "fifo", "char"])
@pytest.mark.parametrize("name", [b".", b"/", b"./", b"..", b"x/.."])
def test_the_root_is_never_replaced(arena: Arena, name: bytes, kind: str) -> None:
    out = os.fsencode(arena.watched)
    target = b"f" if kind == "link" else out
    root = Member(name, kind, target=target)  # type: ignore[arg-type]
    assert arena.extract([file(b"f"), root, file(b"secret", b"PWNED")]) is None
    assert arena.extract([file(b"f")], [root], [file(b"secret", b"PWNED")]) is None


@pytest.mark.parametrize("name", [b".wh..", b".wh...", b"d/../.wh..", b".wh."])
def test_no_whiteout_removes_the_root(arena: Arena, name: bytes) -> None:
    assert arena.extract([file(b"f")], [file(name)]) is None


# -- What must not be opened -----------------------------------------------------------------------


@pytest.mark.parametrize("across", [False, True])
def test_a_fifo_is_never_opened(arena: Arena, across: bool) -> None:
    fifo = [Member(b"p", "fifo", mode=0o666), link(b"q", b"p"), symlink(b"s", b"p")]
    over = [file(b"p", b"1"), file(b"q", b"2"), file(b"s", b"3")]
    layers = [fifo, over] if across else [fifo + over]
    tree = arena.extract(*layers)
    assert tree is not None
    assert {tree[name].kind for name in (b"p", b"q", b"s")} == {"file"}


@pytest.mark.parametrize("name", [b"p/x", b"s/x", b"p/.", b"s/d/x"])
def test_a_fifo_is_no_way(arena: Arena, name: bytes) -> None:
    layers = [Member(b"p", "fifo"), symlink(b"s", b"p")], [file(name, b"1")]
    tree = arena.extract(*layers)
    assert tree is None or tree[b"p"].kind == "file"
    assert (tree is None) == (name != b"p/.")


@pytest.mark.root
@pytest.mark.parametrize("across", [False, True])
def test_a_device_is_never_opened(arena: Arena, across: bool) -> None:
    # /dev/full answers a write with an error; the block device has no driver.
    devices = [Member(b"c", "char", rdev=(1, 7)), Member(b"b", "block", rdev=(250, 77))]
    devices += [link(b"l", b"c"), symlink(b"s", b"b")]
    over = [file(name, b"x" * 5000) for name in (b"c", b"b", b"l", b"s")]
    tree = arena.extract(devices, over) if across else arena.extract(devices + over)
    assert tree is not None
    assert {record.size for path, record in tree.items() if path != b"."} == {5000}


@pytest.mark.root
def test_directories_over_devices(arena: Arena) -> None:
    devices = [Member(b"c", "char", rdev=(1, 7)), Member(b"b", "block", rdev=(250, 77))]
    tree = arena.extract(devices, [directory(b"c"), file(b"c/f"), file(b".wh.b"), file(b"b/f")])
    assert tree is not None
    assert tree[b"c/f"].kind == tree[b"b/f"].kind == "file"


# -- Endless links ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "links",
    [
        [symlink(b"l", b"l")],
        [symlink(b"l", b"m"), symlink(b"m", b"l")],
        [symlink(b"l", b"./l/../l")],
        [symlink(b"l", b"/x/l"), symlink(b"x", b".")],
        # Each link doubles the steps of the previous one.
        [symlink(b"l", b"39/x"), symlink(b"0", b"."), directory(b"x")]
        + [symlink(b"%d" % n, b"%d/%d" % (n - 1, n - 1)) for n in range(1, 40)],
    ],
)
def test_links_without_end(arena: Arena, links: Members) -> None:
    assert arena.extract([*links, file(b"l/f")]) is None
    assert arena.extract(links, [file(b"f"), link(b"l/g", b"f")]) is None
    assert arena.extract(links, [link(b"g", b"l/f")]) is None
    tree = arena.extract(links, [file(b"l/.wh.f"), file(b"l/" + OPAQUE), file(b"l/l/.wh.x")])
    assert tree is not None
    assert tree[b"l"].kind == "symlink"


# -- Deep trees ------------------------------------------------------------------------------------

DEPTH = 1500
DEEP = b"/".join([b"deep-dir"] * DEPTH)  # far beyond PATH_MAX
DEEP_LAYER = [
    *(directory(DEEP[: n * 9 - 1], mode=0o500) for n in range(1, DEPTH, 100)),
    file(DEEP + b"/file", b"1"),
]


@pytest.mark.root
@pytest.mark.parametrize("user", [False, True])
def test_a_deep_tree(arena: Arena, user: bool) -> None:
    tree = arena.extract(DEEP_LAYER, [file(DEEP + b"/more", b"2")], user=user)
    assert tree is not None
    assert len(tree) == DEPTH + 3
    assert tree[DEEP + b"/file"].kind == tree[DEEP + b"/more"].kind == "file"
    assert tree[b"deep-dir"].mode == 0o500


UPPER = {
    "whiteout": [file(b".wh.deep-dir")],
    "opaque whiteout": [file(OPAQUE)],
    "file": [file(b"deep-dir")],
    "link": [symlink(b"deep-dir", b"../watched")],
}


@pytest.mark.root
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("upper", UPPER.values(), ids=UPPER)
def test_a_deep_tree_is_removed(arena: Arena, upper: Members, user: bool) -> None:
    tree = arena.extract(DEEP_LAYER, upper, user=user)
    assert tree is not None
    assert len(tree) in (1, 2)


@pytest.mark.root
@pytest.mark.parametrize("user", [False, True])
def test_nothing_is_left_of_a_deep_tree_after_a_refusal(arena: Arena, user: bool) -> None:
    locked = [directory(b"locked", mode=0), file(b"locked/file", mode=0)]
    assert arena.extract(locked + DEEP_LAYER, [link(b"x", b"gone")], user=user) is None
    names = {path.name for path in arena.place.iterdir()}
    assert names == {"image", "watched"}


@pytest.mark.root
@pytest.mark.parametrize("user", [False, True])
def test_a_deep_tree_is_exchanged_for_another(arena: Arena, user: bool) -> None:
    assert arena.extract(DEEP_LAYER, user=user) is not None
    tree = arena.extract([file(b"new")], user=user, replace=True)
    assert tree is not None
    assert set(tree) == {b".", b"new"}


def test_a_deep_tree_behind_links(arena: Arena) -> None:
    # Each link is short and continues where the last one ended.
    step = b"/".join([b"d"] * 20)
    layer: Members = [directory(b"l0")]
    for n in range(1, 100):
        layer += [
            directory(b"l%d/" % (n - 1) + step),
            symlink(b"l%d" % n, b"l%d/" % (n - 1) + step),
        ]
    tree = arena.extract([*layer, file(b"l99/file", b"1")], [file(b"l99/.wh.file")])
    assert tree is not None
    assert max(path.count(b"/") for path in tree) == 20 * 99
    assert not any(record.kind == "file" for record in tree.values())


# -- Names that the kernel rejects -----------------------------------------------------------------


@pytest.mark.parametrize(
    "member",
    [
        Member(b"f", pax={b"path": b"a\0b"}),
        Member(b"f", "dir", pax={b"path": b"\0"}),
        Member(b"f", "symlink", target=b"t", pax={b"linkpath": b"a\0b"}),
        Member(b"f", "link", pax={b"linkpath": b"a\0b"}),
        Member(b"f", pax={b"SCHILY.xattr.user.a\0b": b"1"}),
        Member(b"f", "symlink", target=b""),
        Member(b"f", "symlink", target=b"x" * 5000),
        file(b"x" * 256),
        file(b"d/" + b"x" * 256 + b"/f"),
        file(b"f", pax={b"SCHILY.xattr.user." + b"x" * 300: b"1"}),
        file(b"f", pax={b"SCHILY.xattr.": b"1"}),
        file(b"f", pax={b"SCHILY.xattr.unknown": b"1"}),
        file(b"f", mtime=2**62),
        file(b"f", mtime=-(2**62)),
        file(b"f", pax={b"mtime": b"1e400"}),
        file(b"f", pax={b"mtime": b"nan"}),
        file(b"f", pax={b"uid": b"\xd9\xa3"}),  # a digit, but not an ASCII one
        Member(b"f", "char", rdev=(2**40, 2**40)),
        Member(b"f", typeflag=b"Z"),
    ],
    ids=lambda member: f"{member.kind}-{member.name[:3]!r}-{[*member.pax]}",
)
def test_what_the_kernel_does_not_take_is_no_crash(arena: Arena, member: Member) -> None:
    before = arena.outside()
    image = archive(arena.place / "image", [[file(b"g")], [member]])
    try:
        with ociroot.open(image) as source:
            source.image().extract(arena.rootfs)
    except ociroot.OcirootError:
        assert not arena.rootfs.exists()
    assert arena.outside() == before


# -- Messages --------------------------------------------------------------------------------------

EVIL = b"evil\x1b]0;title\x07\x1b[31m\nocirootfake: line\r\x7f\x9b\xc2\x9b\xe2\x80\xae\xff"
EVIL_TEXT = "evil\x1b]0;title\x07\x1b[31m\nfake: line\r\x7f\x9b\u202e"
REFUSED: dict[str, list[Members]] = {
    "name": [[file(b"f"), file(b"f/" + EVIL)]],
    "parent": [[file(EVIL), file(EVIL + b"/x")]],
    "link target": [[link(b"l", EVIL)]],
    "link to a directory": [[directory(EVIL), link(b"l", EVIL)]],
    "loop": [[symlink(EVIL, EVIL), file(EVIL + b"/f")]],
    "whiteout": [[file(EVIL + b"/.wh.")]],
    "owner": [[file(EVIL, uid=-1)]],
    "record": [[file(EVIL, pax={b"mtime": EVIL.replace(b"\n", b"")})]],
    "type": [[Member(EVIL, typeflag=b"\x1b")]],
    "too long": [[file(EVIL + b"x" * 256)]],
}


def check_text(text: bytes) -> None:
    """Check that a message has no control characters and no traceback."""
    shown = text.decode()
    for character in shown.replace("\n", ""):
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), shown
    assert "Traceback" not in shown
    assert not re.search("^(ociroot)?fake", shown, re.MULTILINE), shown


def command(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "ociroot", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("layers", REFUSED.values(), ids=REFUSED)
def test_errors_are_one_line_that_a_terminal_does_not_obey(
    arena: Arena, layers: list[Members]
) -> None:
    image = archive(arena.place / "image", layers)
    done = command("extract", image, arena.rootfs)
    assert done.returncode in (3, 5, 7)
    check_text(done.stderr)
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


@pytest.mark.parametrize("option", ["--verbose", "--json"])
def test_warnings_are_lines_that_a_terminal_does_not_obey(arena: Arena, option: str) -> None:
    odd = [file(EVIL), file(EVIL), file(b".wh.x/" + EVIL)]
    odd.append(symlink(b"s", EVIL, pax={b"SCHILY.xattr.user." + EVIL: b"1"}))
    image = archive(arena.place / "image", [odd], descriptor={"annotations": {"a": EVIL_TEXT}})
    done = command("extract", option.replace("--verbose", "-v"), image, arena.rootfs)
    assert done.returncode == 0, done.stderr
    check_text(done.stderr)
    check_text(done.stdout)


DOCUMENTS: dict[str, dict[str, object]] = {
    "platform": {"platform": (EVIL_TEXT, EVIL_TEXT)},
    "media type": {"layers": [Layer([], media_type=EVIL_TEXT)]},
    "digest": {"layers": [Layer([], descriptor={"digest": "sha256:" + EVIL_TEXT})]},
    "algorithm": {"layers": [Layer([], descriptor={"digest": EVIL_TEXT + ":00"})]},
    "diff_id": {"diff_ids": [EVIL_TEXT]},
    "layout": {"layout": {"imageLayoutVersion": EVIL_TEXT}},
    "duplicate name": {"config": b'{"\\u001b[31m": 1, "\\u001b[31m": 2}'},
    "no JSON": {"manifest": EVIL},
    "field": {"config": {"rootfs": {"type": EVIL_TEXT, "diff_ids": []}}},
    "index media type": {"index": {"mediaType": EVIL_TEXT}},
}


@pytest.mark.parametrize("case", DOCUMENTS.values(), ids=DOCUMENTS)
def test_errors_about_documents_too(arena: Arena, case: dict[str, object]) -> None:
    image = archive(arena.place / "image", **{"layers": [[]], **case})  # type: ignore[arg-type]
    asked = ["--platform", "linux/mips"] if "platform" in case else []
    done = command("extract", *asked, image, arena.rootfs)
    assert done.returncode in (2, 3, 4, 5)
    check_text(done.stderr)


def test_names_of_our_own_files_too(arena: Arena) -> None:
    place = arena.place / os.fsdecode(EVIL.replace(b"/", b""))
    done = command("extract", place, arena.rootfs)
    assert done.returncode != 0
    check_text(done.stderr)
    image = archive(arena.place / "image", [[file(b"f")]])
    place.write_bytes(b"")
    done = command("extract", image, place)
    assert done.returncode == 7
    check_text(done.stderr)
