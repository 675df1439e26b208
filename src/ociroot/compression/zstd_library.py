"""The library for zstd: the standard one, its backport, or ``zstandard``, which Debian 13 has."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import Unsupported

__all__ = ["standard_zstd", "zstandard"]


def standard_zstd() -> Any | None:
    """Return the module of the standard library or its backport; None if there is neither."""
    module: Any
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd as module
        else:
            from backports import zstd as module
    except ImportError:
        return None
    return module


def zstandard() -> Any:
    """Return the module ``zstandard``.

    Raises:
        Unsupported: it is not installed, so there is no library at all.
    """
    try:
        import zstandard as module
    except ImportError:
        raise Unsupported(
            "zstd requires a library", remedy="install backports.zstd or zstandard"
        ) from None
    return module
