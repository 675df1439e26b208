"""Descriptions of files: mode and time as text, attributes as JSON."""

from __future__ import annotations

import base64
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .. import Entry, Node

__all__ = ["described", "mode_string", "time_string"]


def mode_string(item: Entry | Node) -> str:
    """Return type and mode in the form of `ls -l`; ``h`` is the type of a hard link's entry."""
    shown = stat.filemode(item.st_mode)
    return "h" + shown[1:] if item.kind == "link" else shown


def time_string(nanoseconds: int) -> str:
    """Return a time in UTC, or as seconds since 1970 if it is outside the calendar."""
    seconds = nanoseconds // 1_000_000_000
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"


def described(path: str, node: Node) -> dict[str, Any]:
    """Return the JSON object of a node.

    Args:
        path: its path, with a leading ``/``.
        node: the node.
    """
    from .. import as_text

    about: dict[str, Any] = {
        "path": path,
        "type": node.kind,
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "mtime_ns": node.mtime_ns,
        "layer": node.layer,
    }
    if node.kind == "file":
        about["size"] = node.size
    if node.kind == "symlink":
        about["target"] = as_text(node.target)
    if node.kind in ("char", "block"):
        about["device"] = list(node.rdev)
    if node.kind != "dir" and node.links > 1:
        about["links"] = node.links
    if node.xattrs:
        about["xattrs"] = {
            as_text(name): base64.b64encode(value).decode() for name, value in node.xattrs.items()
        }
    return about
