"""The Filesystem Hierarchy Standard: what the top of a root file system looks like."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["looks_like_root"]

# Names at the top that are rarely found elsewhere.
_TELLING = frozenset(("boot", "etc", "proc", "sbin", "sys", "usr", "var"))
# Names that a home or a Python environment has, too: they count only beside one of those.
_OTHERS = frozenset(("bin", "dev", "lib", "lib64", "root", "run"))


def looks_like_root(names: Iterable[str]) -> bool:
    """Say whether the names in a directory are those of a root file system."""
    found = set(names)
    telling = len(found & _TELLING)
    return telling > 1 or (telling == 1 and bool(found & _OTHERS))
