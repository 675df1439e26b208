"""The target for layers: the trees and the entries that each reader gets from them.

An input is a byte that selects a layer below, and the layers. Their tree is compared with umoci's;
the entries of the last one are compared with those of GNU tar and bsdtar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from ociroot.errors import OcirootError
from ociroot.tar.names import clean
from tests.support.snapshot import Record, Snapshot

from ..extraction import arena
from ..images import BASE, SEPARATOR
from . import seen, tars, trees
from .difference import Difference, Result
from .known import decided
from .seen import Seen

__all__ = ["compare_layers", "layers_of"]

_ATTRIBUTES = tuple(field.name for field in fields(Record))


def layers_of(data: bytes) -> list[bytes]:
    """Return the layers of an input."""
    layers = data[1:].split(SEPARATOR)
    return [BASE, *layers] if data[:1] > b"\0" else layers


def compare_layers(data: bytes) -> Result:
    """Read an input with all readers, and return their differences from us."""
    layers = layers_of(data)
    accepted = {"ociroot"}
    found: list[Difference] = []
    with arena() as place:
        image = place / "image"
        trees.put(layers, image)
        try:
            # Refused inputs are not compared.
            tree, _ = trees.ours(image, place / "root")
            entries = [list(seen.ours(layer)) for layer in layers]
        except OcirootError:
            return Result(frozenset())
        theirs = trees.by_umoci(image, place / "copy")
        if theirs is not None:
            accepted.add("umoci")
            found += _compare_trees(tree, theirs, entries)
        tar = image / "layer.tar"
        tar.write_bytes(layers[-1])
        for reader, listed in (("tar", tars.by_gnu_tar(tar)), ("bsdtar", tars.by_bsdtar(tar))):
            if listed is not None:
                accepted.add(reader)
                found += _compare_entries(reader, entries[-1], listed)
        if not any(each.reader == "tar" for each in found):
            found += _compare_contents(tar, entries[-1])
    unknown = [each for each in found if decided(each, entries) is None]
    known = [name for each in found if (name := decided(each, entries)) is not None]
    return Result(frozenset(accepted), tuple(unknown), tuple(known))


def _compare_trees(
    ours: Snapshot, theirs: Snapshot, layers: Sequence[Sequence[Seen]]
) -> Iterator[Difference]:
    by_path: dict[bytes, list[Seen]] = {}
    for layer in layers:
        for each in layer:
            by_path.setdefault(clean(each.name) or b".", []).append(each)
    for path in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(path), theirs.get(path)
        about = tuple(by_path.get(path, ()))
        if one is None or other is None:
            missing = (one and one.kind, other and other.kind)
            yield Difference("umoci", "missing", repr(path), *missing, about)
            continue
        for name in _ATTRIBUTES if one.kind == other.kind else ("kind",):
            values = getattr(one, name), getattr(other, name)
            if values[0] != values[1]:
                yield Difference("umoci", name, repr(path), *values, about)


def _compare_entries(
    reader: str, ours: Sequence[Seen], theirs: Sequence[Seen]
) -> Iterator[Difference]:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        for name in Seen._fields[:-2]:
            values = getattr(one, name), getattr(other, name)
            if values[1] is not None and values[0] != values[1]:
                yield Difference(reader, name, f"entry {number}", *values, (one,))
                if name in ("kind", "name"):
                    return  # probably no longer the same entries
    if len(ours) != len(theirs):
        first = min(len(ours), len(theirs))
        yield Difference(
            reader,
            "entries",
            f"entry {first}",
            [(each.kind, each.name) for each in ours[first:]],
            [(each.kind, each.name) for each in theirs[first:]],
            tuple(ours[first - 1 : first + 1]) if first else tuple(ours[:1]),
        )


def _compare_contents(tar: Path, ours: Sequence[Seen]) -> Iterator[Difference]:
    """Compare the contents of all files with those of GNU tar, which outputs them concatenated.

    Files with holes are not compared: it does not output a hole at the end.
    """
    if any(each.sparse for each in ours):
        return
    theirs = tars.contents_by_gnu_tar(tar)
    if theirs is None:
        return
    wanted = hashlib.sha256(b"".join(seen.contents(tar.read_bytes()))).hexdigest()
    if wanted != theirs:
        yield Difference("tar", "content", "all", wanted, theirs, tuple(ours))
