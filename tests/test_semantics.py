"""One small test for each decision about applying layers: whiteouts, names, links, replacement.

The order is that of the table of decisions in the design. Each test is a stack of layers and its
result; `look` describes a tree by one short text per path.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import ociroot
from tests.support.build import (
    DEFAULT_MTIME,
    Layer,
    Member,
    archive,
    directory,
    file,
    link,
    seconds,
    symlink,
)
from tests.support.model import expected
from tests.support.snapshot import Record, differences, snapshot

OPAQUE = b".wh..wh..opq"
SECOND = 10**9


@dataclass(frozen=True)
class Result:
    """The result of an extraction."""

    look: dict[str, str]
    records: dict[bytes, Record]
    warnings: dict[str, int]

    def attributes(self, path: bytes) -> tuple[str, int, int, int, int]:
        """Return kind, mode, owner, group and mtime in nanoseconds."""
        record = self.records[path]
        return record.kind, record.mode, record.uid, record.gid, record.mtime_ns


Extract = Callable[..., Result]
IMPLIED = ("dir", 0o755, 0, 0, 0)


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Return a function that extracts a stack of layers; a refusal must leave nothing."""

    def run(*layers: list[Member], strict: bool = False) -> Result:
        where = Path(tempfile.mkdtemp(dir=tmp_path))
        image, rootfs = archive(where / "image", layers), where / "rootfs"
        try:
            with ociroot.open(image) as source:
                report = source.image().extract(rootfs, ociroot.ExtractOptions(strict=strict))
        except ociroot.OcirootError:
            assert list(where.iterdir()) == [image]
            raise
        records = snapshot(rootfs)
        warnings = {warning.code: warning.count for warning in report.warnings}
        if os.geteuid() != 0:
            # Owners are not kept then; the tests of owners need root.
            records = {path: replace(it, uid=0, gid=0) for path, it in records.items()}
            warnings.pop("owners", None)
        return Result(
            {
                os.fsdecode(path): _text(rootfs, path, records[path])
                for path in records
                if path != b"."
            },
            records,
            warnings,
        )

    return run


def _text(rootfs: Path, path: bytes, record: Record) -> str:
    if record.kind == "file":
        return (rootfs / os.fsdecode(path)).read_bytes().decode()
    if record.kind == "symlink":
        return "-> " + os.fsdecode(record.target or b"")
    return record.kind


def refused(extract: Extract, *layers: list[Member], says: str = ".") -> None:
    with pytest.raises(ociroot.MalformedImage, match=says):
        extract(*layers)


# -- Whiteouts apply to lower layers only, whatever their place in the layer -----------------------


def test_a_whiteout_hides_a_file_below(extract: Extract) -> None:
    assert extract([file(b"a"), file(b"ab", b"2")], [file(b".wh.a")]).look == {"ab": "2"}


def test_a_whiteout_hides_a_directory_with_all_in_it(extract: Extract) -> None:
    lower = [directory(b"d"), directory(b"d/e"), file(b"d/e/f"), symlink(b"d/s", b"e")]
    assert extract(lower, [file(b".wh.d")]).look == {}


def test_a_whiteout_hides_a_symbolic_link_and_not_its_target(extract: Extract) -> None:
    lower = [file(b"d/f", b"1"), symlink(b"s", b"d")]
    assert extract(lower, [file(b".wh.s")]).look == {"d": "dir", "d/f": "1"}


def test_a_whiteout_hides_one_name_of_a_hard_link(extract: Extract) -> None:
    result = extract([file(b"a", b"1"), link(b"b", b"a")], [file(b".wh.a")])
    assert result.look == {"b": "1"}
    assert result.records[b"b"].links == (b"b",)


def test_a_whiteout_hides_what_several_layers_brought(extract: Extract) -> None:
    assert extract([file(b"d/a")], [file(b"d/b")], [file(b".wh.d")]).look == {}


def test_a_layer_above_can_bring_back_what_was_hidden(extract: Extract) -> None:
    layers = [file(b"d/a", b"1")], [file(b".wh.d")], [file(b"d/b", b"3")]
    assert extract(*layers).look == {"d": "dir", "d/b": "3"}


@pytest.mark.parametrize("late", [False, True])
def test_a_whiteout_never_hides_a_file_of_its_own_layer(extract: Extract, late: bool) -> None:
    upper = [file(b".wh.a"), file(b"a", b"new")]
    result = extract([file(b"a", b"old")], upper[::-1] if late else upper)
    assert result.look == {"a": "new"}
    assert result.warnings == {}


@pytest.mark.parametrize("late", [False, True])
def test_a_whiteout_empties_a_directory_that_its_layer_brings_anew(
    extract: Extract, late: bool
) -> None:
    upper = [file(b".wh.d"), directory(b"d", mode=0o700), file(b"d/new", b"2")]
    result = extract([directory(b"d", mode=0o711), file(b"d/old")], upper[::-1] if late else upper)
    assert result.look == {"d": "dir", "d/new": "2"}
    assert result.records[b"d"].mode == 0o700


