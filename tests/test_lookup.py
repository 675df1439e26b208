"""Look-up of paths in the merged tree, and its bounds.

An entry's parent, a hard link's target, the path of a whiteout and the path that a user requests
are looked up by the same code, with the same bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

import ociroot
from ociroot.cli import command
from ociroot.limits import DEFAULTS, Limits

from .support.build import Layer, Member, archive, directory, file, link, symlink

Trees = Callable[..., ociroot.Tree]


@pytest.fixture
def tree(tmp_path: Path) -> Trees:
    def merge(*layers: Sequence[Member], limits: Limits = DEFAULTS) -> ociroot.Tree:
        path = archive(tmp_path / "image.tar", [Layer(layer, "gzip") for layer in layers])
        with ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source:
            return source.image().tree()

    return merge


def found(tree: ociroot.Tree, path: bytes, *, follow: bool = True) -> str | None:
    """Return the path of the node that `find` returns."""
    place = tree.find(path, follow=follow)
    if place is None:
        return None
    parent, name, node = place
    assert node is (parent.entries[name] if name else tree.root)
    return "/" + parent.path_of(name).decode()


SMALL = [
    directory(b"d"),
    directory(b"d/e"),
    file(b"d/e/f", b"1"),
    file(b"top"),
    symlink(b"abs", b"/d/e"),
    symlink(b"d/rel", b"e"),
    symlink(b"d/e/up", b"../.."),
    symlink(b"above", b"../../../top"),
    symlink(b"file", b"d/e/f"),
    symlink(b"dangling", b"d/nothing"),
    symlink(b"slash", b"d/e/"),
    symlink(b"two", b"abs/up/abs"),
    symlink(b"loop", b"loop"),
    symlink(b"ping", b"pong"),
    symlink(b"pong", b"/ping"),
]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (b"", "/"),
        (b"/", "/"),
        (b"..", "/"),
        (b"../../d", "/d"),
        (b"./d//e/.", "/d/e"),
        (b"d/../top", "/top"),
        (b"top/", "/top"),
        (b"abs", "/d/e"),
        (b"abs/f", "/d/e/f"),
        (b"abs/..", "/d"),
        (b"d/rel/f", "/d/e/f"),
        (b"d/e/up", "/"),
        (b"abs/up/top", "/top"),
        (b"above", "/top"),
        (b"file", "/d/e/f"),
        (b"slash/f", "/d/e/f"),
        (b"two/f", "/d/e/f"),
        (b"nothing", None),
        (b"d/nothing/..", None),
        (b"dangling", None),
        (b"top/x", None),
        (b"top/..", None),
        (b"file/x", None),
        (b"loop", None),
        (b"ping/x", None),
    ],
)
def test_find_is_what_a_process_in_the_root_sees(
    tree: Trees, path: bytes, where: str | None
) -> None:
    assert found(tree(SMALL), path) == where


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (b"abs", "/abs"),
        (b"abs/", "/abs"),
        (b"abs/.", "/abs"),
        (b"abs/rel", None),
        (b"d/rel", "/d/rel"),
        (b"abs/up", "/d/e/up"),
        (b"dangling", "/dangling"),
        (b"loop", "/loop"),
        (b"loop/x", None),
    ],
)
def test_find_leaves_the_last_link_alone(tree: Trees, path: bytes, where: str | None) -> None:
    assert found(tree(SMALL), path, follow=False) == where


# -- One path: the links on it, and the names when there are links ---------------------------------


def chain(length: int) -> list[Member]:
    """Return a directory with a file that is reached through this many links."""
    links = [symlink(b"l%d" % n, b"l%d" % (n - 1)) for n in range(1, length + 1)]
    return [directory(b"l0"), file(b"l0/f"), *links]


def test_find_follows_255_links(tree: Trees) -> None:
    merged = tree(chain(256))
    assert found(merged, b"l255/f") == "/l0/f"
    assert found(merged, b"l256/f") is None


def test_a_whiteout_is_looked_up_through_255_links(tree: Trees) -> None:
    """Beyond that the path does not exist; such a whiteout has no effect."""
    assert found(tree(chain(255), [file(b"l255/.wh.f")]), b"l0/f") is None
    assert found(tree(chain(256), [file(b"l256/.wh.f")]), b"l0/f") == "/l0/f"


def detours(names: int) -> list[Member]:
    """Return links to a file's directory whose look-up takes this many names."""
    # The link itself, the names in its target up to the other link, and the names in that target.
    first = names // 2
    second = names - first - 1
    one = b"d/.." + b"/" * (first - 2) + b"m"
    links = [symlink(b"l", one), symlink(b"m", b"./" * (second - 1) + b"d")]
    return [directory(b"d"), file(b"d/f"), *links]


