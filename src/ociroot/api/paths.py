"""Paths as a caller gives them, and gets them back: text, bytes or ``PurePosixPath``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..tar import names
from ..tar.names import as_text

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    #: The type of a path that a method is given, which is that of the paths that it returns.
    P = TypeVar("P", str, bytes, PurePosixPath)

__all__ = ["AnyPath", "as_bytes", "cleaned", "returner"]

#: A path inside the root file system.
AnyPath: TypeAlias = "str | bytes | PurePosixPath"


def as_bytes(path: AnyPath) -> bytes:
    """Return a path's bytes; those that are no UTF-8 are surrogate escapes in text.

    Raises:
        TypeError: it is no path.
    """
    raw = os.fspath(path)
    return names.as_bytes(raw)


def cleaned(path: bytes) -> bytes:
    """Return a path without ``/`` at its ends and without ``.``; ``..`` may lead through a link."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def returner(path: AnyPath) -> Callable[[bytes], Any]:
    """Return what turns a path's bytes into the type that a path was given in."""
    if isinstance(path, bytes):
        return bytes
    if isinstance(path, str):
        return as_text
    from pathlib import PurePosixPath  # 2 ms that whoever uses it has spent already

    return lambda raw: PurePosixPath(as_text(raw))
