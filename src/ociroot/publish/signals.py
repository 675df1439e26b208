"""Deferral of signals during clean-up and publication."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["first_signal_waits"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_under_way = False


@contextmanager
def first_signal_waits() -> Iterator[None]:
    """Defer the first signal to the end of the block; a second one is handled at once.

    A user who presses Ctrl-C while a large tree is removed expects the process to end without
    left-overs; one who presses it again does not want to wait for that. Only handlers that are
    Python functions are deferred, and only in the main thread, where Python calls them.
    """
    global _under_way
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread() and not _under_way:
        for each in _SIGNALS:
            handler = signal.getsignal(each)
            if callable(handler):
                handlers[each] = handler
    if not handlers:
        yield
        return
    waiting: list[int] = []

    def restore() -> None:
        for number, handler in handlers.items():
            # A handler that was called meanwhile may have installed another one.
            if signal.getsignal(number) is wait:
                signal.signal(number, handler)

    def wait(number: int, frame: FrameType | None) -> None:
        if not waiting:
            waiting.append(number)
            return
        waiting.clear()
        restore()
        handlers[number](number, frame)

    _under_way = True
    try:
        for number in handlers:
            signal.signal(number, wait)
        yield
    finally:
        _under_way = False
        restore()
        if waiting:
            handlers[waiting[0]](waiting[0], None)
