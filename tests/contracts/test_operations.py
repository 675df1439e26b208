"""What every output must do that carries out a tree's operations while the layers flow."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import ociroot
from ociroot.errors import DestinationError
from ociroot.rootfs.operations import Operations
from tests.support.build import archive
from tests.support.snapshot import Snapshot, differences, snapshot
from tests.support.strategies import Stack, good_stacks
from tests.support.tally import tally
from tests.support.user import NOBODY, as_ordinary_user, workshop
from tests.test_model import EXAMPLES, SETTINGS, modelled

from .memory import MemoryOutput
from .model import HOST, NAMES, Model, Step, steps, take
from .outputs import OPERATIONS, Begin, Begun

pytestmark = pytest.mark.root


@pytest.fixture(params=OPERATIONS, scope="module")
def begin(request: pytest.FixtureRequest) -> Begin[Operations]:
    return OPERATIONS[request.param]


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a second process whatever the machine is."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


def finished(begun: Begun[Operations], model: Model) -> Snapshot:
    begun.output.finish(model.root)
    begun.publish(model.root)
    return begun.snapshot()


class Running:
    """A model whose output is begun; at the end it is finished and compared."""

    def __init__(self, begun: Begun[Operations]) -> None:
        self.begun = begun
        self.model = Model(begun.output)

    def check(self) -> None:
        assert differences(self.model.snapshot(), finished(self.begun, self.model)) == []
        assert self.begun.notices.warnings() == ()


@pytest.fixture
def running(begin: Begin[Operations], place: Path) -> Iterator[Running]:
    with begin(place, None) as begun:
        yield Running(begun)


@settings(SETTINGS, max_examples=max(EXAMPLES // 3, 10))
@given(sequence=steps())
def test_any_sequence(begin: Begin[Operations], sequence: list[Step]) -> None:
    with workshop() as place, begin(place, None) as begun:
        running = Running(begun)
        for step in sequence:
            take(running.model, step)
        running.check()
    tally("a random sequence of operations", "as the model says")


def test_nothing_but_the_root(running: Running) -> None:
    running.model.root.mode, running.model.root.mtime_ns = 0o711, 5
    running.model.root.xattrs = {b"user.k": b"v"}
    running.check()


KINDS = ("dir", "full dir", "file", "large file", "symlink", "fifo", "char", "link")


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, KINDS)), ids="-".join)
def test_another_one_in_its_place(running: Running, kinds: tuple[str, str]) -> None:
    """What was there is gone, and what comes has nothing of it: an attribute, a content."""
    model = running.model
    model.file(b"other", b"o", uid=9)
    model.directory(b"d", xattrs={b"user.old": b"1"})
    for number, kind in enumerate(kinds):
        if number:
            model.remove(b"d/x")
        if kind in ("dir", "full dir"):
            model.directory(b"d/x", xattrs={b"user.%d" % number: b""})
            if kind == "full dir":
                model.directory(b"d/x/below")
                model.file(b"d/x/below/f", b"%d" % number)
                model.link(b"d/x/below/g", b"d/x/below/f")
        elif kind in ("file", "large file"):
            model.file(b"d/x", b"%d" % number * (1 if kind == "file" else 300_000))
        elif kind == "link":
            model.link(b"d/x", b"other")
        elif kind == "symlink":
            model.other(b"d/x", "symlink", b"%d" % number)
        else:
            model.other(b"d/x", "fifo" if kind == "fifo" else "char", rdev=(1, 3 + number))
    running.check()


def test_hard_links_across_directories(running: Running) -> None:
    """A node lives as long as it has a name, whichever was the first."""
    model = running.model
    for name in (b"a", b"b", b"b/c"):
        model.directory(name)
    model.file(b"a/first", b"content", mode=0o4711, xattrs={b"user.k": b"v"})
    model.other(b"a/pipe", "fifo")
    model.other(b"a/sym", "symlink", b"first")
    for name in (b"first", b"pipe", b"sym"):
        model.link(b"b/c/" + name, b"a/" + name)
        model.link(b"b/" + name, b"b/c/" + name)
    model.remove(b"a")
    model.directory(b"a")
    model.link(b"a/again", b"b/first")
    running.check()


SPARSE = {
    "a hole": ([], 5000, b""),
    "holes around": ([(4096, 3), (100_000, 5000)], 200_000, b"abc" + b"x" * 5000),
    "no hole": ([(0, 5)], 5, b"whole"),
    "large": ([(1 << 28, 4)], (1 << 28) + 4, b"end."),
    "many runs": ([(8192 * n, 700) for n in range(400)], 8192 * 400, b"r" * 400 * 700),
}


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_files(running: Running, case: str) -> None:
    runs, size, stored = SPARSE[case]
    running.model.file(b"before", b"1")
    running.model.file(b"sparse", stored, runs=runs, size=size, xattrs={b"user.k": b"v"})
    running.model.file(b"after", b"2")
    running.check()


def test_a_chain_of_directories(running: Running) -> None:
    """5,000 in each other, which no path leads to; and a part of it is removed."""
    model = running.model
    path, at = b"", model.root
    for number in range(5000):
        # By the record of the parent: to look up a path each time would take a minute.
        below = type(at)(at, b"d", 0)
        below.mtime_ns, below.uid = number, 3
        model.output.make_directory(below)
        at.entries[b"d"] = below
        at = below
    path = at.path()
    model.file(path + b"/bottom", b"deep")
    model.link(b"top", path + b"/bottom")
    middle = b"/".join([b"d"] * 4990)
    model.remove(middle)
    model.file(middle, b"in its place")
    running.check()


@pytest.mark.parametrize("kind", ["dir", "file", "symlink", "fifo", "link"])
def test_names_of_any_bytes(running: Running, kind: str) -> None:
    """255 of them, and what is no text in any encoding."""
    model = running.model
    model.file(b"first", b"x")
    for name in (*NAMES, bytes(range(1, 47)) + bytes(range(48, 256)), b"-rf", b" ", b"a\nb"):
        if kind == "dir":
            model.directory(name)
            model.file(name + b"/" + name, name)
        elif kind == "file":
            model.file(name, name)
        elif kind == "symlink":
            model.other(name, "symlink", name + b"/" * 3)
        elif kind == "fifo":
            model.other(name, "fifo")
        else:
            model.link(name, b"first")
    running.check()


@pytest.mark.parametrize("size", [0, 1, 999, 65_536, 65_537, 262_144, 1_000_000])
def test_contents_of_any_size(running: Running, size: int) -> None:
    """In one piece of the stream or in many, small enough to be copied or not."""
    for number in range(3):
        running.model.file(b"%d" % number, (b"%d" % number) * size)
    running.check()


def test_many_of_them(running: Running) -> None:
    """More than go into one batch, and removed before they may have been made."""
    model = running.model
    for number in range(900):
        model.file(b"f%d" % number, b"x" * (number % 7), uid=number)
    for number in range(0, 900, 2):
        model.remove(b"f%d" % number)
        if number % 4:
            model.directory(b"f%d" % number)
            model.file(b"f%d/large" % number, b"y" * 80_000)
    running.check()


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def test_attributes(running: Running) -> None:
    """All that the kernel changes when another one is set are as they should be."""
    model = running.model
    attributes = {b"user.k": b"\0", b"security.capability": CAPABILITY, b"trusted.k": b"t"}
    for number, mode in enumerate((0o6755, 0o4711, 0o2711, 0o1777, 0o7777, 0)):
        about: dict[str, Any] = {"mode": mode, "uid": 1000 + number, "gid": 2**32 - 2}
        model.file(b"f%d" % number, b"x" * number * 40_000, xattrs=attributes, **about)
        model.directory(b"d%d" % number, xattrs={b"user.k": b"1", b"trusted.k": b""}, **about)
        model.other(b"p%d" % number, "fifo", **about)
    for number, time in enumerate((0, -1, 1, 10**9 - 1, 4_102_444_800 * 10**9)):
        model.file(b"t%d" % number, b"x", mtime_ns=time)
        model.other(b"s%d" % number, "symlink", b"x", mtime_ns=time, uid=8)
    running.check()


def test_attributes_of_the_host_are_left_out(running: Running) -> None:
    model = running.model
    attributes = dict.fromkeys(HOST, b"h") | {b"user.k": b"v"}
    model.file(b"f", b"x", xattrs=attributes)
    model.directory(b"d", xattrs=attributes)
    running.check()


def test_devices(running: Running) -> None:
    model = running.model
    for number, rdev in enumerate([(0, 0), (1, 3), (7, 259), (4095, 1048575)]):
        model.other(b"c%d" % number, "char", rdev=rdev, mode=0o666)
        model.other(b"b%d" % number, "block", rdev=rdev, mode=0o600, uid=6)
        model.link(b"l%d" % number, b"c%d" % number)
    running.check()


def test_directories_have_their_attributes_at_the_end(running: Running) -> None:
    """Their times are not those at which something went into them, or out of them."""
    model = running.model
    for number, path in enumerate((b"a", b"a/b", b"a/b/c", b"z")):
        model.directory(path, mtime_ns=number * 10**9, mode=0o500 + number)
    model.file(b"a/b/c/f", b"x")
    model.file(b"a/b/g", b"x" * 300_000)
    model.remove(b"a/b/c/f")
    model.other(b"a/s", "symlink", b"x")
    model.link(b"z/l", b"a/s")
    # An entry of a higher layer describes one anew.
    model.root.entries[b"z"].mtime_ns = 77
    model.root.entries[b"z"].xattrs = {b"user.new": b"1"}
    running.check()


def test_directories_that_their_owner_may_not_enter(begin: Begin[Operations], place: Path) -> None:
    """An ordinary user sets the attributes of a directory after those of all that is in it."""

    def work() -> Snapshot:
        with begin(place, None) as begun:
            model = Model(begun.output)
            me: dict[str, Any] = {"uid": NOBODY, "gid": NOBODY}
            for path in (b"d", b"d/e", b"d/e/f"):
                model.directory(path, mode=0, **me)
                model.file(path + b"/x", b"x", mode=0, xattrs={b"user.k": b"v"}, **me)
            model.root.uid = model.root.gid = NOBODY
            begun.output.finish(model.root)
            begun.publish(model.root)
            return model.snapshot()

    want = as_ordinary_user(work)
    if (place / "root").exists():
        # Only root may look at it.
        assert differences(want, snapshot(place / "root")) == []


@pytest.mark.parametrize("size", [1000, 60_000, 200_000])
def test_no_space_midway(begin: Begin[Operations], place: Path, size: int) -> None:
    """It is the destination's error, names the member, and comes before the end of finish()."""
    with pytest.raises(DestinationError) as caught, begin(place, 1 << 20) as begun:
        model = Model(begun.output)
        model.directory(b"d")
        for number in range((4 << 20) // size):
            model.file(b"d/f%d" % number, b"x" * size)
        begun.output.finish(model.root)
    assert caught.value.is_full
    assert caught.value.exit_code == 7
    assert str(caught.value.member).startswith("b'd/f")


STATES = ("begun", "in a batch", "after an error", "finished")


@pytest.mark.parametrize("state", STATES)
def test_closed_in_any_state(begin: Begin[Operations], place: Path, state: str) -> None:
    """No descriptor stays open, and no process is left."""
    before = sorted(Path("/proc/self/fd").iterdir())

    class Stopped(Exception):
        pass

    try:
        with begin(place, None) as begun:
            model = Model(begun.output)
            if state != "begun":
                model.directory(b"d")
                for number in range(300):
                    model.file(b"d/%d" % number, b"x")
            if state == "finished":
                assert differences(model.snapshot(), finished(begun, model)) == []
            if state == "after an error":
                raise Stopped
    except Stopped:
        pass
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@settings(SETTINGS, max_examples=max(EXAMPLES // 3, 10))
@given(good_stacks)
def test_the_tree_keeps_to_it(stack: Stack) -> None:
    """What outputs rely on is so for any stack of layers; the one in memory asserts it."""
    want = modelled(stack)
    assert want is not None
    made: list[MemoryOutput] = []

    def operations() -> MemoryOutput:
        made.append(MemoryOutput())
        return made[-1]

    with workshop() as where, ociroot.open(archive(where / "image", stack)) as source:
        tree = source.image().merged(operations=operations).tree
        made[-1].finish(tree.root)

    def ignored(path: bytes, attribute: str) -> bool:
        """Of a symbolic link the kernel has no mode; of what is no file, no user.* attributes."""
        kind = want[path].kind
        return (attribute == "mode" and kind == "symlink") or (
            attribute == "xattrs" and kind not in ("file", "dir")
        )

    assert differences(want, made[-1].snapshot(), ignored) == []