@pytest.mark.parametrize("late", [False, True])
def test_a_whiteout_of_an_implied_directory_forgets_its_attributes(
    extract: Extract, late: bool
) -> None:
    lower = [directory(b"d", mode=0o700, mtime=7), directory(b"d/e", mode=0o700), file(b"d/e/old")]
    upper = [file(b".wh.d"), file(b"d/e/new", b"2")]
    result = extract(lower, upper[::-1] if late else upper)
    assert result.look == {"d": "dir", "d/e": "dir", "d/e/new": "2"}
    assert result.attributes(b"d") == result.attributes(b"d/e") == IMPLIED


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("own_entry", [False, True])
def test_an_opaque_whiteout_hides_the_siblings_below_and_no_others(
    extract: Extract, late: bool, own_entry: bool
) -> None:
    lower = [directory(b"d", mode=0o711), file(b"d/old"), file(b"d/e/old"), file(b"f", b"1")]
    upper = [file(b"d/" + OPAQUE), file(b"d/new", b"2"), file(b"d/e/new", b"2")]
    if late:
        upper.reverse()
    if own_entry:
        upper.insert(0, directory(b"d", mode=0o700))
    result = extract(lower, upper)
    assert result.look == {"d": "dir", "d/e": "dir", "d/e/new": "2", "d/new": "2", "f": "1"}
    # The directory itself is not a sibling: without an entry it is unchanged.
    assert result.records[b"d"].mode == (0o700 if own_entry else 0o711)
    assert result.attributes(b"d/e") == IMPLIED


@pytest.mark.parametrize("late", [False, True])
def test_an_opaque_whiteout_of_the_root(extract: Extract, late: bool) -> None:
    upper = [file(OPAQUE), file(b"new", b"2")]
    assert extract([file(b"d/old")], upper[::-1] if late else upper).look == {"new": "2"}


@pytest.mark.parametrize("late", [False, True])
def test_an_opaque_whiteout_spares_the_links_that_its_layer_brings(
    extract: Extract, late: bool
) -> None:
    upper = [file(b"d/" + OPAQUE), link(b"d/b", b"keep")]
    lower = [file(b"keep", b"1"), link(b"d/a", b"keep")]
    result = extract(lower, upper[::-1] if late else upper)
    assert result.look == {"d": "dir", "d/b": "1", "keep": "1"}
    assert result.records[b"keep"].links == (b"d/b", b"keep")


@pytest.mark.parametrize("late", [False, True])
def test_a_layer_never_goes_through_a_link_that_it_hides(extract: Extract, late: bool) -> None:
    upper = [file(b".wh.s"), file(b"s/new", b"2")]
    lower = [directory(b"d"), symlink(b"s", b"d")]
    result = extract(lower, upper[::-1] if late else upper)
    assert result.look == {"d": "dir", "s": "dir", "s/new": "2"}
    assert result.attributes(b"s") == IMPLIED


@pytest.mark.parametrize("late", [False, True])
def test_a_layer_never_goes_through_a_link_that_it_hides_and_replaces(
    extract: Extract, late: bool
) -> None:
    upper = [file(b".wh.s"), directory(b"s/s")]
    result = extract([symlink(b"s", b".")], upper[::-1] if late else upper)
    assert result.look == {"s": "dir", "s/s": "dir"}


@pytest.mark.parametrize("late", [False, True])
def test_a_layer_never_stumbles_over_a_file_that_it_hides(extract: Extract, late: bool) -> None:
    upper = [file(b".wh.a"), file(b"a/new", b"2")]
    result = extract([file(b"a", b"1")], upper[::-1] if late else upper)
    assert result.look == {"a": "dir", "a/new": "2"}


@pytest.mark.parametrize("late", [False, True])
def test_a_layer_never_links_to_a_file_that_it_hides(extract: Extract, late: bool) -> None:
    upper = [file(b".wh.a"), link(b"b", b"a")]
    refused(extract, [file(b"a", b"1")], upper[::-1] if late else upper, says="not exist")


@pytest.mark.parametrize("late", [False, True])
def test_a_whiteout_through_a_link_of_its_layer_is_one_of_nothing(
    tmp_path: Path, late: bool
) -> None:
    """The lower layers have no such link, which is known without reading them again."""
    upper = [symlink(b"l", b"d"), file(b"l/.wh.f")]
    image = archive(tmp_path / "image", [[file(b"d/f")], upper if late else upper[::-1]])
    begun: list[ociroot.NoOperations] = []

    def begin() -> ociroot.NoOperations:
        begun.append(ociroot.NoOperations())
        return begun[-1]

    with ociroot.open(image) as source:
        merged = source.image().merged(operations=begin)
    assert merged.tree.find(b"d/f") is not None
    assert len(begun) == 1


