"""How much work something is, in calls and bytes and not in seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest


class Counts:
    """What has been counted.

    Attributes:
        reads: calls that read from a file.
        bytes_read: bytes that they gave.
        looks: calls that look at a path, or at one name on the way to it.
    """

    def __init__(self) -> None:
        self.reads = 0
        self.bytes_read = 0
        self.looks = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Count what this process asks the kernel for."""
    counts = Counts()
    pread, lstat = os.pread, os.lstat

    def counted_pread(fd: int, size: int, offset: int) -> bytes:
        data = pread(fd, size, offset)
        counts.reads += 1
        counts.bytes_read += len(data)
        return data

    def counted_lstat(path: Any, **options: Any) -> os.stat_result:
        counts.looks += 1
        return lstat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", counted_pread)
        patch.setattr(os, "lstat", counted_lstat)
        yield counts


def steps(work: Callable[[], object]) -> int:
    """Return how many instructions of Python some work runs, each as often as it does."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
