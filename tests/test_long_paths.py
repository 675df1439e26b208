"""An image of a few kilobytes can have paths of a megabyte each: no command keeps all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .support.build import Layer, Member, archive
from .support.peak import measured
from .test_look import good, run

MEGABYTE = 1_000_000
NAME = b"d" * 250
# A link target has at most 4095 bytes, and at most 255 links are followed on one path.
STEP = b"/".join([NAME] * 15)
STEPS = 120


def deep(files: int, content: bytes = b"") -> list[Member]:
    """Return files with paths of half a megabyte each, which links make short to write."""
    members = [Member(STEP, "dir"), Member(b"l0", "symlink", target=STEP)]
    for number in range(1, STEPS):
        way = b"l%d/" % (number - 1) + STEP
        members += [Member(way, "dir"), Member(b"l%d" % number, "symlink", target=way)]
    last = b"l%d/" % (STEPS - 1)
    return members + [Member(last + b"f%d" % n, data=content) for n in range(files)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = archive(tmp_path_factory.mktemp("deep") / "image", [Layer(deep(400, b"x"), "gzip")])
    assert path.stat().st_size < 100_000
    return path


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("empty") / "image", [[]])


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "-R"),
        ("ls", "-R", "--json"),
        ("tree", "--largest", "400"),
        ("tree", "--largest", "400", "--json"),
        ("diff",),
        ("diff", "--json"),
        ("diff", "--name-only"),
        ("find-layer",),
        ("find-layer", "--json"),
    ],
    ids=" ".join,
)
def test_what_is_listed_is_not_held(image: Path, empty: Path, command: tuple[str, ...]) -> None:
    images = [empty, image] if command[0] == "diff" else [image]
    result = measured(*command, *images)
    assert (result.code, result.err) == (int(command[0] == "diff"), "")
    # The paths of the files alone have 180 MB, and those of the directories 400 MB.
    assert result.peak < 120 * MEGABYTE


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_the_bytes_of_listed_paths_have_a_limit(
    image: Path, empty: Path, as_json: tuple[str, ...]
) -> None:
    commands: dict[str, list[str | Path]] = {
        "ls": ["-R"],
        "diff": [empty],
        "tree": ["--depth=0", "--largest=400"],
    }
    for command, arguments in commands.items():
        refused = run(command, *as_json, *arguments, image, "--max-listing=100M")
        assert refused.code == 6
        assert "--max-listing raises the limit" in refused.err
        assert len(refused.out) < 120 * MEGABYTE


@pytest.mark.slow
def test_what_is_listed_again_and_again_has_a_limit(tmp_path: Path) -> None:
    """A few bytes of links cause many listings of one directory."""
    members = [Member(b"d/%d" % n) for n in range(1000)]
    members += [Member(b"l%d" % n, "symlink", target=b"d") for n in range(100)]
    path = archive(tmp_path / "image", [Layer(members, "gzip")])
    for options in ([], ["-R"], ["--json"]):
        refused = run("ls", *options, "--max-steps=1000000", path, "/l*/")
        assert refused.code == 6
        assert "--max-steps raises the limit" in refused.err
        good("ls", *options, "--max-steps=2100000", path, "/l*/")
        good("ls", *options, "--max-steps=100", path, "/", "/l1")


def test_an_array_is_printed_element_by_element_as_if_it_were_whole(tmp_path: Path) -> None:
    members = [Member(b"a"), Member(b"b/c", "symlink", target=b"\xff")]
    path = archive(tmp_path / "image", [members])
    for command in (("ls", "-R", path), ("ls", path, "/b"), ("tree", path)):
        text = good(*command, "--json").text
        assert text == json.dumps(json.loads(text), indent=2) + "\n"
    text = run("diff", "--json", path, archive(tmp_path / "empty", [[]])).text
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
    assert good("ls", "--json", archive(tmp_path / "empty", [[]])).text == "[]\n"
