"""``ociroot ls --layer``: the entries of a layer, including whiteouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .common import print_json

if TYPE_CHECKING:
    from .. import Entry, LayerChange, PathPattern

__all__ = ["LayerListing", "xattr_lines"]


class LayerListing:
    """Lists the entries of a layer, in the order of the archive.

    Attributes:
        missing: patterns that no entry has matched so far.
    """

    def __init__(self, paths: tuple[str, ...], long: bool, xattrs: bool) -> None:
        """Create a listing.

        Args:
            paths: paths and patterns to list, with everything below them; empty: everything.
            long: whether all attributes are shown.
            xattrs: whether extended attributes are shown.
        """
        from .. import PathPattern

        self._patterns = [PathPattern(path, below=True) for path in paths]
        self.missing: dict[PathPattern, str] = dict(zip(self._patterns, paths, strict=True))
        self._long = long
        self._xattrs = xattrs

    def show(self, changes: Iterator[LayerChange]) -> Iterator[str]:
        """Yield lines of text."""
        for change in self._chosen(changes):
            what = _hidden(change)
            yield self._line(change.entry) + (f"  ({what})" if what else "")
            if self._xattrs:
                yield from xattr_lines(change.entry.xattrs)

    def print_json(self, changes: Iterator[LayerChange]) -> None:
        """Print a JSON array."""
        print_json(_described(change) for change in self._chosen(changes))

    def _chosen(self, changes: Iterator[LayerChange]) -> Iterator[LayerChange]:
        """Yield the changes whose entries are listed."""
        return (each for each in changes if not self._patterns or self._matches(each))

    def _matches(self, change: LayerChange) -> bool:
        # A whiteout matches by its own name, and by the name that it removes.
        paths = (change.entry.name, change.path)
        found = [each for each in self._patterns if any(map(each.matches, paths))]
        for pattern in found:
            self.missing.pop(pattern, None)
        return bool(found)

    def _line(self, entry: Entry) -> str:
        from .. import printable
        from .describe import mode_string, time_string

        line = printable(entry.name)
        if self._long:
            mode = mode_string(entry)
            when = time_string(entry.mtime_ns)
            line = f"{mode} {entry.uid:5} {entry.gid:5} {entry.size:10} {when} {line}"
            arrow = " -> " if entry.kind == "symlink" else " link to "
            line += f"{arrow}{printable(entry.target)}" if entry.target else ""
        return line


def _described(change: LayerChange) -> dict[str, Any]:
    from .. import as_text

    entry = change.entry
    return {
        "path": as_text(entry.name),
        "type": entry.kind,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        "size": entry.size,
        "target": as_text(entry.target),
        "whiteout": _hidden(change) or None,
    }


def xattr_lines(xattrs: dict[bytes, bytes] | None) -> Iterator[str]:
    """Yield a line for each extended attribute."""
    from .. import printable

    for name, value in sorted((xattrs or {}).items()):
        yield f"    {printable(name)}={printable(value)}"


def _hidden(change: LayerChange) -> str:
    """Return a text for what an entry removes, or why it is ignored; empty for other entries."""
    from .. import printable

    match change.action:
        case "whiteout":
            return f"whiteout of /{printable(change.path)}"
        case "opaque":
            return f"opaque whiteout of /{printable(change.path)}"
        case "ignored":
            return "ignored"
        case _:
            return change.problem
