"""What holds whatever an image says: checked around and after every call of a target."""

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
    """Something that may not be: no error of ociroot, and none that a target lets through."""


def check(holds: bool, what: object) -> None:
    """Raise a finding unless something holds."""
    if not holds:
        raise Finding(what)


def refusal(error: OcirootError) -> tuple[str, str]:
    """Check what a user gets to see of a refusal: one printable line, and an exit code.

    Returns:
        The kind and the problem, for comparing two refusals; without numbers, since how many bytes
        are missing depends on how many were asked for at once.
    """
    text = str(error)
    check(bool(text) and text.isprintable(), f"an error that no terminal should see: {text!r}")
    check(1 <= error.exit_code <= 7, f"an unknown exit code: {error.exit_code}")
    return type(error).__name__, re.sub(r"\d+", "N", error.problem)


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """Give the path of a file that holds some bytes and lies in memory."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Check that the process is afterwards as it was, after a refusal, too."""
    descriptors, tuned = _descriptors(), _tuned()
    yield
    left = _descriptors() - descriptors
    for fd in left:
        os.close(int(fd))  # or the next inputs would have none
    check(not left, f"descriptors that were left open: {left}")
    check(_tuned() == tuned, f"the process was {tuned} and is {_tuned()}")


def _descriptors() -> set[str]:
    found = set(os.listdir("/proc/self/fd"))
    # Without that of the listing itself.
    return {fd for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")}


def _tuned() -> tuple[int, float, bool]:
    """Return the number of threads, and what the pipeline tunes."""
    return threading.active_count(), sys.getswitchinterval(), gc.isenabled()
