"""``ociroot ls --layer``: a layer's own entries, whiteouts among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .common import print_json

if TYPE_CHECKING:
    from ..layers.changeset import Change
    from ..rootfs.glob import PathPattern
    from ..tar.entry import Entry

__all__ = ["LayerListing", "xattr_lines"]


class LayerListing:
    """Lists the entries of a layer, in the order of the archive.

    Attributes:
        missing: patterns that no entry has matched so far.
    """

    def __init__(self, paths: tuple[str, ...], long: bool, xattrs: bool) -> None:
        """Begin.

        Args:
            paths: what to list: paths and patterns, with all below them; none: everything.
            long: whether all is shown of each entry.
            xattrs: whether extended attributes are.
        """
        from ..rootfs.glob import PathPattern

        self._patterns = [
            PathPattern(path.encode("utf-8", "surrogateescape"), below=True) for path in paths
        ]
        self.missing: dict[PathPattern, str] = dict(zip(self._patterns, paths, strict=True))
        self._long = long
        self._xattrs = xattrs

    def show(self, entries: Iterator[Entry]) -> Iterator[str]:
        """Yield lines for people."""
        for entry, what in self._chosen(entries):
            yield self._line(entry) + (f"  ({what})" if what else "")
            if self._xattrs:
                yield from xattr_lines(entry.xattrs)

    def print_json(self, entries: Iterator[Entry]) -> None:
        """Print a JSON array."""
        print_json(_described(entry, what) for entry, what in self._chosen(entries))

    def _chosen(self, entries: Iterator[Entry]) -> Iterator[tuple[Entry, str]]:
        """Yield the entries that are to be listed, and what each of them hides, in words."""
        from ..tar.names import clean

        for entry in entries:
            change, what = _whiteout(entry)
            if self._patterns:
                # A whiteout is found by its own name, and by that of what it hides.
                paths = [clean(entry.name), *([_path(change)] if change is not None else [])]
                if not self._matches(paths):
                    continue
            yield entry, what

    def _matches(self, paths: list[bytes]) -> bool:
        found = [each for each in self._patterns if any(map(each.matches, paths))]
        for pattern in found:
            self.missing.pop(pattern, None)
        return bool(found)

    def _line(self, entry: Entry) -> str:
        from ..errors import printable
        from ..rootfs.describe import mode_string, time_string

        line = printable(entry.name)
        if self._long:
            mode = mode_string(entry.kind, entry.mode)
            when = time_string(entry.mtime_ns)
            line = f"{mode} {entry.uid:5} {entry.gid:5} {entry.size:10} {when} {line}"
            arrow = " -> " if entry.kind == "symlink" else " link to "
            line += f"{arrow}{printable(entry.target)}" if entry.target else ""
        return line


def _described(entry: Entry, what: str) -> dict[str, Any]:
    from ..rootfs.describe import as_text

    return {
        "path": as_text(entry.name),
        "type": entry.kind,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        "size": entry.size,
        "target": as_text(entry.target),
        "whiteout": what or None,
    }


def xattr_lines(xattrs: dict[bytes, bytes] | None) -> Iterator[str]:
    """Yield a line for each extended attribute."""
    from ..errors import printable

    for name, value in sorted((xattrs or {}).items()):
        yield f"    {printable(name)}={printable(value)}"


def _path(change: Change) -> bytes:
    return b"/".join(filter(None, (change.parent, change.name)))


def _whiteout(entry: Entry) -> tuple[Change | None, str]:
    """Return the change that an entry describes, and in words what it hides, if it is a whiteout.

    None is the change of an entry that means nothing, or that is malformed.
    """
    from ..errors import MalformedImage, printable
    from ..layers.changeset import changes
    from ..notices import Notices

    try:
        found = list(changes([entry], Notices()))
    except MalformedImage as error:
        return None, error.problem
    if not found:
        return None, "ignored"
    change = found[0]
    if change.action == "opaque":
        return change, f"whiteout of all in /{printable(change.parent)}"
    return change, f"whiteout of /{printable(_path(change))}" if change.action == "whiteout" else ""
