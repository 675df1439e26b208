"""The interpreter's settings while layers are read."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["tuned"]

# Bytes of a block that makes glibc keep what the channels hold at most; above 32 MiB it takes no
# notice (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
_LARGEST_BLOCK = 31 << 20


@contextmanager
def tuned() -> Iterator[None]:
    """Set the interpreter up for the pipeline, and restore it.

    With the default switch interval the writer waits 5 ms for the GIL each time another thread has
    taken it; and a collection of the many small objects of the tree, none of which is garbage,
    costs more than the tree. Both are the process's: the last one to leave restores them. glibc
    gives freed memory back to the kernel, which clears it each time that a chunk gets it again; it
    keeps up to twice the size of the largest block that was ever freed, however.
    """
    _tuning.enter()
    try:
        yield
    finally:
        _tuning.leave()


class _Tuning:
    """How many are at work in this process, and how the first one found it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = (0.0, False)

    def enter(self) -> None:
        with self._lock:
            if not self._count:
                self._before = (sys.getswitchinterval(), gc.isenabled())
                sys.setswitchinterval(5e-5)
                gc.disable()
                with suppress(MemoryError):
                    bytes(_LARGEST_BLOCK)  # never touched
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                interval, collecting = self._before
                sys.setswitchinterval(interval)
                if collecting:
                    gc.enable()


_tuning = _Tuning()
