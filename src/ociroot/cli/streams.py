"""The standard streams as the command needs them: whatever they are, it has one error, or none.

What cannot be written to stdout is a failure, told in one line; what cannot be written to stderr is
lost, since there is nowhere left to tell of it, and fails nothing.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["OutputError", "prepare"]


class OutputError(Exception):
    """Standard output cannot be written. No OSError, of which click makes an exit of its own.

    Attributes:
        reader_gone: whether it is a pipe that nobody reads any more, which is no fault.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__(f"cannot write to standard output: {os.strerror(number or errno.EIO)}")
        self.reader_gone = number == errno.EPIPE


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written: int | None = super().write(data)
        except OSError as error:
            raise OutputError(error.errno) from error
        if written is None:  # a pipe that does not block, and is full
            raise OutputError(errno.EAGAIN)
        return written


class _Messages(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def prepare() -> None:
    """Replace stdout and stderr by streams that fail as this module says."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _occupy()
    # Closed at the end, for some file systems tell only then that there was no room.
    sys.stdout = _text(_Output(1, "w"), sys.stdout)
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr)
    sys.stderr.reconfigure(line_buffering=True)


def _text(raw: io.FileIO, old: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream over a file, which writes text as the one that it replaces."""
    encoding, errors = (old.encoding, old.errors) if old is not None else ("utf-8", "replace")
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=raw.isatty())


def _occupy() -> None:
    """Put something that cannot be used where a standard stream is closed.

    Else the next file that is opened would be stdin, stdout or stderr. It is a pipe, held at its
    wrong ends: the kernel has these wherever we run, and refuses to use them as it does a closed
    descriptor.
    """
    import fcntl

    pipe = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in pipe)
    for end in pipe:
        os.close(end)
    for number, end in ((0, writing), (1, reading), (2, reading)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(end, number)
    os.close(reading)
    os.close(writing)