@pytest.mark.parametrize("late", [False, True])
def test_the_order_of_whiteouts_does_not_matter(extract: Extract, late: bool) -> None:
    # Both refer to the lower tree, in which the path of the second one still exists.
    upper = [file(b"s/.wh.f"), file(b".wh.s")]
    lower = [file(b"d/f"), symlink(b"s", b"d")]
    assert extract(lower, upper[::-1] if late else upper).look == {"d": "dir"}


# -- Type and content of a whiteout ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "link", "char", "block", "fifo"])
def test_a_whiteout_is_one_by_name_of_whatever_type(extract: Extract, kind: str) -> None:
    whiteout = Member(b".wh.a", kind, target=b"nowhere")  # type: ignore[arg-type]
    assert extract([file(b"a")], [whiteout]).look == {}


@pytest.mark.parametrize("kind", ["dir", "symlink", "link", "char"])
def test_an_opaque_whiteout_is_one_by_name_of_whatever_type(extract: Extract, kind: str) -> None:
    whiteout = Member(b"d/" + OPAQUE, kind, target=b"nowhere")  # type: ignore[arg-type]
    assert extract([file(b"d/a")], [whiteout]).look == {"d": "dir"}


def test_the_content_of_a_whiteout_is_ignored(extract: Extract) -> None:
    upper = [file(b".wh.a", b"x" * 1000), file(b"b", b"2")]
    assert extract([file(b"a")], upper).look == {"b": "2"}


def test_what_lies_below_a_whiteout_is_ignored(extract: Extract) -> None:
    upper = [directory(b".wh.a"), file(b".wh.a/f"), file(b".wh.a/.wh.b"), file(b"d/.wh.x/.wh.")]
    result = extract([file(b"a"), file(b"b", b"1")], upper)
    assert result.look == {"b": "1"}
    assert result.warnings == {"below-whiteout": 3}


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"d/.wh.", b"./.wh.."])
def test_a_whiteout_of_nothing_is_refused(extract: Extract, name: bytes) -> None:
    refused(extract, [file(b"d/a")], [file(name)], says="whiteout")


def test_other_aufs_names_are_skipped_with_all_below(extract: Extract) -> None:
    upper = [
        directory(b".wh..wh.plnk"),
        file(b".wh..wh.plnk/12.34"),
        file(b".wh..wh.aufs"),
        file(b"d/.wh..wh.orph/.wh.f"),
        file(b"d/.wh..wh..opq.not"),
    ]
    assert extract([file(b"d/f", b"1")], upper).look == {"d": "dir", "d/f": "1"}


def test_whiteouts_are_not_files(extract: Extract) -> None:
    assert extract([file(b".wh.a"), file(b"d/" + OPAQUE), file(b"b", b"1")]).look == {"b": "1"}


@pytest.mark.parametrize("name", [b".wh.x", b"new/.wh.x", b"f/.wh.x", b"loop/.wh.x", b"s/.wh.x"])
def test_a_whiteout_of_what_does_not_exist_has_no_effect(extract: Extract, name: bytes) -> None:
    lower = [file(b"f", b"1"), symlink(b"loop", b"loop"), symlink(b"s", b"gone")]
    result = extract(lower, [file(name)])
    assert result.look == {"f": "1", "loop": "-> loop", "s": "-> gone"}


@pytest.mark.parametrize("where", [b"new", b"f", b"loop", b"s", b"s/d"])
def test_an_opaque_whiteout_of_what_does_not_exist_has_no_effect(
    extract: Extract, where: bytes
) -> None:
    lower = [file(b"f", b"1"), symlink(b"loop", b"loop"), symlink(b"s", b"gone")]
    result = extract(lower, [file(where + b"/" + OPAQUE)])
    assert result.look == {"f": "1", "loop": "-> loop", "s": "-> gone"}


@pytest.mark.parametrize("late", [False, True])
def test_an_opaque_whiteout_over_a_link_never_touches_its_target(
    extract: Extract, late: bool
) -> None:
    upper = [file(b"s/" + OPAQUE), directory(b"s"), file(b"s/new", b"2")]
    lower = [file(b"d/f", b"1"), symlink(b"s", b"d")]
    result = extract(lower, [*upper[1:], upper[0]] if late else upper)
    assert result.look == {"d": "dir", "d/f": "1", "s": "dir", "s/new": "2"}


def test_an_opaque_whiteout_over_a_link_that_stays(extract: Extract) -> None:
    lower = [file(b"d/f", b"1"), symlink(b"s", b"d")]
    result = extract(lower, [file(b"s/" + OPAQUE)])
    assert result.look == {"d": "dir", "d/f": "1", "s": "-> d"}


def test_whiteouts_go_through_links_in_their_parents(extract: Extract) -> None:
    lower = [file(b"d/f"), file(b"d/e/g"), symlink(b"s", b"/d")]
    result = extract(lower, [file(b"s/.wh.f"), file(b"s/e/" + OPAQUE)])
    assert result.look == {"d": "dir", "d/e": "dir", "s": "-> /d"}


