"""The forked process as the one that forked it sees it: a pipe there, a pipe back, and its end."""

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
    """An error raised in the other process, unrelated to the current entry of this one.

    Attributes:
        error: the error.
        layer: how many layers had ended there; None: it is not about a layer.
    """

    def __init__(self, error: BaseException, layer: int | None = None) -> None:
        super().__init__()
        self.error = error
        self.layer = layer


class Child:
    """Sends batches to the forked process, and takes its answers.

    Attributes:
        pid: its number.
        sent: batches that have been sent.
        done: those of them that are done.
        notices: what came up there; None: it has not ended yet.
    """

    def __init__(
        self, pid: int, requests: int, answers: int, before_error: Callable[[], None]
    ) -> None:
        """Take over what fork(2) and pipe(2) gave.

        Args:
            pid: its number.
            requests: where it is written to.
            answers: where it is read from.
            before_error: frees descriptors, which may be few, before an error is read: to import
                a module takes some.
        """
        self.pid = pid
        self.sent = self.done = 0
        self.notices: list[tuple[str, str, int]] | None = None
        self._requests = requests
        self._answers = answers
        self._before_error = before_error
        self._status: int | None = None
        # Neither waits for the other alone: what one has to say may fill its pipe.
        os.set_blocking(requests, False)
        os.set_blocking(answers, False)

    def send(self, batch: list[Operation]) -> None:
        """Send a batch.

        Raises:
            Failed: something has failed there.
        """
        rest = memoryview(pack(batch))
        while rest:
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                self._poll(self._requests)
                self.answered(wait=False)
            except BrokenPipeError:
                self.answered()  # until it says why
            except OSError as error:
                raise Failed(DestinationError.from_os(error, "have files written")) from error
        self.sent += 1

    def answered(self, *, wait: bool = True) -> bool:
        """Take answers; say whether there were any.

        Raises:
            Failed: something has failed there.
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
        """Wait until it has ended; return what came up there."""
        while self.notices is None:
            self.answered()
        return self.notices

    def _poll(self, *to_write: int) -> None:
        """Wait until there are answers, or a pipe can be written to."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        for fd in to_write:
            poll.register(fd, select.POLLOUT)
        poll.poll()

    def _take_last(self, answer: bytes) -> None:
        """Take what the other process says last."""
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
        raise Failed(DestinationError(f"the process that writes the small files {how}"))

    def close(self) -> None:
        """Wait until it has ended, which does no more than what it has been sent."""
        os.close(self._requests)
        os.close(self._answers)
        try:
            self._reap()
        except BaseException:
            # A signal; and still nobody else may be at work when we clean up, whatever comes next.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._reap()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise

    def _reap(self) -> None:
        if self._status is None:
            with suppress(ChildProcessError):  # somebody waits for all children of this process
                self._status = os.waitpid(self.pid, 0)[1]