USES: dict[str, list[Member]] = {
    "an entry": [file(b"l/x")],
    "a hard link": [link(b"h", b"l/f")],
    "a whiteout": [file(b"l/.wh.f")],
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("limits", "names"), [(Limits(depth=50), 50), (DEFAULTS, 4096)])
def test_names_on_one_way_through_links(tree: Trees, use: str, limits: Limits, names: int) -> None:
    assert tree(detours(names), USES[use], limits=limits).root.entries
    with pytest.raises(ociroot.LimitExceeded, match="--max-depth"):
        tree(detours(names + 1), USES[use], limits=limits)


@pytest.mark.parametrize(("limits", "names"), [(Limits(depth=50), 50), (DEFAULTS, 4096)])
def test_find_stops_at_as_many_names(tree: Trees, limits: Limits, names: int) -> None:
    assert found(tree(detours(names), limits=limits), b"l") == "/d"
    assert found(tree(detours(names + 1), limits=limits), b"l") is None


@pytest.mark.parametrize("target", [b"l/l", b"l/" * 2047 + b"l", b"x/../l", b"/l/./././l"])
def test_a_loop_that_grows_ends(tree: Trees, target: bytes) -> None:
    loop = [symlink(b"l", target), directory(b"x"), file(b"f")]
    assert found(tree(loop), b"l/f") is None
    for use in USES.values():
        merged = None
        try:
            merged = tree(loop, use)
        except (ociroot.MalformedImage, ociroot.LimitExceeded):
            continue
        assert use is USES["a whiteout"]
        assert set(merged.root.entries) == {b"l", b"x", b"f"}


# -- All paths together ----------------------------------------------------------------------------


STEPS = 4095
MANY = DEFAULTS.steps // STEPS + 1
ATTACKS: dict[str, list[Member]] = {
    "entries": [file(b"l/" + (b"x/f", b"y/f")[n % 2]) for n in range(MANY)],
    "hard links": [link(b"h%d" % n, b"l/f") for n in range(MANY)],
    "whiteouts": [file(b"l/.wh.%d" % n) for n in range(MANY)],
    "whiteouts behind an entry that goes through a link": [
        file(b"l/x"),
        *(file(b"l/.wh.%d" % n) for n in range(MANY)),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_steps_on_all_ways(tree: Trees, attack: str) -> None:
    """A few kilobytes would otherwise take minutes."""
    with pytest.raises(ociroot.LimitExceeded, match="--max-steps"):
        tree([*detours(STEPS), directory(b"d/x"), directory(b"d/y")], ATTACKS[attack])


def test_steps_of_all_layers_count(tree: Trees) -> None:
    layers = [[file(b"a/b/f")]] * 5
    assert tree(*layers, limits=Limits(steps=10)).root.entries
    with pytest.raises(ociroot.LimitExceeded, match="--max-steps"):
        tree(*layers, limits=Limits(steps=9))


def test_find_has_no_such_bound(tree: Trees) -> None:
    merged = tree([directory(b"a")], limits=Limits(steps=1))
    assert found(merged, b"a/../a/../a") == "/a"


# -- Patterns --------------------------------------------------------------------------------------


def listed(path: Path, *arguments: str) -> tuple[int, list[str], str]:
    done = CliRunner().invoke(command, ["ls", "-d", *arguments[1:], str(path), arguments[0]])
    assert done.exception is None or isinstance(done.exception, SystemExit | ociroot.OcirootError)
    code = getattr(done.exception, "exit_code", done.exit_code)
    return code, done.stdout.split(), str(done.exception)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*/f", ["abs/f", "slash/f", "two/f"]),
        ("/*/e", ["d/e"]),
        ("*/u*/f", ["abs/up/f", "slash/up/f", "two/up/f"]),
        ("d/*", ["d/e", "d/rel"]),
        ("d/*/../r*", ["d/e/../rel", "d/rel/../rel"]),
        ("d/*/", ["d/e", "d/rel"]),
        ("dang*", ["dangling"]),
        ("dang*/", []),
        ("lo*/*", []),
        ("[ad]*/up", ["abs/up"]),
        ("file/*", []),
    ],
)
def test_patterns_go_through_links(tmp_path: Path, pattern: str, paths: list[str]) -> None:
    path = archive(tmp_path / "image.tar", [[*SMALL, file(b"f")]])
    code, shown, _ = listed(path, pattern)
    assert (code, shown) == (0 if paths else 1, paths)