@pytest.mark.parametrize("name", [b"./.wh.a", b"/.wh.a", b"../.wh.a", b"b/../.wh.a", b".//.wh.a/"])
def test_names_of_whiteouts_are_cleaned_as_all_names_are(extract: Extract, name: bytes) -> None:
    assert extract([file(b"a"), file(b"b", b"1")], [file(name)]).look == {"b": "1"}


# -- Directory over directory ----------------------------------------------------------------------


@pytest.mark.root
def test_a_directory_over_a_directory_merges_and_replaces_all_attributes(extract: Extract) -> None:
    old = directory(b"d", mode=0o1777, uid=1, gid=2, mtime=3, xattrs={b"user.a": b"1"})
    new = directory(b"d", mode=0o750, uid=4, gid=5, mtime=6, xattrs={b"user.b": b"2"})
    result = extract([old, file(b"d/a", b"1")], [new, file(b"d/b", b"2")])
    assert result.look == {"d": "dir", "d/a": "1", "d/b": "2"}
    assert result.attributes(b"d") == ("dir", 0o750, 4, 5, 6 * SECOND)
    assert result.records[b"d"].xattrs == {b"user.b": b"2"}


def test_a_directory_over_a_directory_takes_extended_attributes_away(extract: Extract) -> None:
    result = extract([directory(b"d", xattrs={b"user.a": b"1"})], [directory(b"d")])
    assert result.records[b"d"].xattrs == {}


def test_a_directory_keeps_its_mtime_whatever_comes_into_it(extract: Extract) -> None:
    lower = [directory(b"d", mtime=seconds(5_000_000_007)), file(b"d/a"), file(b"d/b")]
    result = extract(lower, [file(b"d/.wh.a"), file(b"d/new")], [file(b"d/b", b"3")])
    assert result.records[b"d"].mtime_ns == 5_000_000_007


def test_an_entry_may_come_after_what_is_in_its_directory(extract: Extract) -> None:
    result = extract([file(b"d/a", b"1"), directory(b"d", mode=0o700, mtime=5)])
    assert result.look == {"d": "dir", "d/a": "1"}
    assert result.attributes(b"d")[1:] == (0o700, 0, 0, 5 * SECOND)
    assert result.warnings == {}


# -- Anything else over anything -------------------------------------------------------------------

THINGS: dict[str, Member] = {
    "file": file(b"x", b"it"),
    "dir": directory(b"x"),
    "symlink": symlink(b"x", b"t"),
    "link": link(b"x", b"t/f"),
    "fifo": Member(b"x", "fifo"),
}
LOOKS = {"file": "it", "dir": "dir", "symlink": "-> t", "link": "1", "fifo": "fifo"}


@pytest.mark.parametrize("upper", THINGS)
@pytest.mark.parametrize("lower", THINGS)
def test_any_type_replaces_any_other(extract: Extract, lower: str, upper: str) -> None:
    below = [file(b"t/f", b"1"), THINGS[lower]]
    if lower == "dir":
        below += [file(b"x/deep/er"), symlink(b"x/s", b"../t")]
    result = extract(below, [THINGS[upper]])
    kept = {"x/deep": "dir", "x/deep/er": "", "x/s": "-> ../t"} if lower == upper == "dir" else {}
    assert result.look == {"t": "dir", "t/f": "1", "x": LOOKS[upper], **kept}
    assert result.records[b"t/f"].links == ((b"t/f", b"x") if upper == "link" else (b"t/f",))


@pytest.mark.root
def test_devices_replace_and_are_replaced(extract: Extract) -> None:
    lower = [Member(b"a", "char", rdev=(1, 3)), file(b"b"), directory(b"c"), file(b"c/f")]
    upper = [file(b"a", b"2"), Member(b"b", "block", rdev=(7, 1)), Member(b"c", "char")]
    result = extract(lower, upper)
    assert result.look == {"a": "2", "b": "block", "c": "char"}
    assert (result.records[b"b"].rdev, result.records[b"c"].rdev) == ((7, 1), (0, 0))


def test_a_file_over_a_link_leaves_the_target_alone(extract: Extract) -> None:
    result = extract([file(b"t", b"1"), symlink(b"s", b"t")], [file(b"s", b"2")])
    assert result.look == {"s": "2", "t": "1"}


def test_a_file_over_a_hard_link_leaves_the_other_name_alone(extract: Extract) -> None:
    result = extract([file(b"a", b"1", mode=0o600), link(b"b", b"a")], [file(b"a", b"2")])
    assert result.look == {"a": "2", "b": "1"}
    assert result.records[b"b"].links == (b"b",)
    assert result.records[b"b"].mode == 0o600


def test_a_directory_replaces_a_link_to_one(extract: Extract) -> None:
    lower = [file(b"t/f", b"1"), symlink(b"s", b"t")]
    result = extract(lower, [directory(b"s"), file(b"s/g", b"2")])
    assert result.look == {"s": "dir", "s/g": "2", "t": "dir", "t/f": "1"}


