"""What every output must do that is fed from a finished tree, and what it may rely on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from ociroot.errors import DestinationError, VerificationError
from ociroot.outputs.sink import Sink, depth_first, feed
from ociroot.rootfs.nodes import Directory, Node
from ociroot.tar.stream import Stream
from tests.support.snapshot import Snapshot, differences
from tests.support.tally import tally
from tests.support.user import workshop
from tests.test_model import EXAMPLES, SETTINGS

from .memory import MemoryOutput
from .model import HOST, NAMES, Model, Step, describe, steps, take
from .outputs import LOSSY, SINKS, Begin

pytestmark = pytest.mark.root


@pytest.fixture(params=SINKS | LOSSY, scope="module")
def begin(request: pytest.FixtureRequest) -> Begin[Sink]:
    return (SINKS | LOSSY)[request.param]


@pytest.fixture(params=SINKS, scope="module")
def exact(request: pytest.FixtureRequest) -> Begin[Sink]:
    return SINKS[request.param]


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


def check(begin: Begin[Sink], place: Path, model: Model, path: bytes = b"") -> None:
    """Feed a model's tree, or a directory of it; what is there then is what the model says."""
    part = model.root.entries[path] if path else model.root
    assert isinstance(part, Directory)
    with begin(place, None) as begun:
        root = feed(part, begun.output, model.layers, model.data)
        begun.publish(root)
        got = begun.snapshot()
        wanted, warnings = begun.holds(below(model.snapshot(), path))
        assert {warning.code for warning in begun.notices.warnings()} == warnings
    assert differences(wanted, got) == []
    assert root.parent is None


def below(tree: Snapshot, path: bytes) -> Snapshot:
    """A directory of a tree as a tree of its own."""
    if not path:
        return tree
    inside = path + b"/"
    found = {p[len(inside) :]: record for p, record in tree.items() if p.startswith(inside)}
    found[b"."] = tree[path]
    return {
        name: replace(
            record,
            links=tuple(p[len(inside) :] for p in record.links if p.startswith(inside)),
        )
        for name, record in found.items()
    }


