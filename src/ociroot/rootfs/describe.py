"""What to say of a node: its mode, its time, its attributes as JSON; the history of a layer."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ..spec.config import Config, History
from .nodes import Node

__all__ = [
    "as_text",
    "created_by",
    "described",
    "file_mode",
    "history_of_layers",
    "mode_string",
    "time_string",
]

_FORMATS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


def as_text(name: bytes) -> str:
    """Return a name as text that can be turned back into it (``surrogateescape``), for JSON."""
    return name.decode("utf-8", "surrogateescape")


def file_mode(node: Node) -> int:
    """Return a node's mode with the type of file in it, as stat(2) has it in ``st_mode``."""
    return _FORMATS[node.kind] | node.mode


def mode_string(kind: str, mode: int) -> str:
    """Return a type and a mode as `ls -l` shows them; of a hard link's entry, ``h`` as the type."""
    if kind == "link":
        return "h" + stat.filemode(stat.S_IFREG | mode)[1:]
    return stat.filemode(_FORMATS[kind] | mode)


def time_string(nanoseconds: int) -> str:
    """Return a time in UTC to the second; one that no calendar has, as seconds since 1970."""
    seconds = nanoseconds // 1_000_000_000
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"


def described(path: str, node: Node) -> dict[str, Any]:
    """Return what programs want to know of a node.

    Args:
        path: its path, with a leading ``/``.
        node: what it is.
    """
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


def history_of_layers(config: Config) -> Iterator[tuple[History, int | None]]:
    """Line up the history with the layers that it made.

    config.md, "history": `empty_layer` "is set to true if this history item doesn't correspond to
    an actual layer in the rootfs section".

    Yields:
        Each item, with the number of its layer from 1, or None when it made none.
    """
    number = 0
    for item in config.history:
        if item.empty_layer or number >= len(config.rootfs.diff_ids):
            yield item, None
        else:
            number += 1
            yield item, number


def created_by(config: Config) -> dict[int, str]:
    """Return what made each layer, as the history has it, by the layer's number from 1."""
    return {
        number: item.created_by or item.comment
        for item, number in history_of_layers(config)
        if number is not None
    }