def test_a_pattern_sorts_as_paths_do(tmp_path: Path) -> None:
    members = [file(b"a/x"), file(b"a-b/x"), file(b"a.c/x"), file(b"ab/x")]
    path = archive(tmp_path / "image.tar", [members])
    assert listed(path, "*/x")[1] == ["a-b/x", "a.c/x", "a/x", "ab/x"]


def test_a_pattern_of_all_names_needs_no_limit(tmp_path: Path) -> None:
    """Without links there are as many paths as names."""
    path = archive(tmp_path / "image.tar", [[file(b"d/%d" % n) for n in range(100)]])
    code, shown, _ = listed(path, "*/*", "--max-steps=2")
    assert (code, len(shown)) == (0, 100)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["m*/f", "m*/", "*/*"])
def test_the_links_of_a_pattern_have_a_bound(tmp_path: Path, pattern: str) -> None:
    links = [symlink(b"m%d" % n, b"l") for n in range(MANY)]
    path = archive(tmp_path / "image.tar", [Layer([*detours(STEPS), *links], "gzip")])
    code, _, error = listed(path, pattern)
    assert (code, "--max-steps" in error) == (6, True)


@pytest.mark.parametrize("pattern", ["*/*", "*/m1", "*/../*", "*/*/*/*/*/*/*/*"])
def test_the_paths_of_a_pattern_have_a_bound(tmp_path: Path, pattern: str) -> None:
    """A hundred links to the root give ten thousand paths of two names, a million of three."""
    path = archive(tmp_path / "image.tar", [[symlink(b"m%d" % n, b"/") for n in range(100)]])
    code, _, error = listed(path, pattern, "--max-steps=2000")
    assert (code, "--max-steps" in error) == (6, True)


GLOBBED = [
    directory(b"d/.e", mode=0o755), file(b"d/.e/f.so"), file(b"d/f.so"), file(b".h"), file(b"z"),
    symlink(b"l", b"d"), symlink(b"m", b"d/f.so"), symlink(b"nothing", b"gone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "plain", "all_names", "at_any_depth"),
    [
        ("*", "d l m nothing z", ".h d l m nothing z", ".h d l m nothing z"),
        ("**/*.so", "d/f.so l/f.so", "d/f.so l/f.so", "d/.e/f.so d/f.so"),
        ("*/", "d l", "d l", "d l"),
        ("d/**", "d/f.so", "d/.e d/f.so", "d d/.e d/.e/f.so d/f.so"),
        ("m/", "", "", ""),
        ("/l/../.h", "l/../.h", "l/../.h", "l/../.h"),
    ],
)
def test_both_interfaces_have_the_same_patterns(
    tmp_path: Path, pattern: str, plain: str, all_names: str, at_any_depth: str
) -> None:
    path = archive(tmp_path / "image", [GLOBBED])
    with ociroot.open(path) as source, source.image().filesystem() as fs:
        merged = source.image().merged()

        def found(**flags: bool) -> list[str]:
            return [name.decode() for name, _ in merged.glob(pattern, **flags)]

        assert found() == plain.split()
        assert found(hidden=True) == all_names.split()
        assert found(hidden=True, recursive=True) == at_any_depth.split()
        assert sorted(fs.glob(pattern)) == ["/" + name for name in at_any_depth.split()]
        shown = [name for name in at_any_depth.split() if "/." not in f"/{name}".replace("/..", "")]
        if "/." not in pattern:
            assert found(recursive=True) == shown
