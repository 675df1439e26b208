"""The target for the merged tree: one pass, two passes, and the reference model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from fractions import Fraction

from ociroot.errors import LimitExceeded, OcirootError
from ociroot.layers.changeset import Change, changes
from ociroot.limits import DEFAULTS
from ociroot.notices import Notices
from ociroot.rootfs.nodes import Node
from ociroot.rootfs.operations import NoOperations
from ociroot.rootfs.tree import Tree, WhiteoutsFirst
from ociroot.tar.entry import Entry
from ociroot.tar.reader import entries
from ociroot.tar.stream import ChunkStream
from tests.support.build import Member
from tests.support.model import ModelRefusal, expected
from tests.support.snapshot import Record, Snapshot, differences

from .checks import check, refusal
from .images import Stack

__all__ = ["merge"]

# The model is recursive, and has no limits.
_DEEP = 60


def merge(data: bytes) -> None:
    """A stack of layers: one pass, whiteouts first, and the reference model agree."""
    layers = [_read(layer) for layer in Stack.read(data).layers]
    try:
        plain = _merged(layers, first=False)
    except WhiteoutsFirst:
        plain = None
    first = _merged(layers, first=True)
    if plain is not None:
        _agree(plain, first, "in one pass and whiteouts first")
    problem = getattr(first, "problem", "")
    unknown = ("with an empty target", "(maximum", "Linux rejects")
    if isinstance(first, LimitExceeded) or any(words in problem for words in unknown):
        return  # the model has no limits, and accepts values that the kernel rejects
    if any(e.name.count(b"/") + e.target.count(b"/") > _DEEP for layer in layers for e in layer):
        return
    try:
        model = expected([_members(n, layer) for n, layer in enumerate(layers)])
    except RecursionError:
        return
    except ModelRefusal as error:
        check(isinstance(first, OcirootError), f"the model refuses it: {error}")
        return
    _agree(first, model, "in the tree and in the model")


def _agree(one: Snapshot | OcirootError, other: Snapshot | OcirootError, which: str) -> None:
    if isinstance(one, OcirootError) or isinstance(other, OcirootError):
        check(isinstance(one, OcirootError) == isinstance(other, OcirootError), (which, one, other))
        return
    found = differences(one, other)
    check(not found, f"{which}: {found[:5]}")


def _read(layer: bytes) -> list[Entry]:
    """Read a layer up to its end or the first error."""
    found: list[Entry] = []
    try:
        for entry in entries(ChunkStream(iter((layer,))), DEFAULTS):
            found.append(entry)  # noqa: PERF402 - what came before an error is kept
    except OcirootError:
        pass
    return found


class _Numbered:
    """A stand-in for a layer's content: the position is the number of the current entry."""

    position = 0

    def go(self, layer: list[Entry]) -> Iterator[Entry]:
        for self.position, entry in enumerate(layer):
            yield entry


def _merged(layers: list[list[Entry]], *, first: bool) -> Snapshot | OcirootError:
    notices = Notices()
    tree = Tree(NoOperations(), notices, DEFAULTS)
    try:
        for layer in layers:
            known: list[Change] | None = None
            if first:
                known = [c for c in changes(layer, Notices()) if c.action != "add"]
            place = _Numbered()
            tree.apply(changes(place.go(layer), notices), place, whiteouts=known)  # type: ignore[arg-type]
    except OcirootError as error:
        refusal(error)
        return error
    return _snapshot(tree)


def _content(layer: int, number: int) -> bytes:
    """Return the stand-in for a file's content: the number of its entry."""
    return b"%d %d" % (layer, number)


def _members(number: int, layer: list[Entry]) -> list[Member]:
    return [
        Member(
            entry.name,
            entry.kind,
            data=_content(number, place),
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime=Fraction(entry.mtime_ns, 10**9),
            target=entry.target,
            rdev=entry.rdev,
            xattrs=entry.xattrs or {},
        )
        for place, entry in enumerate(layer)
    ]


def _snapshot(tree: Tree) -> Snapshot:
    found: list[tuple[bytes, Node]] = [(b".", tree.root)]
    found += [(parent.path_of(name), node) for parent, name, node in tree.root.walk()]
    names: dict[Node, list[bytes]] = {}
    for path, node in found:
        names.setdefault(node, []).append(path)
    for node, paths in names.items():
        check(node.links == len(paths), (paths, node.links))
    return {path: _record(node, names[node]) for path, node in found}


def _record(node: Node, names: list[bytes]) -> Record:
    content = _content(node.layer - 1, node.offset) if node.kind == "file" else b""
    carries = node.kind in ("file", "dir")
    return Record(
        kind=node.kind,
        mode=0o777 if node.kind == "symlink" else node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest() if content else None,
        target=node.target if node.kind == "symlink" else None,
        rdev=node.rdev if node.kind in ("char", "block") else None,
        links=() if node.kind == "dir" else tuple(sorted(names)),
        xattrs={
            name: value
            for name, value in (node.xattrs or {}).items()
            if carries or not name.startswith(b"user.")
        },
    )
