"""Paths in the public interface: text, bytes or ``PurePosixPath``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..tar import names
from ..tar.names import as_text

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    #: The type of a path argument, which is also that of the returned paths.
    P = TypeVar("P", str, bytes, PurePosixPath)

__all__ = ["AnyPath", "as_bytes", "cleaned", "returner"]

#: A path inside the root file system.
AnyPath: TypeAlias = "str | bytes | PurePosixPath"


def as_bytes(path: AnyPath) -> bytes:
    """Return a path's bytes; invalid UTF-8 is encoded as surrogate escapes in text.

    Raises:
        TypeError: it is not a path.
    """
    raw = os.fspath(path)
    return names.as_bytes(raw)


def cleaned(path: bytes) -> bytes:
    """Return a path without ``/`` at its ends and without ``.``; ``..`` may follow a link."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def returner(path: AnyPath) -> Callable[[bytes], Any]:
    """Return a function that converts a path's bytes to the type of the given path."""
    if isinstance(path, bytes):
        return bytes
    if isinstance(path, str):
        return as_text
    from pathlib import PurePosixPath  # 2 ms that whoever uses it has spent already

    return lambda raw: PurePosixPath(as_text(raw))
