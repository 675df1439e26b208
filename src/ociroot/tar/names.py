"""Paths inside an archive."""

from __future__ import annotations

__all__ = ["clean"]


def clean(name: bytes) -> bytes:
    """Return a path relative to the root, without empty parts, ``.`` and ``..``.

    Args:
        name: the path as in the archive. ``..`` is resolved lexically and clamped at the root.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
