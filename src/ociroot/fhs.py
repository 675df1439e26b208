"""The Filesystem Hierarchy Standard: what the top of a root file system looks like."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["looks_like_root"]

# Names at the top, two of which are rarely found in anything else.
_NAMES = frozenset(("bin", "etc", "lib", "sbin", "usr", "var"))
# But for these: a home and a Python environment have them, too.
_ANYWHERE = frozenset(("bin", "lib"))


def looks_like_root(names: Iterable[str]) -> bool:
    """Say whether the names in a directory are those of a root file system."""
    found = _NAMES.intersection(names)
    return len(found) > 1 and not found <= _ANYWHERE
