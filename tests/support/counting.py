"""Measure work in calls and bytes instead of seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest


def kept_by_libraries() -> int:
    """Return how many descriptors an interpreter keeps open with ctypes, beside the standard ones.

    libffi from 3.5 on may keep a file open for its trampolines.
    """
    code = (
        "import ctypes, os\n"
        "ctypes.CFUNCTYPE(None)(print)\n"
        "print(len(os.listdir('/proc/self/fd')))"  # and one for the list itself
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return int(done.stdout) - 4


class Counts:
    """The counters.

    Attributes:
        reads: calls that read from a file.
        bytes_read: bytes that they returned.
        looks: calls that look up a path, or one name of it.
    """

    def __init__(self) -> None:
        self.reads = 0
        self.bytes_read = 0
        self.looks = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Count system calls of this process."""
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
    """Return how many Python instructions some work executes."""
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