def test_a_link_on_the_way_to_where_it_lies_is_replaced(extract: Extract) -> None:
    """The look-up of the last entry's parent is outdated after that."""
    before = [directory(b"d"), symlink(b"d/l", b"/d"), file(b"d/l/x", b"1")]
    result = extract([*before, directory(b"d/l/l"), file(b"d/l/y", b"2")])
    assert result.look == {"d": "dir", "d/x": "1", "d/l": "dir", "d/l/y": "2"}


def test_a_link_replaces_a_directory_and_is_followed_then(extract: Extract) -> None:
    lower = [directory(b"t"), file(b"d/old")]
    result = extract(lower, [symlink(b"d", b"t"), file(b"d/new", b"2")])
    assert result.look == {"d": "-> t", "t": "dir", "t/new": "2"}


def test_a_replaced_directory_takes_its_attributes_with_it(extract: Extract) -> None:
    lower = [directory(b"d", mode=0o700, mtime=9, xattrs={b"user.a": b"1"})]
    result = extract(lower, [file(b"d", b"2")], [file(b".wh.d"), file(b"d/f", b"3")])
    assert result.attributes(b"d") == IMPLIED
    assert result.records[b"d"].xattrs == {}


# -- The root's entry ------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("name", [b".", b"./", b"/", b"..", b"a/..", b"//."])
def test_a_root_entry_describes_the_root(extract: Extract, name: bytes) -> None:
    entry = directory(name, mode=0o1750, uid=3, gid=4, mtime=seconds(-5), xattrs={b"user.r": b"1"})
    result = extract([file(b"a", b"1")], [entry])
    assert result.look == {"a": "1"}
    assert result.attributes(b".") == ("dir", 0o1750, 3, 4, -5)
    assert result.records[b"."].xattrs == {b"user.r": b"1"}


def test_a_root_without_an_entry(extract: Extract) -> None:
    assert extract([file(b"a")]).attributes(b".") == IMPLIED


def test_an_image_without_layers_is_an_empty_root(extract: Extract) -> None:
    result = extract()
    assert result.look == {}
    assert result.attributes(b".") == IMPLIED


@pytest.mark.parametrize("name", [b".", b"/", b"a/.."])
@pytest.mark.parametrize("kind", ["file", "symlink", "link", "char", "fifo"])
def test_a_root_of_another_type_is_refused(extract: Extract, name: bytes, kind: str) -> None:
    root = Member(name, kind, target=b"a")  # type: ignore[arg-type]
    refused(extract, [file(b"a")], [root], says="root")


# -- Names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"d/f",
        b"./d/f",
        b"/d/f",
        b"//d//f",
        b"d/./f",
        b"../../d/f",
        b"/../d/f",
        b"d/e/../f",
        b"x/../d/f",
    ],
)
def test_names_are_cleaned_and_clamped_at_the_root(extract: Extract, name: bytes) -> None:
    assert extract([file(name, b"1")]).look == {"d": "dir", "d/f": "1"}


def test_dots_in_names_are_undone_before_links_are_followed(extract: Extract) -> None:
    layer = [directory(b"d"), directory(b"d/e"), symlink(b"s", b"d/e"), file(b"s/../f", b"1")]
    assert extract(layer).look == {"d": "dir", "d/e": "dir", "f": "1", "s": "-> d/e"}


def test_an_empty_name_is_refused(extract: Extract) -> None:
    refused(extract, [file(b"", b"1")], says="empty name")


def test_names_are_bytes(extract: Extract) -> None:
    names = [b"\xff\xfe", "é".encode(), b"new\nline", b"back\\slash", b" ", b"-rf", b"...", b"*"]
    names += [b"x" * 255, b"\x1b[31m", b".whx", b"a.wh.b"]
    result = extract([file(name, b"1") for name in names])
    assert result.look == {os.fsdecode(name): "1" for name in names}


# -- A parent that is a symbolic link, missing, or a file ------------------------------------------


@pytest.mark.parametrize("target", [b"d", b"/d", b"./d/", b"../../d", b"/../d", b"e/../d", b"l2"])
@pytest.mark.parametrize("across", [False, True])
def test_links_in_parents_are_followed_inside_the_root(
    extract: Extract, target: bytes, across: bool
) -> None:
    lower = [directory(b"d"), directory(b"e"), symlink(b"l2", b"l1"), symlink(b"l1", b"/d")]
    lower.append(symlink(b"s", target))
    upper = [file(b"s/f", b"1")]
    result = extract(lower, upper) if across else extract(lower + upper)
    assert result.look["d/f"] == "1"
    assert result.look["s"] == "-> " + target.decode()


def test_absolute_and_relative_links_below_the_root(extract: Extract) -> None:
    """An absolute target begins at the root, a relative one beside the link."""
    links = [symlink(b"d/abs", b"/t"), symlink(b"d/rel", b"t")]
    look = extract(links, [file(b"d/abs/x", b"1"), file(b"d/rel/y", b"2")]).look
    assert {path for path in look if "/x" in path or "/y" in path} == {"t/x", "d/t/y"}


