"""The differences that have been decided: each with the reason why we read it as we do."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ociroot.tar.names import clean

from .difference import Difference
from .seen import Seen

__all__ = ["DECIDED", "decided"]

Layers = Sequence[Sequence[Seen]]


class Decided(NamedTuple):
    """One difference that has been decided.

    Attributes:
        name: what it is called in the figures.
        reason: why we differ.
        readers: who differs from us.
        attributes: in what.
        holds: says whether a difference is this one.
    """

    name: str
    reason: str
    readers: tuple[str, ...]
    attributes: tuple[str, ...]
    holds: Callable[[Difference, Layers], bool]


_XATTR = b"LIBARCHIVE.xattr."


def _path(difference: Difference) -> list[bytes]:
    """Return the parts of the path that a difference of trees is about."""
    path = ast.literal_eval(difference.place)
    return [] if path == b"." else path.split(b"/")


def _implied(difference: Difference, layers: Layers) -> bool:
    """Say whether it is a directory that no layer has an entry for."""
    return not difference.seen


def _directory(difference: Difference, layers: Layers) -> bool:
    return bool(difference.seen) and difference.seen[-1].kind == "dir"


def _below_whiteout(difference: Difference, layers: Layers) -> bool:
    """Say whether it is on the way to an entry that lies below a whiteout."""
    path = _path(difference)
    names = [clean(each.name).split(b"/") for layer in layers for each in layer]
    hidden = [name for name in names if any(part.startswith(b".wh.") for part in name[:-1])]
    return any(name[: len(path)] == path for name in hidden)


def _hidden(difference: Difference, layers: Layers) -> bool:
    """Say whether the uppermost layer hides a directory, and has no entry for it."""
    path = _path(difference)
    names = [clean(each.name).split(b"/") for each in layers[-1]]
    parents = [path[:length] for length in range(len(path))]
    opaque = any([*parent, b".wh..wh..opq"] in names for parent in parents)
    whiteout = [*path[:-1], b".wh." + path[-1]] in names if path else False
    return path not in names and (opaque or whiteout)


def _whiteout(difference: Difference, layers: Layers) -> bool:
    return all(each.name.rpartition(b"/")[2].startswith(b".wh.") for each in difference.seen)


def _opaque_link(difference: Difference, layers: Layers) -> bool:
    """Say whether there is an opaque whiteout on the way to which there is a symbolic link."""
    links = {clean(e.name) for layer in layers for e in layer if e.kind == "symlink"}
    opaque = [clean(each.name) for layer in layers for each in layer]
    parents = [n.removesuffix(b"/.wh..wh..opq") for n in opaque if n.endswith(b"/.wh..wh..opq")]
    return any((n + b"/").startswith(link + b"/") for n in parents for link in links)


def _base64(difference: Difference, layers: Layers) -> bool:
    """Say whether the attributes stand in records of libarchive's own."""
    return _XATTR in difference.seen[-1].head


def _sized(difference: Difference, layers: Layers) -> bool:
    """Say whether something that is no file has a size in its header."""
    sizes = [each.header[124:136].strip(b" \0") for each in difference.seen if each.kind != "file"]
    return any(size.strip(b"0") for size in sizes)


DECIDED: tuple[Decided, ...] = (
    Decided(
        "implied directory",
        "umoci leaves it the time of unpacking, and what it inherits from its parent on disk "
        "(group, set-group-ID). layer.md, File Attributes, gives attributes to entries only; ours "
        "are always the same.",
        ("umoci",),
        ("mtime_ns", "mode", "gid"),
        _implied,
    ),
    Decided(
        "time of a directory",
        "umoci sets it before it puts the rest into the directory, and not again. layer.md, File "
        "Attributes: 'MUST include … Modification Time (mtime)'.",
        ("umoci",),
        ("mtime_ns",),
        _directory,
    ),
    Decided(
        "hidden directory",
        "A layer hides a directory and puts something into it, with no entry for the directory. "
        "umoci keeps the attributes of the hidden one; ours are those of a directory without an "
        "entry, for a whiteout 'is applied first' (layer.md, Opaque Whiteout).",
        ("umoci",),
        ("mode", "uid", "gid", "mtime_ns", "xattrs"),
        _hidden,
    ),
    Decided(
        "below a whiteout",
        "umoci makes a directory whose name begins with .wh. of it. layer.md, Whiteouts: 'it is "
        "not possible to create a filesystem which has a file or directory with a name beginning "
        "with `.wh.`'. AUFS's own (.wh..wh.plnk) are skipped, with all below them.",
        ("umoci",),
        ("missing",),
        _below_whiteout,
    ),
    Decided(
        "opaque whiteout through a link",
        "umoci empties the link's target. An opaque whiteout hides what is in a directory of the "
        "layers below, and the path is none: the target is never touched.",
        ("umoci",),
        ("missing", "links", "mtime_ns", "kind"),
        _opaque_link,
    ),
    Decided(
        "whiteout of another type",
        "A whiteout counts by its name, whatever its type; a link's target is not looked at. "
        "Programs that know no whiteouts refuse or mend such an entry.",
        ("tar", "bsdtar"),
        ("kind", "target", "entries"),
        _whiteout,
    ),
    Decided(
        "libarchive's attributes",
        "LIBARCHIVE.xattr.*, in base64, is read by libarchive alone; it writes SCHILY.xattr.* "
        "beside it, which all read.",
        ("bsdtar",),
        ("xattrs",),
        _base64,
    ),
    Decided(
        "size of what is no file",
        "GNU tar skips as many bytes behind a directory, a symbolic link or a device as its size "
        "says. Go and libarchive do not, and archivers write such sizes (POSIX: 'no data … are "
        "stored').",
        ("tar",),
        ("entries", "name", "kind"),
        _sized,
    ),
)


def decided(difference: Difference, layers: Layers) -> str | None:
    """Return the name of the decision that a difference comes from; None: there is none."""
    for each in DECIDED:
        if (
            difference.reader in each.readers
            and difference.attribute in each.attributes
            and each.holds(difference, layers)
        ):
            return each.name
    return None
