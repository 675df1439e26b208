"""Opening a directory far below another one at once, where Linux can.

An image may have thousands of directories in each other, and go from one end to the other with each
entry. To open them one by one takes a thousand times as long as to make a file.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

__all__ = ["open_far"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# openat2(2), since Linux 5.6; it has this number wherever Debian runs.
_OPENAT2 = 437
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
# Bytes of a path, as Linux has it (PATH_MAX, with the final NUL).
_MAX_PATH = 4095


class _How(ctypes.Structure):
    """What is to be opened how: ``struct open_how``."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_far(fd: int, names: Sequence[bytes]) -> int | None:
    """Open the directory at the end of a chain of directories.

    No name of the chain may be a symbolic link: the kernel follows none, as with ``O_NOFOLLOW`` and
    one name at a time.

    Args:
        fd: the directory that the first one is in.
        names: the names, none of which is ``..``.

    Returns:
        Its descriptor; None: it cannot be opened so. Whoever opens them one by one sees why.
    """
    at = fd
    for path in _paths(names):
        below = _openat2(at, path)
        if at != fd:
            os.close(at)
        if below < 0:
            return None
        at = below
    return at


def _paths(names: Sequence[bytes]) -> Iterator[bytes]:
    """Join names to paths of which each is as long as it may be."""
    part: list[bytes] = []
    length = 0
    for name in names:
        if length + len(name) > _MAX_PATH:
            yield b"/".join(part)
            part, length = [], 0
        part.append(name)
        length += len(name) + 1
    yield b"/".join(part)


@cache
def _syscall() -> Any:
    function = ctypes.CDLL(None).syscall
    function.restype = ctypes.c_long
    return function


def _openat2(fd: int, path: bytes) -> int:
    how = _How(_OPEN, 0, _NO_SYMLINKS | _BENEATH)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return int(_syscall()(ctypes.c_long(_OPENAT2), fd, path, ctypes.byref(how), size))