def test_dots_in_link_targets_are_undone_on_the_way(extract: Extract) -> None:
    # As in the kernel: from the target of the link, not lexically.
    layer = [directory(b"d"), directory(b"d/e"), symlink(b"s", b"d/e"), symlink(b"t", b"s/..")]
    result = extract([*layer, file(b"t/f", b"1")])
    assert result.look["d/f"] == "1"


def test_missing_parents_are_made(extract: Extract) -> None:
    result = extract([file(b"a/b/f", b"1", mode=0o600, mtime=9)])
    assert result.attributes(b"a") == result.attributes(b"a/b") == IMPLIED


def test_the_target_of_a_dangling_link_is_made(extract: Extract) -> None:
    result = extract([symlink(b"s", b"../x/y"), file(b"s/f", b"1")])
    assert result.look == {"s": "-> ../x/y", "x": "dir", "x/y": "dir", "x/y/f": "1"}
    assert result.attributes(b"x") == result.attributes(b"x/y") == IMPLIED


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("kind", ["file", "fifo", "link", "symlink"])
def test_a_parent_that_is_no_directory_is_refused(
    extract: Extract, kind: str, across: bool
) -> None:
    lower = [file(b"f", b"1"), Member(b"p", kind, target=b"f")]  # type: ignore[arg-type]
    upper = [file(b"p/x", b"2")]
    refused(extract, *([lower, upper] if across else [lower + upper]), says="parent")


def chain(length: int) -> list[Member]:
    """Return a directory that is reached through this many links."""
    links = [symlink(b"l%d" % n, b"l%d" % (n - 1)) for n in range(1, length + 1)]
    return [directory(b"l0"), *links]


def test_255_links_are_followed(extract: Extract) -> None:
    assert extract([*chain(255), file(b"l255/f", b"1")]).look["l0/f"] == "1"


def test_256_links_are_refused(extract: Extract) -> None:
    refused(extract, [*chain(256), file(b"l256/f", b"1")], says="255")


@pytest.mark.parametrize(
    "loop",
    [[symlink(b"l", b"l")], [symlink(b"l", b"m"), symlink(b"m", b"/l")], [symlink(b"l", b"l/l")]],
)
def test_a_loop_is_kept_and_not_gone_through(extract: Extract, loop: list[Member]) -> None:
    assert set(extract(loop).look) == {member.name.decode() for member in loop}


@pytest.mark.parametrize("target", [b"l", b"l/l", b"l/.", b"x/../l"])
def test_a_parent_that_is_a_loop_is_refused(extract: Extract, target: bytes) -> None:
    refused(extract, [symlink(b"l", target), file(b"l/f")], says="255")


# -- Hard links ------------------------------------------------------------------------------------


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("target", [b"d/f", b"/d/f", b"./d/f", b"../d/f", b"s/f", b"d/x/../f"])
def test_a_hard_link_is_to_the_inode_of_the_target(
    extract: Extract, target: bytes, across: bool
) -> None:
    lower = [file(b"d/f", b"1"), symlink(b"s", b"/d")]
    upper = [link(b"l", target)]
    result = extract(lower, upper) if across else extract(lower + upper)
    assert result.look["l"] == "1"
    assert result.records[b"l"].links == (b"d/f", b"l")


@pytest.mark.root
def test_a_hard_link_has_the_attributes_of_its_target(extract: Extract) -> None:
    target = file(b"a", b"1", mode=0o4711, uid=1, gid=2, mtime=3, xattrs={b"user.a": b"1"})
    other = link(b"b", b"a", mode=0o600, uid=7, gid=8, mtime=9, xattrs={b"user.b": b"2"})
    result = extract([target, other])
    assert result.attributes(b"a") == result.attributes(b"b") == ("file", 0o4711, 1, 2, 3 * SECOND)
    assert result.records[b"b"].xattrs == {b"user.a": b"1"}


def test_a_hard_link_to_a_link_is_to_the_link_itself(extract: Extract) -> None:
    result = extract([file(b"f", b"1"), symlink(b"s", b"f"), link(b"l", b"s")])
    assert result.look == {"f": "1", "l": "-> f", "s": "-> f"}
    assert result.records[b"l"].links == (b"l", b"s")


def test_hard_links_to_fifos(extract: Extract) -> None:
    result = extract([Member(b"p", "fifo", mode=0o600)], [link(b"l", b"p")])
    assert result.records[b"l"].kind == "fifo"
    assert result.records[b"l"].links == (b"l", b"p")