@settings(SETTINGS, max_examples=max(EXAMPLES // 3, 10))
@given(sequence=steps())
def test_any_tree(begin: Begin[Sink], sequence: list[Step]) -> None:
    model = Model()
    for step in sequence:
        take(model, step)
    with workshop() as place:
        check(begin, place, model)
    tally("a random tree", "fed to a sink as the model says")


def test_nothing_but_the_root(begin: Begin[Sink], place: Path) -> None:
    model = Model()
    describe(model.root, {"mode": 0o711, "xattrs": {b"user.k": b"v"}})
    check(begin, place, model)


def filled() -> Model:
    """A tree with everything in it, whose layers hold the contents in another order."""
    model = Model()
    for path in (b"z", b"a", b"a/z", b"a/a", b"m"):
        model.directory(path, mtime_ns=5, xattrs={b"user.d": path, HOST[1]: b"h"})
    model.file(b"z/first", b"1" * 5000, mode=0o4755, xattrs={b"user.k": b"v"})
    model.file(b"a/z/f", b"2" * 70_000)
    model.link(b"a/a/link", b"z/first")
    model.link(b"zz", b"z/first")
    model.file(b"m/sparse", b"abc", runs=[(4096, 3)], size=100_000)
    model.file(b"empty")
    model.other(b"a/s", "symlink", b"z")
    model.link(b"m/s", b"a/s")
    model.other(b"a/c", "char", rdev=(1, 3))
    model.link(b"a/a/c", b"a/c")
    model.other(b"p", "fifo")
    for name in NAMES[3:]:
        model.file(b"m/" + name, name)
    return model


def test_everything(begin: Begin[Sink], place: Path) -> None:
    check(begin, place, filled())


@pytest.mark.parametrize("path", [b"a", b"m", b"z"])
def test_a_part_of_the_tree(begin: Begin[Sink], place: Path, path: bytes) -> None:
    """It is a tree of its own: names outside are none of its links, and its root has a root's."""
    model = filled()
    check(begin, place, model, path)
    assert differences(filled().snapshot(), model.snapshot()) == [], "and nothing has changed"


def test_a_chain_of_directories(exact: Begin[Sink], place: Path) -> None:
    model = Model()
    at = model.root
    for number in range(5000):
        below = Directory(at, b"d", 0)
        describe(below, {"mtime_ns": number})
        at.entries[b"d"] = below
        at = below
    model.file(at.path() + b"/bottom", b"deep")
    check(exact, place, model)


def test_no_space_midway(exact: Begin[Sink], place: Path) -> None:
    model = Model()
    for number in range(70):
        model.file(b"f%d" % number, b"x" * 60_000)
    with pytest.raises(DestinationError) as caught, exact(place, 1 << 20) as begun:
        feed(model.root, begun.output, model.layers, model.data)
    assert caught.value.is_full
    assert str(caught.value.member).startswith("b'f")


def test_contents_larger_than_a_chunk(begin: Begin[Sink], place: Path) -> None:
    """They arrive in several pieces."""
    model = Model()
    for number in range(3):
        content = b"".join(b"%08d" % n for n in range(number, 300_000 + number))
        model.file(b"f%d" % number, content)
    check(begin, place, model)


def test_tree_order_requires_contents_at_any_time() -> None:
    sink = MemoryOutput(in_tree_order=True)
    with pytest.raises(ValueError, match="contents at any time"):
        feed(Model().root, sink, Model().layers)
    assert sink.order == []


def test_a_layer_that_cannot_be_read(begin: Begin[Sink], place: Path) -> None:
    """Its error comes through, and the sink is closed without being finished."""
    model = filled()

    def data(node: Node) -> Stream:
        if node.size > 1000:
            raise VerificationError("the digest is another one")
        return model.data(node)

    def files(nodes: Iterable[Node]) -> Iterator[tuple[Node, Stream]]:
        found = model.layers(nodes)
        yield next(found)
        raise VerificationError("the digest is another one")

    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(VerificationError), begin(place, None) as begun:
        feed(model.root, begun.output, files, data)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


# What a sink may rely on.


def paths(root: Directory) -> list[bytes]:
    """All paths, sorted by component, the root first."""
    found = [parent.path_of(name) for parent, name, _ in root.walk()]
    return [b".", *sorted(found, key=lambda path: path.split(b"/"))]


def test_the_order_of_the_tree() -> None:
    """A stream cannot go back: depth first, and `a/b` before `a.b`, as GNU tar wants it."""
    model = filled()
    for name in (b"a.b", b"a0", b"a-"):
        model.directory(name)
    sink = MemoryOutput(in_tree_order=True)
    feed(model.root, sink, model.layers, model.data)
    assert sink.order == paths(model.root)
    assert sink.order.index(b"a/s") < sink.order.index(b"a-")
    assert [parent.path_of(name) for parent, name, _ in depth_first(model.root)] == sink.order[1:]


def test_layer_order_reads_each_layer_once() -> None:
    """Contents are asked for all at once, each file once, and read in the order of the layers."""
    model = filled()
    asked: list[list[Node]] = []

    def files(nodes: Iterable[Node]) -> Iterator[tuple[Node, Stream]]:
        asked.append(list(nodes))
        return model.layers(asked[-1])

    sink = MemoryOutput(in_tree_order=False)
    feed(model.root, sink, files)
    assert len(asked) == 1
    assert len(asked[0]) == len(set(asked[0]))
    assert set(asked[0]) == set(model.contents)
    files_made = [path for path in sink.order if path in (b"z/first", b"a/z/f", b"empty")]
    assert files_made == [b"empty", b"a/z/f", b"z/first"], "as the layers hold them"
    assert sink.finished


def test_a_directory_is_there_before_what_is_in_it() -> None:
    for in_tree_order in (False, True):
        sink = MemoryOutput(in_tree_order=in_tree_order)
        model = filled()
        feed(model.root, sink, model.layers, model.data)
        assert sink.order[0] == b"."
        for path in sink.order[1:]:
            parent = path.rpartition(b"/")[0] or b"."
            assert sink.order.index(parent) < sink.order.index(path)
