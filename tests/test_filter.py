"""Which paths are written: patterns of gitignore(5), exclusions before inclusions, parents."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from ociroot.errors import UsageError
from ociroot.rootfs.filter import PathFilter, pruned
from ociroot.rootfs.nodes import Directory, Node

from .support.needs import need_tools


def tree(paths: Iterable[bytes]) -> Directory:
    """A tree of these paths; one that ends with a slash is a directory."""
    root = Directory(None, b"", 0)
    for path in paths:
        at = root
        *above, last = path.rstrip(b"/").split(b"/")
        for name in above:
            at = _entered(at, name)
        if path.endswith(b"/"):
            _entered(at, last)
        else:
            at.entries[last] = Node("file", 0)
    return root


def _entered(directory: Directory, name: bytes) -> Directory:
    node = directory.entries.setdefault(name, Directory(directory, name, 0))
    assert isinstance(node, Directory)
    return node


def paths(root: Directory) -> set[bytes]:
    return {
        parent.path_of(name) + (b"/" if isinstance(node, Directory) else b"")
        for parent, name, node in root.walk()
    }


TREE = [
    *(b"etc/passwd", b"etc/ssl/certs/a.pem", b"usr/lib/libc.so.6", b"usr/lib/python3/x.py"),
    *(b"usr/lib/python3/x.pyc", b"usr/share/doc/bash/README", b"usr/share/doc/.hidden"),
    *(b"usr/share/man/", b"var/cache/", b"var/log/a.log", b"tmp/", b"a/b/c/d", b"a/b/a/b"),
]


def kept(excludes: list[bytes] = [], includes: list[bytes] = []) -> set[bytes]:  # noqa: B006
    return paths(pruned(tree(TREE), PathFilter(excludes=excludes, includes=includes)))


def test_without_patterns_everything_is_written() -> None:
    assert kept() == paths(tree(TREE))
    assert not PathFilter()
    assert PathFilter(excludes=[b"x"])
    assert PathFilter(subtree=b"etc")


def test_what_is_excluded_is_left_out_with_all_below_it() -> None:
    left = paths(tree(TREE)) - kept([b"/usr/share/doc", b"*.pyc"])
    assert left == {
        *(b"usr/share/doc/", b"usr/share/doc/bash/", b"usr/share/doc/bash/README"),
        *(b"usr/share/doc/.hidden", b"usr/lib/python3/x.pyc"),
    }


def test_what_is_included_brings_its_parents_and_all_below_it() -> None:
    assert kept(includes=[b"/usr/lib"]) == {
        *(b"usr/", b"usr/lib/", b"usr/lib/libc.so.6", b"usr/lib/python3/"),
        *(b"usr/lib/python3/x.py", b"usr/lib/python3/x.pyc"),
    }
    # Directories in which nothing is found are not written.
    assert kept(includes=[b"*.pem"]) == {
        b"etc/",
        b"etc/ssl/",
        b"etc/ssl/certs/",
        b"etc/ssl/certs/a.pem",
    }
    assert kept(includes=[b"nothing"]) == set()


def test_exclusions_take_precedence() -> None:
    assert kept([b"python3"], [b"/usr/lib"]) == {b"usr/", b"usr/lib/", b"usr/lib/libc.so.6"}
    assert kept([b"/usr"], [b"*.py"]) == set()
    assert kept([b"*.py", b"*.pyc"], [b"/usr/lib/python3/*"]) == set()
    assert kept([b"*.pyc"], [b"/usr/lib/python3/"]) == {
        *(b"usr/", b"usr/lib/", b"usr/lib/python3/", b"usr/lib/python3/x.py"),
    }


def test_a_directory_that_is_included_is_written_also_when_it_is_empty() -> None:
    assert kept(includes=[b"/var/cache/"]) == {b"var/", b"var/cache/"}
    assert kept([b"*.log"], [b"/var/log"]) == {b"var/", b"var/log/"}


def test_patterns_are_matched_from_the_root_of_the_image_in_a_subtree_too() -> None:
    root = tree(TREE)
    lib = root.entries[b"usr"].entries[b"lib"]  # type: ignore[attr-defined]
    made = pruned(
        lib, PathFilter(subtree=b"usr/lib", excludes=[b"/usr/lib/*.so.6", b"/python3/x.py"])
    )
    assert paths(made) == {b"python3/", b"python3/x.py", b"python3/x.pyc"}
    assert paths(pruned(lib, PathFilter(subtree=b"usr/lib", excludes=[b"/usr"]))) == set()


@pytest.mark.parametrize(
    "pattern", [b"", b"/", b"!x", b"a/../b", b"..", b"x\\", b"/".join([b"a"] * 101), b"./"]
)
def test_what_is_no_pattern_is_refused(pattern: bytes) -> None:
    with pytest.raises(UsageError):
        PathFilter(excludes=[pattern])


def test_there_may_be_a_thousand_patterns() -> None:
    PathFilter(excludes=[b"x"] * 500, includes=[b"y"] * 500)
    with pytest.raises(UsageError, match="more than 1000 patterns"):
        PathFilter(excludes=[b"x"] * 500, includes=[b"y"] * 501)


def test_names_that_are_no_text_are_matched() -> None:
    root = tree([b"\xff\xfe/ab", "ä".encode(), b"new\nline"])
    assert paths(pruned(root, PathFilter(excludes=[b"\xff?"]))) == {"ä".encode(), b"new\nline"}
    assert paths(pruned(root, PathFilter(excludes=[b"?"]))) == {
        b"\xff\xfe/", b"\xff\xfe/ab", b"new\nline",
    }  # fmt: skip
    assert b"new\nline" not in paths(pruned(root, PathFilter(excludes=[b"new*line"])))


def test_hostile_names_take_no_exponential_time() -> None:
    name = b"a" * 255
    root = tree([name, b"/".join([b"a"] * 300)])
    patterns = [b"*a" * 100 + b"b", b"/".join([b"**", b"a"] * 49) + b"/b", b"[!b]*" * 80 + b"b"]
    before = time.process_time()
    for pattern in patterns:
        pruned(root, PathFilter(excludes=[pattern]))
    assert time.process_time() - before < 20  # seconds; without bounds: years


NAMES = ["a", "b", "ab", "foo", ".x", "a-b", "foo.py"]
PIECES = [
    "a",
    "b",
    "*",
    "**",
    "?",
    "foo",
    "*.py",
    "[ab]",
    "[!a]",
    "[a-f]*",
    "a*",
    "*b",
    ".*",
    "\\a",
]


def test_exclusions_are_those_of_git(tmp_path: Path) -> None:
    """Random patterns and trees, held against `git check-ignore`."""
    need_tools("git")
    rng = random.Random(11)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", "init", "-q", tmp_path], check=True, env=environment)
    for _ in range(60):
        patterns = []
        for _ in range(rng.randint(1, 3)):
            body = "/".join(rng.choice(PIECES) for _ in range(rng.randint(1, 4)))
            patterns.append(rng.choice(["", "", "/"]) + body + rng.choice(["", "", "/"]))
        chosen = {"/".join(rng.choice(NAMES) for _ in range(rng.randint(1, 5))) for _ in range(25)}
        # A path is a file here and a directory there only by what is below it.
        root = tree(sorted((path.encode() + b"/" for path in chosen), key=len))
        files = {path for path in paths(root) if not _below(root, path)}
        (tmp_path / ".gitignore").write_text("\n".join(patterns) + "\n")
        for path in files:
            (tmp_path / path.decode()).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.decode().rstrip("/")).mkdir(exist_ok=True)
        everything = sorted(path.rstrip(b"/") for path in paths(root))
        said = subprocess.run(
            ["git", "-C", tmp_path, "check-ignore", "--no-index", "-z", "--stdin"],
            input=b"\0".join(everything),
            stdout=subprocess.PIPE,
            env=environment,
        ).stdout
        ignored = {path for path in said.split(b"\0") if path}
        used = PathFilter(excludes=[pattern.encode() for pattern in patterns])
        left = {path.rstrip(b"/") for path in paths(pruned(root, used))}
        assert set(everything) - left == ignored, patterns


def _below(root: Directory, path: bytes) -> bool:
    at: Node = root
    for name in path.rstrip(b"/").split(b"/"):
        assert isinstance(at, Directory)
        at = at.entries[name]
    return isinstance(at, Directory) and bool(at.entries)


def test_a_file_is_no_directory() -> None:
    root = tree([b"a/x/", b"b/x", b"c/x/x"])
    assert paths(pruned(root, PathFilter(excludes=[b"x/"]))) == {b"a/", b"b/", b"b/x", b"c/"}
    assert paths(pruned(root, PathFilter(includes=[b"x/"]))) == {
        b"a/",
        b"a/x/",
        b"c/",
        b"c/x/",
        b"c/x/x",
    }
