"""Names inside an archive."""

from __future__ import annotations

__all__ = ["clean"]


def clean(name: bytes) -> bytes:
    """Return a path inside the root: no leading ``/``, no empty parts, no ``.`` and no ``..``.

    Args:
        name: as it stands in the archive. ``..`` is resolved on the names alone and does not lead
            above the root.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
