"""Settings of the interpreter while layers are read."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["tuned"]

# The size in bytes of a block that makes glibc keep the memory of the channels; it ignores blocks
# above 32 MiB (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
_LARGEST_BLOCK = 31 << 20


@contextmanager
def tuned() -> Iterator[None]:
    """Change settings of the interpreter for the pipeline, and restore them.

    With the default switch interval the writer waits 5 ms for the GIL each time another thread has
    acquired it; and collecting the many small objects of the tree, none of which is garbage, costs
    more than the tree. Both settings are global: the last user restores them. glibc returns freed
    memory to the kernel, which clears it again for each chunk; but it keeps up to twice the size of
    the largest block that was ever freed.
    """
    _tuning.enter()
    try:
        yield
    finally:
        _tuning.leave()


class _Tuning:
    """The number of users in this process, and the settings before the first one."""

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
