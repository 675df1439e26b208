"""Fork the process that writes small files, if that is possible and useful."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ....errors import OcirootError
from ....images.layers import LayerBlob
from ....notices import Notices
from ..writer import DirectoryWriter
from .child import Child, Failed
from .client import ProcessWriter
from .server import serve
from .shared import SharedMemory

__all__ = ["NoProcess", "writing"]

# The maximum number of checks whether a thread that has ended still exists.
_LOOKS = 100


class NoProcess(Exception):
    """This process cannot fork, or need not."""


def _may_fork() -> bool:
    """Return whether there is a second processor, and whether a fork is safe.

    After fork(2) the child has only the thread that forked: locks of other threads stay locked.
    """
    try:
        return len(os.sched_getaffinity(0)) > 1 and _is_alone()
    except OSError:
        return False


def _is_alone() -> bool:
    """Return whether this process has no other threads, of Python or of a library."""
    for _ in range(_LOOKS):
        if len(os.listdir("/proc/self/task")) == 1:
            return True
        if threading.active_count() > 1:
            break
        # A joined thread exists until the kernel has run it for the last time.
        os.sched_yield()
    return False


@contextmanager
def writing(
    writer: DirectoryWriter, notices: Notices, layers: Sequence[LayerBlob]
) -> Iterator[ProcessWriter]:
    """Share a writer's work with a second process.

    Args:
        writer: a writer that has not been used yet.
        notices: its warnings.
        layers: the layers in their order.

    Raises:
        NoProcess: there is no second process; the writer has not been used yet.
        OcirootError: an error of the second process.
    """
    # A signal handler may raise, which must not happen in the child, nor in the parent before the
    # code that ends the child is reached.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        process = _fork(writer, notices)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        except Failed as failed:
            raise _located(failed, layers) from None
        finally:
            process.close()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(writer: DirectoryWriter, notices: Notices) -> ProcessWriter:
    """Fork the child; return the parent's side."""
    if not _may_fork():
        raise NoProcess
    fds: list[int] = []
    try:
        shared = SharedMemory()
        fds += os.pipe()
        fds += os.pipe()
        pid = os.fork()
    except OSError as error:
        for fd in fds:
            os.close(fd)
        raise NoProcess from error
    requests, requests_end, answers, answers_end = fds
    own, others = shared.counts
    if not pid:
        # The parent's ends, which would delay EOF.
        os.close(requests_end)
        os.close(answers)
        writer.share(others, own, looks=False)
        serve(writer, notices, shared.views(), requests, answers_end)
    writer.share(own, others, looks=True)
    os.close(requests)
    os.close(answers_end)
    child = Child(pid, requests_end, answers, before_error=writer.close)
    return ProcessWriter(writer, notices, child, shared)


def _located(failed: Failed, layers: Sequence[LayerBlob]) -> BaseException:
    """Return an error of the child with its layer."""
    error, layer = failed.error, failed.layer
    if isinstance(error, OcirootError) and layer is not None and layer < len(layers):
        return error.locate(layer=layers[layer].label)
    return error
