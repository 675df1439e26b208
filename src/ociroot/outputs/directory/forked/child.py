"""The parent's side of the forked process: two pipes, and its exit status."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from ....errors import DestinationError
from .messages import DONE, Ended, Failure, Operation, is_end, pack, read_last

__all__ = ["Child", "Failed"]


class Failed(Exception):
    """An error raised in the child, unrelated to the current entry of the parent.

    Attributes:
        error: the error.
        layer: the number of layers that the child had completed; None: not related to a layer.
    """

    def __init__(self, error: BaseException, layer: int | None = None) -> None:
        super().__init__()
        self.error = error
        self.layer = layer


class Child:
    """Sends batches to the forked process, and receives its answers.

    Attributes:
        pid: its process ID.
        sent: the number of batches sent.
        done: the number of batches done.
        notices: its warnings; None: it has not finished yet.
    """

    def __init__(
        self, pid: int, requests: int, answers: int, before_error: Callable[[], None]
    ) -> None:
        """Take over the results of fork(2) and pipe(2).

        Args:
            pid: its process ID.
            requests: the write end of the pipe to it.
            answers: the read end of the pipe from it.
            before_error: frees descriptors before an error is read, because importing a module
                needs some.
        """
        self.pid = pid
        self.sent = self.done = 0
        self.notices: list[tuple[str, str, int]] | None = None
        self._requests = requests
        self._answers = answers
        self._before_error = before_error
        self._status: int | None = None
        # Non-blocking, because waiting for one pipe while the other is full would be a deadlock.
        os.set_blocking(requests, False)
        os.set_blocking(answers, False)

    def send(self, batch: list[Operation]) -> None:
        """Send a batch.

        Raises:
            Failed: something has failed in the child.
        """
        rest = memoryview(pack(batch))
        while rest:
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                self._poll(self._requests)
                self.answered(wait=False)
            except BrokenPipeError:
                self.answered()  # until the error arrives
            except OSError as error:
                raise Failed(DestinationError.from_os(error, "send files to be written")) from error
        self.sent += 1

    def answered(self, *, wait: bool = True) -> bool:
        """Receive answers; return whether there were any.

        Raises:
            Failed: something has failed in the child.
        """
        try:
            answers = os.read(self._answers, 4096)
        except BlockingIOError:
            if wait:
                self._poll()
                return self.answered()
            return False
        done = len(answers) - len(answers.lstrip(DONE))
        self.done += done
        rest = answers[done:]
        if rest or not answers:
            self._take_last(rest)
        return True

    def wait_for_all(self) -> None:
        """Wait until all batches are done."""
        while self.done < self.sent:
            self.answered()

    def wait_for_end(self) -> list[tuple[str, str, int]]:
        """Wait until it has finished; return its warnings."""
        while self.notices is None:
            self.answered()
        return self.notices

    def _poll(self, *to_write: int) -> None:
        """Wait until there are answers, or until a pipe is writable."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        for fd in to_write:
            poll.register(fd, select.POLLOUT)
        poll.poll()

    def _take_last(self, answer: bytes) -> None:
        """Receive the last answer of the child."""
        os.set_blocking(self._answers, True)
        while more := os.read(self._answers, 1 << 16):
            answer += more
        if not is_end(answer):
            self._before_error()
        last = read_last(answer)
        if isinstance(last, Ended):
            self.notices = last.notices
            return
        if isinstance(last, Failure):
            raise Failed(last.error, last.layer)
        self._reap()
        killed = self._status is not None and os.WIFSIGNALED(self._status)
        how = f"was killed by signal {os.WTERMSIG(self._status or 0)}" if killed else "ended"
        raise Failed(DestinationError(f"the process that writes small files {how}"))

    def close(self) -> None:
        """Close the pipes and wait until it has exited, after the batches that it was sent."""
        os.close(self._requests)
        os.close(self._answers)
        try:
            self._reap()
        except BaseException:
            # A signal. The child must still have exited before we clean up, whatever follows.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._reap()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise

    def _reap(self) -> None:
        if self._status is None:
            with suppress(ChildProcessError):  # another part of the program has waited for it
                self._status = os.waitpid(self.pid, 0)[1]
