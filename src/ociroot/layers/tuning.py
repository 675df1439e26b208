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
    user = object()
    try:
        _tuning.enter(user)
        yield
    finally:
        try:
            _tuning.leave(user)
        except BaseException:  # of a signal handler, before it was done
            _tuning.leave(user)
            raise


class _Tuning:
    """The users in this process, and the settings before the first one.

    A signal handler may raise at any point of :meth:`enter` and :meth:`leave`: ``leave`` may be
    called again, and for a user that has not entered. Handlers and finalizers may read an image,
    too, on the thread that holds the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users: set[object] = set()
        # None: the settings are not changed.
        self._before: tuple[float, bool] | None = None

    def enter(self, user: object) -> None:
        with self._lock:
            is_first = not self._users
            self._users.add(user)
            if is_first:
                self._before = (sys.getswitchinterval(), gc.isenabled())
                sys.setswitchinterval(5e-5)
                gc.disable()
                with suppress(MemoryError):
                    bytes(_LARGEST_BLOCK)  # never touched

    def leave(self, user: object) -> None:
        with self._lock:
            if self._before is not None and self._users <= {user}:
                interval, collecting = self._before
                sys.setswitchinterval(interval)
                if collecting:
                    gc.enable()
                self._before = None
            self._users.discard(user)


_tuning = _Tuning()
