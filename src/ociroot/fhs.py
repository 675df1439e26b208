"""The Filesystem Hierarchy Standard: what the top of a root file system looks like."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["looks_like_root"]

# Of the names at the top those that are rarely found elsewhere (`home` and `tmp` are).
_NAMES = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr")
) | {"var"}
# One of them alone may be anything.
_ENOUGH = 2


def looks_like_root(names: Iterable[str]) -> bool:
    """Say whether the names in a directory are those of a root file system."""
    return len(_NAMES.intersection(names)) >= _ENOUGH
