"""A program that reads an archive from a pipe and writes a file: how it is fed, and how it ends.

It runs in a process group of its own, in the staging directory. When we fail or are interrupted the
whole group is killed; when we are killed it reads the end of the pipe, and its file is in a staging
directory, which the next run removes. Its messages are read all the time, so that it never waits
for us to do so, and only their beginning and their end are kept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

from ..errors import DestinationError, printable
from ..publish.signals import first_signal_waits
from ..space import SpaceBudget

__all__ = ["ToolOutput"]

# Bytes of the beginning and of the end of its messages that are kept, and characters of a line
# that are shown.
_KEPT = 4096
_SHOWN = 300
# Bytes in the pipe: the default of 64 KiB costs a tenth more time.
_PIPE = 1 << 20
# Bytes that are written between two looks at the free space.
_LOOK = 16 << 20
# Seconds that a program has to end when it has closed the pipe.
_PATIENCE = 10
_PAUSE = 0.01
# How the programs begin what is not advice, as on --help, a URL, or a list of what they know.
_ERROR = re.compile(rb"error|unrecogni|fatal", re.IGNORECASE)
# How the programs say that they could not write.
_WRITE_ERRORS = (b"No space left on device", b"I/O error", b"Write failed")
# Variables that change what the programs write.
_UNWANTED = ("SOURCE_DATE_EPOCH",)


class ToolOutput:
    """Feeds a program that writes a file into a staging directory.

    Attributes:
        file: the path of the file, for the program.
        size: bytes of the file, when it is finished.
    """

    def __init__(self, dir_fd: int, file_name: bytes, *, reserved: bool) -> None:
        """Prepare to run a program.

        Args:
            dir_fd: the directory that it writes to.
            file_name: the file's name in it.
            reserved: whether a reserve of the file system is left free.
        """
        self._dir_fd = dir_fd
        self._file_name = file_name
        self.file = "./" + os.fsdecode(file_name)  # which begins with no dash
        self._name = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._first, self._last = bytearray(), bytearray()
        self._reader: Thread | None = None
        self._budget = SpaceBudget(
            dir_fd,
            remedy="--max-size, of what the image may take, does without this check",
            reserved=reserved,
        )
        self._written = 0
        self.size = 0

    def start(self, command: Sequence[str]) -> None:
        """Start the program.

        Args:
            command: it and its arguments, with :attr:`file` among them.

        Raises:
            DestinationError: it cannot be started.
        """
        self._name = os.path.basename(command[0])
        environment = {k: v for k, v in os.environ.items() if k not in _UNWANTED}
        try:
            # A handler that raises must not do so before the process is known, or it would go on.
            with first_signal_waits():
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=f"/proc/self/fd/{self._dir_fd}",
                    env=environment | {"LC_ALL": "C"},
                    process_group=0,
                    bufsize=0,
                )
                self._process = process
                reader = Thread(target=self._read, args=(process,), name="ociroot-tool")
                reader.daemon = True
                reader.start()
                self._reader = reader
        except OSError as error:
            raise DestinationError.from_os(error, f"run {self._name}") from error
        assert process.stdin is not None  # noqa: S101
        with suppress(OSError):
            fcntl.fcntl(process.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Read all messages, and keep the beginning and the end of them."""
        assert process.stdout is not None  # noqa: S101
        with process.stdout as pipe:
            while data := pipe.read(_KEPT):
                room = _KEPT - len(self._first)
                self._first += data[:room]
                self._last += data[room:]
                del self._last[:-_KEPT]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Feed it the next bytes, all of them.

        Raises:
            DestinationError: it has failed, or there is no space left for it.
        """
        process = self._process
        assert process is not None and process.stdin is not None  # noqa: S101
        view = memoryview(data)
        before, self._written = self._written // _LOOK, self._written + len(view)
        if self._written // _LOOK != before:
            self._budget.require(0, f"no space left for {self._name} to go on")
        try:
            fd = process.stdin.fileno()
            while view:
                view = view[os.write(fd, view) :]
        except BrokenPipeError:
            self._wait(process, _PATIENCE)
            self.abandon()
            raise self._failure("it stopped reading too early") from None

    def finish(self, check: Callable[[bytes], bool]) -> None:
        """Tell it that this was all, and wait until it has written the file.

        Args:
            check: says whether the first bytes are those of a file of the format.

        Raises:
            DestinationError: it has failed.
        """
        process = self._process
        assert process is not None and process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            process.stdin.close()
        self._wait(process)
        self._end_reader()
        if process.returncode != 0:
            raise self._failure("")
        try:
            fd = os.open(
                self._file_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._dir_fd
            )
        except FileNotFoundError:
            raise self._failure("it wrote no file") from None
        try:
            if not check(os.pread(fd, 512, 0)):
                raise self._failure("what it wrote is not the format")
            self.size = os.fstat(fd).st_size
        finally:
            os.close(fd)

    def abandon(self) -> None:
        """End the program, if it runs still, with all that it has started."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101
        if process.returncode is None:
            _kill_group(process)
        with suppress(OSError):
            process.stdin.close()
        self._end_reader()

    def _wait(self, process: subprocess.Popen[bytes], patience: float | None = None) -> None:
        """Wait until it has ended, and end what it has started and left behind."""
        ended = os.WEXITED | os.WNOWAIT
        if patience is None:
            os.waitid(os.P_PID, process.pid, ended)
        else:
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if os.waitid(os.P_PID, process.pid, ended | os.WNOHANG) is not None:
                    break
                time.sleep(_PAUSE)
        _kill_group(process)

    def _end_reader(self) -> None:
        if self._reader is not None:
            # Something that it has started may hold the other end.
            self._reader.join(_PATIENCE)

    def _failure(self, problem: str) -> DestinationError:
        """Return the error for a program that failed, with what its messages say of the cause."""
        process = self._process
        code = process.returncode if process is not None else None
        if code is not None and code < 0:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        elif code:
            how = f"failed with exit code {code}"
        else:
            how = "failed"
        messages = bytes(self._first + self._last)
        lines = [line.strip() for line in messages.splitlines() if line.strip()]
        line = next(filter(_ERROR.search, lines), lines[0] if lines else None)
        said = printable(line)[:_SHOWN] if line is not None else problem
        said = f"{self._name} {how}" + (f": {said}" if said else "")
        # tar2sqfs does not say why it could not write, and removes what it wrote.
        room = self._room()
        if room < self._written and any(each in messages for each in _WRITE_ERRORS):
            return DestinationError(
                f"{said}; there were {room} bytes for what it writes", errno=errno.ENOSPC
            )
        return DestinationError(said)

    def _room(self) -> int:
        """Return the free bytes, with those of the file, which it may have removed already."""
        status = os.fstatvfs(self._dir_fd)
        free = status.f_bavail * status.f_frsize
        with suppress(FileNotFoundError):
            file = os.stat(self._file_name, dir_fd=self._dir_fd, follow_symlinks=False)
            free += file.st_blocks * 512
        return free


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has not been reaped, so that its number is no other group's."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
