"""Standard streams with defined errors.

A failed write to stdout is an error, reported in one line. A failed write to stderr is ignored:
there is nowhere left to report it.
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
    """Standard output cannot be written. Not an OSError, which click would handle itself.

    Attributes:
        reader_gone: whether the reader has closed the pipe, which is not an error.
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
        if written is None:  # a non-blocking pipe that is full
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
    """Replace stdout and stderr with streams that fail as described in the module's docstring."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _occupy()
    # Closed at the end, because some file systems report ENOSPC only at close.
    sys.stdout = _text(_Output(1, "w"), sys.stdout)
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr)
    sys.stderr.reconfigure(line_buffering=True)


def _text(raw: io.FileIO, old: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream over a file, with the encoding of the stream that it replaces."""
    encoding, errors = (old.encoding, old.errors) if old is not None else ("utf-8", "replace")
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=raw.isatty())


def _occupy() -> None:
    """Occupy the descriptors of closed standard streams.

    Otherwise the next file that is opened would become stdin, stdout or stderr. The wrong ends of a
    pipe are used: they are available everywhere, and reading or writing them fails with EBADF, as
    on a closed descriptor.
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