@pytest.mark.root
def test_hard_links_to_devices(extract: Extract) -> None:
    result = extract([Member(b"c", "char", rdev=(1, 5))], [link(b"l", b"c")])
    assert result.records[b"l"].rdev == (1, 5)
    assert result.records[b"l"].links == (b"c", b"l")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (b"gone", "not exist"),
        (b"d/gone", "not exist"),
        (b"gone/f", "not exist"),
        (b"f/x", "not exist"),
        (b"later", "not exist"),
        (b".wh.w", "not exist"),
        (b"dangling/f", "not exist"),
        (b"d", "directory"),
        (b"/", "not exist|directory"),
        (b"..", "not exist|directory"),
        (b"", "not exist|directory"),
    ],
)
def test_a_hard_link_to_nothing_or_to_a_directory_is_refused(
    extract: Extract, target: bytes, says: str
) -> None:
    before = [directory(b"d"), file(b"f"), symlink(b"dangling", b"new"), file(b".wh.w")]
    refused(extract, [*before, link(b"l", target), file(b"later")], says=says)


def test_a_hard_link_to_itself_changes_nothing(extract: Extract) -> None:
    assert extract([file(b"f", b"1"), link(b"f", b"./f")]).look == {"f": "1"}
    refused(extract, [link(b"g", b"g")], says="not exist")


def test_a_hard_link_to_what_it_already_is_changes_nothing(extract: Extract) -> None:
    result = extract([file(b"a", b"1"), link(b"b", b"a")], [link(b"a", b"b")])
    assert result.records[b"a"].links == (b"a", b"b")


@pytest.mark.parametrize("late", [False, True])
def test_a_hard_link_to_what_it_already_is_is_of_its_layer(extract: Extract, late: bool) -> None:
    upper = [file(b".wh.a"), link(b"a", b"b")]
    lower = [file(b"a", b"1"), link(b"b", b"a")]
    result = extract(lower, upper[::-1] if late else upper)
    assert result.records[b"a"].links == (b"a", b"b")


def test_a_hard_link_to_what_it_replaces_is_refused(extract: Extract) -> None:
    refused(extract, [file(b"d/e/f")], [link(b"d", b"d/e/f")])


def test_a_hard_link_through_a_link_that_it_replaces(extract: Extract) -> None:
    result = extract([file(b"d/f", b"1"), symlink(b"s", b"d")], [link(b"s", b"s/f")])
    assert result.look == {"d": "dir", "d/f": "1", "s": "1"}


# -- Duplicate paths -------------------------------------------------------------------------------

DUPLICATES: dict[str, list[Member]] = {
    "files": [file(b"a", b"1"), file(b"a", b"2")],
    "names": [file(b"a", b"1"), file(b"./x/../a", b"2")],
    "types": [directory(b"a"), file(b"a/f"), file(b"a", b"2")],
    "links": [file(b"b", b"2"), symlink(b"a", b"b"), link(b"a", b"b")],
}


@pytest.mark.parametrize("layer", DUPLICATES.values(), ids=DUPLICATES)
def test_the_last_of_duplicates_wins_with_a_warning(extract: Extract, layer: list[Member]) -> None:
    result = extract(layer)
    assert result.look["a"] == "2"
    assert not any(path.startswith("a/") for path in result.look)
    assert result.warnings == {"duplicate-path": 1}


@pytest.mark.parametrize("layer", DUPLICATES.values(), ids=DUPLICATES)
def test_strict_refuses_duplicates(extract: Extract, layer: list[Member]) -> None:
    with pytest.raises(ociroot.MalformedImage, match="duplicate"):
        extract(layer, strict=True)


def test_duplicate_directories_merge_and_the_last_attributes_win(extract: Extract) -> None:
    first, second = directory(b"d", mode=0o700), directory(b"d/", mode=0o711)
    result = extract([first, file(b"d/f", b"1"), second])
    assert result.look == {"d": "dir", "d/f": "1"}
    assert result.records[b"d"].mode == 0o711
    assert result.warnings == {"duplicate-path": 1}


def test_duplicates_of_a_link_target(extract: Extract) -> None:
    # The link is to the file that existed when the link was applied.
    result = extract([file(b"a", b"1"), link(b"b", b"a"), file(b"a", b"2")])
    assert result.look == {"a": "2", "b": "1"}
    assert result.warnings == {"duplicate-path": 1}


def test_what_is_no_duplicate(extract: Extract) -> None:
    lower = [file(b"a"), file(b"d/f"), directory(b"d"), symlink(b"s", b"d"), file(b"b")]
    upper = [file(b"a"), directory(b"d"), file(b".wh.b"), file(b"b"), link(b"l", b"a"), file(b"s")]
    assert extract(lower, upper, upper, strict=True).warnings == {}


def test_strict_refuses_what_lies_below_a_whiteout(extract: Extract) -> None:
    with pytest.raises(ociroot.MalformedImage, match="whiteout"):
        extract([file(b".wh.a/f")], strict=True)


