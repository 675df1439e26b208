"""Invariants for every input, checked around and after every call of a target."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ociroot.errors import OcirootError

__all__ = ["Finding", "check", "memory_file", "refusal", "undisturbed"]


class Finding(Exception):
    """A violated invariant, or an exception that a target does not expect."""


def check(holds: bool, what: object) -> None:
    """Raise a finding unless a condition holds."""
    if not holds:
        raise Finding(what)


def refusal(error: OcirootError) -> tuple[str, str]:
    """Check the message of a refusal: one printable line, and an exit code.

    Returns:
        The kind and the problem, to compare two refusals; without numbers, because the number of
        missing bytes depends on the size of the reads.
    """
    text = str(error)
    check(bool(text) and text.isprintable(), f"an error that no terminal should see: {text!r}")
    check(1 <= error.exit_code <= 7, f"an unknown exit code: {error.exit_code}")
    return type(error).__name__, re.sub(r"\d+", "N", error.problem)


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """Provide the path of a file in memory with this content."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Check that the state of the process is unchanged afterwards, also after a refusal."""
    descriptors, tuned = _descriptors(), _tuned()
    yield
    left = _descriptors() - descriptors
    for fd in left:
        os.close(int(fd))  # so that the next inputs have enough
    check(not left, f"descriptors that were left open: {left}")
    check(_tuned() == tuned, f"the process was {tuned} and is {_tuned()}")


def _descriptors() -> set[str]:
    found = set(os.listdir("/proc/self/fd"))
    # Without the descriptor of the listing itself.
    return {fd for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")}


def _tuned() -> tuple[int, float, bool]:
    """Return the number of threads, and the process settings that the pipeline changes."""
    return threading.active_count(), sys.getswitchinterval(), gc.isenabled()
