"""Paths inside an archive."""

from __future__ import annotations

__all__ = ["as_bytes", "as_text", "clean"]


def as_text(name: bytes) -> str:
    """Return a name of an image as text from which :func:`as_bytes` makes the same name again.

    Bytes that are not UTF-8 become surrogate escapes, as in the names that Python's ``os`` returns.
    For output that people read, see :func:`~ociroot.printable`.
    """
    return name.decode("utf-8", "surrogateescape")


def as_bytes(path: str | bytes) -> bytes:
    """Return a path as the bytes that an image has; the reverse of :func:`as_text`."""
    return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")


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
