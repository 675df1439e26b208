"""Recognise a root file system by its top-level directories (Filesystem Hierarchy Standard)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["looks_like_root"]

# Names that are rare outside a root file system.
_TELLING = frozenset(("boot", "etc", "proc", "sbin", "sys", "usr", "var"))
# Names that a home directory or a Python environment has too: they count only together with one of
# those above.
_OTHERS = frozenset(("bin", "dev", "lib", "lib64", "root", "run"))


def looks_like_root(names: Iterable[str]) -> bool:
    """Return whether the names in a directory look like those of a root file system."""
    found = set(names)
    telling = len(found & _TELLING)
    return telling > 1 or (telling == 1 and bool(found & _OTHERS))
