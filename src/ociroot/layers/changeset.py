"""Convert the entries of a layer to the changes that they describe (image-spec, layer.md).

Only this module interprets whiteout names. The specification says:

- "A whiteout filename consists of the prefix `.wh.` plus the basename of the path to be deleted."
- "A `.wh.` file, without a basename to delete, is invalid and implementations SHOULD return an
  error when encountering such an entry."
- "An opaque whiteout entry is a file with the name `.wh..wh..opq` indicating that all siblings are
  hidden in the lower layer."
- "it is not possible to create a filesystem which has a file or directory with a name beginning
  with `.wh.`". The other names with this prefix, such as `.wh..wh.aufs`, are internal to AUFS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from ..errors import MalformedImage
from ..notices import Notices
from ..tar.acl import ACCESS, KEYWORDS, mode_without_text
from ..tar.entry import Entry
from ..tar.names import clean
from ..tar.reader import SLASH
from .xattrs import check_xattrs

__all__ = ["Change", "LayerChange", "changes", "meaning"]

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."

Action = Literal["add", "whiteout", "opaque"]


class Change(NamedTuple):
    """One change to the file system.

    Attributes:
        action: ``add`` (or modify), ``whiteout`` of a name, ``opaque`` whiteout of a directory.
        parent: the normalised path of the directory inside the root; empty for the root.
        name: the name in that directory; empty if the change is to ``parent`` itself (the root's
            own entry, or an opaque whiteout).
        entry: the entry that describes the change.
    """

    action: Action
    parent: bytes
    name: bytes
    entry: Entry


class LayerChange(NamedTuple):
    """What an entry of a layer does to the layers below it.

    Attributes:
        entry: the entry.
        action: ``add`` (or replace, or modify), ``whiteout`` of what is at ``path``, ``opaque``:
            a whiteout of all that is in ``path``, ``ignored``: it does nothing, ``malformed``: no
            layer can be applied with it.
        path: the path from the root, without a leading ``/``; of what is ignored or malformed, the
            entry's own.
        problem: why it is malformed; otherwise empty.
    """

    entry: Entry
    action: Literal["add", "whiteout", "opaque", "ignored", "malformed"]
    path: bytes
    problem: str = ""


def meaning(entry: Entry) -> LayerChange:
    """Return what an entry of a layer does, also where a layer with it cannot be applied."""
    try:
        found = next(changes([entry], Notices()), None)
    except MalformedImage as error:
        return LayerChange(entry, "malformed", clean(entry.name), error.problem)
    if found is None:
        return LayerChange(entry, "ignored", clean(entry.name))
    path = b"/".join(filter(None, (found.parent, found.name)))
    return LayerChange(entry, found.action, path)


def changes(entries: Iterable[Entry], notices: Notices) -> Iterator[Change]:
    """Convert the entries of a layer to changes.

    Args:
        entries: the layer's entries.
        notices: collects warnings about entries that are skipped.

    Yields:
        The changes in the order of the entries.

    Raises:
        MalformedImage: an empty name, a whiteout without a name, or a root that is not a directory.
    """
    # Entries of one directory usually follow each other, so siblings share the parent look-up.
    last, last_parent = b"", b""
    new = tuple.__new__
    for entry in entries:
        name = entry.name
        if entry.xattrs is not None:
            _check_xattrs(entry, notices)
        parent, _, base = name.rpartition(b"/")
        if parent == last and base[:1] > b".":
            yield new(Change, ("add", last_parent, base, entry))
            continue
        if not name:
            raise MalformedImage("an entry with an empty name", offset=entry.offset)
        # Nearly all names are normalised except for a leading `./` and a trailing `/`.
        if name[-1] == 47:
            name = name.rstrip(b"/")
        if name[:2] == b"./":
            name = name[2:]
        if b"/." in name or b"//" in name or name[:1] in b"./":
            name = clean(name)
        raw = parent if base not in (b"", b".", b"..") else None
        parent, _, base = name.rpartition(b"/")
        if not base and entry.kind != "dir":
            raise MalformedImage(
                f"the root is a {entry.kind}, not a directory",
                member=entry.name,
                offset=entry.offset,
            )
        if _WHITEOUT in name:
            change = _whiteout(entry, parent, base, notices)
            if change is None:
                continue
        else:
            if raw is not None:
                last, last_parent = raw, parent
            change = Change("add", parent, base, entry)
        if entry.name[-1] == 47 and entry.kind == "file" and change.action == "add":
            raise MalformedImage(SLASH, member=entry.name, offset=entry.offset)
        yield change


def _check_xattrs(entry: Entry, notices: Notices) -> None:
    xattrs = entry.xattrs or {}
    for keyword in KEYWORDS:
        if keyword in xattrs:
            # Only the system that wrote the archive can map the names: this host must not, and the
            # image's own /etc/passwd may change in a later layer.
            notices.add("acl-names", entry.name)
            if KEYWORDS[keyword] == ACCESS and ACCESS not in xattrs:
                entry.mode = mode_without_text(entry.mode, xattrs[keyword])
            xattrs = {name: value for name, value in xattrs.items() if name not in KEYWORDS}
            entry.xattrs = xattrs or None
    try:
        check_xattrs(xattrs)
    except MalformedImage as error:
        raise error.locate(member=entry.name, offset=entry.offset) from None


def _whiteout(entry: Entry, parent: bytes, base: bytes, notices: Notices) -> Change | None:
    """Return the change for an entry whose path contains ``.wh.``; None: it is skipped."""
    for part in parent.split(b"/"):
        if part.startswith(_AUFS):
            return None
        if part.startswith(_WHITEOUT):
            # A whiteout is a marker of any file type, and has no content.
            notices.add("below-whiteout", entry.name)
            return None
    if not base.startswith(_WHITEOUT):
        return Change("add", parent, base, entry)
    if base == _OPAQUE:
        return Change("opaque", parent, b"", entry)
    if base.startswith(_AUFS):
        return None
    hidden = base[len(_WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise MalformedImage(
            "a whiteout without the name to delete", member=entry.name, offset=entry.offset
        )
    return Change("whiteout", parent, hidden, entry)