# -- Owners, modes, times, extended attributes -----------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("format", ["pax", "gnu"])
def test_owners_up_to_the_highest(tmp_path: Path, format: str) -> None:
    members = [file(b"f", mode=0o6755, uid=2**32 - 2, gid=2**31), symlink(b"s", b"f", uid=7, gid=8)]
    image = archive(tmp_path / "image", [Layer(members, format=format)])  # type: ignore[arg-type]
    with ociroot.open(image) as source:
        source.image().extract(tmp_path / "rootfs")
    records = snapshot(tmp_path / "rootfs")
    assert (records[b"f"].uid, records[b"f"].gid) == (2**32 - 2, 2**31)
    assert records[b"f"].mode == 0o6755, "set-id bits outlive chown"
    assert (records[b"s"].uid, records[b"s"].gid) == (7, 8)


@pytest.mark.parametrize("owner", [-1, 2**32 - 1, 2**32, 2**63])
def test_impossible_owners_are_refused(extract: Extract, owner: int) -> None:
    refused(extract, [file(b"f", uid=owner)])
    refused(extract, [directory(b"f", gid=owner)])


@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "fifo"])
@pytest.mark.parametrize("nanoseconds", [0, -1, 1, -1_500_000_000, 1_234_567_890_123_456_789])
def test_times_to_the_nanosecond(extract: Extract, kind: str, nanoseconds: int) -> None:
    member = Member(b"x", kind, target=b"t", mtime=seconds(nanoseconds))  # type: ignore[arg-type]
    assert extract([member]).records[b"x"].mtime_ns == nanoseconds


def test_extended_attributes_are_bytes(extract: Extract) -> None:
    values = {b"user.a": b"\0\n=\xff", b"user.empty": b"", "user.é".encode(): b"1"}
    layer = [file(b"f", xattrs=values), directory(b"d", mode=0o555, xattrs=values)]
    result = extract(layer)
    assert result.records[b"f"].xattrs == result.records[b"d"].xattrs == values


@pytest.mark.parametrize("name", [b"security.selinux", b"trusted.overlay.x", b"user.overlay.x"])
def test_what_is_of_the_host_is_left_out(extract: Extract, name: bytes) -> None:
    """SELinux labels, and the attributes of overlayfs, as root and (`userxattr`) as any user."""
    attributes = {name: b"y", b"user.overlays": b"1"}
    result = extract([directory(b"d", xattrs=attributes), file(b"f", xattrs=attributes)])
    assert result.records[b"d"].xattrs == result.records[b"f"].xattrs == {b"user.overlays": b"1"}
    assert result.warnings == {}


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_user_attributes_on_what_cannot_have_them_are_a_warning(
    extract: Extract, kind: str
) -> None:
    member = Member(b"x", kind, target=b"t", xattrs={b"user.a": b"1"})  # type: ignore[arg-type]
    result = extract([member])
    assert set(result.look) == {"x"}
    assert result.warnings == {"xattrs-user": 1}


@pytest.mark.root
def test_devices_with_large_numbers(extract: Extract) -> None:
    layer = [Member(b"c", "char", rdev=(4095, 1048575), mode=0o666), Member(b"b", "block")]
    result = extract(layer)
    assert (result.records[b"c"].rdev, result.records[b"c"].mode) == ((4095, 1048575), 0o666)
    assert result.attributes(b"b") == ("block", 0o644, 0, 0, DEFAULT_MTIME * SECOND)


@pytest.mark.root
@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_nothing_comes_from_the_place_or_the_umask(tmp_path: Path, umask: int) -> None:
    # A default ACL (for everyone: rwx, named user 7: rwx) and an inherited group.
    entries = [(1, 7, -1), (2, 7, 7), (4, 7, -1), (16, 7, -1), (32, 7, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    place = tmp_path / "place"
    place.mkdir()
    try:
        os.setxattr(place, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("no ACLs here")
    os.chown(place, 0, 7)
    place.chmod(0o2777)
    layer = [directory(b"d", mode=0o751), file(b"d/f", mode=0o640), file(b"i/g", mode=0o4751)]
    layer += [Member(b"i/p", "fifo", mode=0o622), symlink(b"i/s", b"g"), file(b"w", mode=0o666)]
    image = archive(tmp_path / "image", [layer])
    before = os.umask(umask)
    try:
        with ociroot.open(image) as source:
            source.image().extract(place / "rootfs")
    finally:
        os.umask(before)
    assert differences(expected([layer]), snapshot(place / "rootfs")) == []


# As root, because of the owner of directories without an entry.
@pytest.mark.root
def test_many_directories_at_once(extract: Extract) -> None:
    # More directories than are kept open, visited in turn.
    names = [b"%d/%d" % (n % 20, n) for n in range(300)]
    rounds = [[file(name + b"/%d" % turn, b"1") for name in names] for turn in range(2)]
    layers = [
        rounds[0] + rounds[1],
        [link(b"%b/l" % a, b"%b/0" % b) for a, b in zip(names, names[7:], strict=False)],
    ]
    layers.append([file(name + b"/.wh.0") for name in names])
    result = extract(*layers)
    assert differences(expected(layers), result.records) == []
