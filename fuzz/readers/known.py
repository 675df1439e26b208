"""The decided differences, each with the reason for our reading."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ociroot.tar.names import clean

from .difference import Difference
from .seen import Seen

__all__ = ["DECIDED", "decided"]

Layers = Sequence[Sequence[Seen]]


class Decided(NamedTuple):
    """One decided difference.

    Attributes:
        name: its name in the figures.
        reason: why we differ.
        readers: the readers that differ from us.
        attributes: the attributes in which they differ.
        holds: returns whether a difference is this one.
    """

    name: str
    reason: str
    readers: tuple[str, ...]
    attributes: tuple[str, ...]
    holds: Callable[[Difference, Layers], bool]


_A_MINUTE = 60 * 10**9


def _path(difference: Difference) -> list[bytes]:
    """Return the components of the path of a difference between trees."""
    path = ast.literal_eval(difference.place)
    return [] if path == b"." else path.split(b"/")


def _now(difference: Difference) -> bool:
    """Return whether the other's value is the time of unpacking."""
    theirs = difference.theirs
    return isinstance(theirs, int) and abs(time.time_ns() - theirs) < _A_MINUTE


def _implied(difference: Difference, layers: Layers) -> bool:
    """Return whether it is a directory without an entry, with inherited attributes."""
    ours, theirs = difference.ours, difference.theirs
    if difference.seen or not isinstance(ours, int):
        return False
    if difference.attribute == "mode":
        return theirs == ours | 0o2000
    return difference.attribute == "gid" or _now(difference)


def _directory(difference: Difference, layers: Layers) -> bool:
    return bool(difference.seen) and difference.seen[-1].kind == "dir" and _now(difference)


def _below_whiteout(difference: Difference, layers: Layers) -> bool:
    """Return whether it is a parent of an entry below a whiteout."""
    path = _path(difference)
    names = [clean(each.name).split(b"/") for layer in layers for each in layer]
    hidden = [name for name in names if any(part.startswith(b".wh.") for part in name[:-1])]
    return any(name[: len(path)] == path for name in hidden)


def _hidden(difference: Difference, layers: Layers) -> bool:
    """Return whether the uppermost layer hides a directory without an entry for it."""
    path = _path(difference)
    names = [clean(each.name).split(b"/") for each in layers[-1]]
    parents = [path[:length] for length in range(len(path))]
    opaque = any([*parent, b".wh..wh..opq"] in names for parent in parents)
    whiteout = [*path[:-1], b".wh." + path[-1]] in names if path else False
    return path not in names and (opaque or whiteout)


def _whiteout(difference: Difference, layers: Layers) -> bool:
    """Return whether it is a whiteout or below one."""
    return b"/.wh." in b"/" + difference.seen[-1].name if difference.seen else False


def _whiteout_behind(difference: Difference, layers: Layers) -> bool:
    """Return whether a whiteout follows an entry that goes through a link of a lower layer."""
    for number, layer in enumerate(layers):
        links = {clean(e.name) for below in layers[:number] for e in below if e.kind == "symlink"}
        through = False
        for each in layer:
            name = clean(each.name)
            if through and name.rpartition(b"/")[2].startswith(b".wh."):
                return True
            through |= any((name + b"/").startswith(link + b"/") for link in links)
    return False


def _opaque_link(difference: Difference, layers: Layers) -> bool:
    """Return whether the path of an opaque whiteout goes through a symbolic link."""
    links = {clean(e.name) for layer in layers for e in layer if e.kind == "symlink"}
    opaque = [clean(each.name) for layer in layers for each in layer]
    parents = [n.removesuffix(b"/.wh..wh..opq") for n in opaque if n.endswith(b"/.wh..wh..opq")]
    return any((n + b"/").startswith(link + b"/") for n in parents for link in links)


def _base64(difference: Difference, layers: Layers) -> bool:
    """Return whether the attributes are in records other than SCHILY.xattr.*."""
    theirs, ours = difference.theirs, difference.ours
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return False
    head = difference.seen[-1].head
    more = {name for name in theirs if theirs[name] != ours.get(name)}
    return theirs.keys() >= ours.keys() and all(
        b"LIBARCHIVE.xattr." + name in head or b"RHT." + name in head for name in more
    )


def _sized(difference: Difference, layers: Layers) -> bool:
    """Return whether an earlier entry that is not a file has a size in its header."""
    before = layers[-1][: int(difference.place.removeprefix("entry ")) + 1]
    sizes = [each.header[124:136].strip(b" \0") for each in before if each.kind != "file"]
    return any(size.strip(b"0") for size in sizes)


