"""Forking the process that makes small files, where there may be one."""

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

# How often to look whether a thread that has ended is gone.
_LOOKS = 100


class NoProcess(Exception):
    """This process cannot fork, or need not."""


def _may_fork() -> bool:
    """Say whether another process would find a processor, and can be forked without harm.

    After fork(2) a process has only the thread that forked: what another one held stays locked.
    """
    try:
        return len(os.sched_getaffinity(0)) > 1 and _is_alone()
    except OSError:
        return False


def _is_alone() -> bool:
    """Say whether this process has no other threads, of Python or of a library."""
    for _ in range(_LOOKS):
        if len(os.listdir("/proc/self/task")) == 1:
            return True
        if threading.active_count() > 1:
            break
        # One that has been joined is there until the kernel has run it for the last time.
        os.sched_yield()
    return False


@contextmanager
def writing(
    writer: DirectoryWriter, notices: Notices, layers: Sequence[LayerBlob]
) -> Iterator[ProcessWriter]:
    """Have a second process do a part of a writer's work.

    Args:
        writer: a writer that has not been used yet.
        notices: its notices.
        layers: the layers in their order.

    Raises:
        NoProcess: it has to do all of it itself, and has done nothing yet.
        OcirootError: what the other process raised.
    """
    # A signal's handler may raise, which must not happen in the other process, nor here before
    # there is one who ends it.
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
    """Fork the other process; return the side of this one."""
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
        # The ends of the one that forked, which would delay EOF.
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
    """Return an error of the other process with the layer, whose content it is never about."""
    error, layer = failed.error, failed.layer
    if isinstance(error, OcirootError) and layer is not None and layer < len(layers):
        return error.locate(layer=layers[layer].label)
    return error
