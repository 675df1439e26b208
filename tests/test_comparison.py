"""Comparison of the trees of one image after different layers."""

from __future__ import annotations

from pathlib import Path

import ociroot
from ociroot import Snapshot

from .support.build import Member, archive, file, link


def after_each_layer(path: Path) -> list[Snapshot]:
    with ociroot.open(path) as source:
        image = source.image()
        return list(image.snapshots(*range(1, len(image.layers) + 1)))


def differences(before: Snapshot, after: Snapshot) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {found.path: (found.change, found.what) for found in before.compare(after)}


def test_an_earlier_tree_keeps_what_later_layers_remove(tmp_path: Path) -> None:
    lower = [
        file(b"d/same", b"1"),
        file(b"d/other", b"2"),
        file(b"gone", b"3"),
        link(b"h", b"gone"),
    ]
    upper = [file(b"d/same", b"1"), file(b"d/other", b"4"), Member(b".wh.gone")]
    one, two, three = after_each_layer(
        archive(tmp_path / "image.tar", [lower, upper, [Member(b".wh.h"), file(b"gone", b"3")]])
    )
    assert differences(one, two) == {
        "/d/other": ("changed", ("content",)),
        "/gone": ("removed", ()),
    }
    assert differences(two, three) == {"/gone": ("added", ()), "/h": ("removed", ())}
    assert differences(one, three) == {
        "/d/other": ("changed", ("content",)),
        "/h": ("removed", ()),
    }


def test_a_large_hole_makes_no_difference_to_other_files(tmp_path: Path) -> None:
    sparse = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"big",
        b"GNU.sparse.realsize": b"%d" % (2 << 30),
    }
    hole = Member(b"GNUSparseFile.0/big", data=b"0\n".ljust(512, b"\0"), pax=sparse)
    sides = [
        after_each_layer(archive(tmp_path / f"{number}.tar", [layer]))[0]
        for number, layer in enumerate([[hole, file(b"f", b"1")], [file(b"f", b"1")]])
    ]
    assert differences(*sides) == {"/big": ("removed", ())}