def _empty_value(difference: Difference, layers: Layers) -> bool:
    ours, theirs = difference.ours, difference.theirs
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return False
    return {name: value for name, value in ours.items() if value} == theirs


def _cut(difference: Difference, layers: Layers) -> bool:
    """Return whether a hard link's target is the part after its last ``..`` or first ``/``."""
    if difference.seen[-1].kind != "link" or not isinstance(difference.ours, bytes):
        return False
    rest = (b"/" + difference.ours).rpartition(b"/../")[2].lstrip(b"/")
    return difference.theirs == (b"." if rest in (b"", b"..") else rest)


def _long_target(difference: Difference, layers: Layers) -> bool:
    """Return whether the target of a link is only in an extended header."""
    seen = difference.seen[-1]
    return not seen.header[157] and len(seen.head) > len(seen.header) and not difference.theirs


def _before_1970(difference: Difference, layers: Layers) -> bool:
    ours = difference.ours
    return isinstance(ours, int) and -(10**9) < ours < 0 and difference.theirs == -ours


def _far(difference: Difference, layers: Layers) -> bool:
    return isinstance(difference.ours, int) and abs(difference.ours) >= 1 << 63


def _beside(difference: Difference, layers: Layers) -> bool:
    return difference.place.endswith("beside what is no image")


def _without_layers(difference: Difference, layers: Layers) -> bool:
    return difference.place.startswith("hybrid") and difference.theirs == []


#: The attributes in which two readers differ that select different images.
_IMAGE = (
    *("layers", "architecture", "os", "diff_ids", "history", "User", "WorkingDir", "StopSignal"),
    *("Env", "Entrypoint", "Cmd", "ExposedPorts", "Volumes", "Labels", "tree"),
)

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
        "whiteout behind what goes through a link",
        "umoci goes by the order of the entries: through a link that a whiteout behind them "
        "hides. layer.md, Opaque Whiteout: it 'is applied first … regardless of the ordering'.",
        ("umoci",),
        ("missing", "links", "kind", "mtime_ns"),
        _whiteout_behind,
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
        "LIBARCHIVE.xattr.*, in base64, and RHT.security.selinux are read by libarchive, and by no "
        "reader in Go. libarchive writes SCHILY.xattr.* beside the former, which all read.",
        ("bsdtar",),
        ("xattrs",),
        _base64,
    ),
    Decided(
        "attribute of an empty value",
        "Go takes it for none, for in pax an empty value deletes. It is one for Linux, which star "
        "and GNU tar write so.",
        ("umoci",),
        ("xattrs",),
        _empty_value,
    ),
    Decided(
        "time that no 64 bits of nanoseconds hold",
        "Beyond 1677 to 2262 Go's sum is another time. Ours is as the archive says, or the "
        "nearest that the file system keeps, with a warning.",
        ("umoci",),
        ("mtime_ns",),
        _far,
    ),
    Decided(
        "second before 1970",
        "GNU tar and bsdtar lose the sign of -0.5 in a pax record, as it is no whole number's. Go "
        "and we do not.",
        ("tar", "bsdtar"),
        ("mtime_ns",),
        _before_1970,
    ),
    Decided(
        "hard link to a target with ..",
        "GNU tar cuts off all up to the last `..` of a hard link's target, for it links by the "
        "kernel's look-up. We resolve it inside the root, as we do names.",
        ("tar",),
        ("target",),
        _cut,
    ),
    Decided(
        "target in an extended header alone",
        "bsdtar keeps it for a hard link then, and the symbolic link has none, which it cannot "
        "make. Archivers write the beginning of the target in the header, too.",
        ("bsdtar",),
        ("target",),
        _long_target,
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
    Decided(
        "something that is no image, for the platform",
        "skopeo chooses by the platform alone, whatever the media type and the artifact type. "
        "image-layout.md, index.json: 'An encountered `mediaType` that is unknown MUST NOT "
        "generate an error'; containerd passes over it, as we do.",
        ("skopeo-oci", "skopeo-oci-archive"),
        _IMAGE,
        _beside,
    ),
    Decided(
        "manifest without layers",
        "Docker 25.0.0 to 25.0.2 wrote them (moby #47065), with the layers in manifest.json, whose "
        "diff_ids verify them; skopeo has an image of no layers.",
        ("skopeo-oci-archive",),
        ("layers",),
        _without_layers,
    ),
)


def decided(difference: Difference, layers: Layers) -> str | None:
    """Return the name of the decision about a difference, or None."""
    for each in DECIDED:
        if (
            difference.reader in each.readers
            and difference.attribute in each.attributes
            and each.holds(difference, layers)
        ):
            return each.name
    return None
