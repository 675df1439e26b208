"""A second process that makes small files, beside the one that reads the layers.

To make a small file costs the kernel more than it costs us to read and check what the archive says
of it; on one thread the two add up, and on two threads each return from the kernel would wait for
the interpreter's lock. So small files, links and removals go to a forked process, in batches: the
data through shared memory, the rest through a pipe. Each batch has a slot of the memory, and the
slot is free again when the batch is done. Directories, large files, and small ones while all slots
are taken, are made by the process that reads.

What is made here may overtake what is made there. That does no harm but after a removal, whose
place it may take: while one is under way, small files and directories follow it to the other
process, and large files wait for it.

The other process (:mod:`~ociroot.outputs.directory.forked.server`) exits when its pipe closes,
however this one came to its end, and blocks signals. Both hold the lock on the staging directory
until then.
"""

from __future__ import annotations

import marshal
import mmap
import os
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ....errors import DestinationError, OcirootError
from ....images.layers import LayerBlob
from ....layers.pipeline import diagnose
from ....notices import Notices
from ....rootfs.nodes import Directory, Node
from ....rootfs.tree import Tree
from ....tar.stream import Data
from ..writer import NAME, DirectoryWriter, removals
from .server import DONE, END, ERROR, LENGTH, serve

__all__ = ["NoProcess", "ProcessWriter", "writing"]

# Batches with data that may be on their way; the bytes of data and the operations in each.
_SLOTS = 16
_SLOT = 256 << 10
_OPERATIONS = 200
# How often to look whether a thread that has ended is gone.
_LOOKS = 100
# Bytes of a file that is worth copying to the shared memory.
_SMALL = 64 << 10

_Operation = tuple[Any, ...]


class NoProcess(Exception):
    """This process cannot fork, or need not."""


class _Failed(Exception):
    """An error raised in the other process, unrelated to the current entry of this one."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


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
        process = ProcessWriter(writer, notices, layers)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        except _Failed as failed:
            raise failed.error from None
        finally:
            process.close()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessWriter:
    """Shares the tree's operations out; see :class:`~ociroot.rootfs.operations.Operations`."""

    def __init__(
        self, writer: DirectoryWriter, notices: Notices, layers: Sequence[LayerBlob]
    ) -> None:
        """Fork the other process; see :func:`writing`."""
        if not _may_fork():
            raise NoProcess
        self._writer = writer
        self._notices = notices
        self._layers = layers
        fds: list[int] = []
        try:
            self._memory = mmap.mmap(-1, _SLOTS * _SLOT + mmap.PAGESIZE)
            fds += os.pipe()
            fds += os.pipe()
            counts = memoryview(self._memory)[-mmap.PAGESIZE :].cast("Q")
            pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise NoProcess from error
        requests, self._requests, self._answers, answers = fds
        if not pid:
            # Its own ends, which would delay EOF.
            os.close(self._requests)
            os.close(self._answers)
            writer.share(counts[3:6], counts[0:3], looks=False)
            whole = memoryview(self._memory)
            slots = [whole[at : at + _SLOT] for at in range(0, _SLOTS * _SLOT, _SLOT)]
            serve(writer, notices, slots, requests, answers)
        writer.share(counts[0:3], counts[3:6], looks=True)
        self._pid = pid
        self._status: int | None = None
        os.close(requests)
        os.close(answers)
        # Neither waits for the other alone: what one has to say may fill its pipe.
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)
        self._batch: list[_Operation] = []
        # Batches that have been sent, that have been done, and the last one with a removal.
        self._sent = self._done = 0
        self._removing = -1
        # Bytes of attributes and the like that the batch has beside what each operation has.
        self._extra = 0
        # Where in the memory the data of the batch goes to, and what is left of its slot.
        self._at = 0
        self._room = _SLOT
        # What the other process calls the directories. The root is 0, whichever object it is.
        self._numbers: dict[Directory, int] = {}
        self._count = 0
        self._last: Directory | None = None
        self._last_number = 0
        # What the other process had to tell in the end.
        self._end: list[tuple[str, str, int]] | None = None

    # What the tree asks for.

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if not self._in_order():
            self._writer.make_directory(directory)
            return
        self._writer.claim(self._writer.block, directory.parent or directory, directory.name)
        # The place of something that is removed there, perhaps; what goes into it waits, too.
        self._add(("make_directory", self._number(directory)), ordered=True)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        size = space = node.size
        if node.segments is not None or node.xattrs is not None:
            size, space = node.stored_size, self._writer.space_of(node)
        in_order = self._removing >= self._done and self._in_order()
        if size > _SMALL:
            if in_order:
                self._wait()
            elif size > _SLOT:
                self._flush()
            self._writer.make_file(parent, name, node, data)
            return
        number = self._last_number if parent is self._last else self._number(parent)
        full = size > self._room or len(self._batch) >= _OPERATIONS
        if full and not self._begin(wait=in_order):
            self._writer.make_file(parent, name, node, data)
            return
        self._writer.claim(space + self._writer.block, parent, name)
        at = self._at
        ready = data.try_read(size)
        if ready is not None:
            self._memory[at : at + size] = ready
        else:
            for piece in data.iter_chunks(size):
                self._memory[at : at + len(piece)] = piece
                at += len(piece)
        self._at += size
        self._room -= size
        self._batch.append(
            (
                *("make_file", number, name, node.size, node.segments),
                *(node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs),
            )
        )
        if node.xattrs is not None or node.segments is not None:
            self._weigh(node)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._writer.claim(self._writer.space_of(node) + self._writer.block, parent, name)
        self._add(
            (
                *("make_other", self._number(parent), name, node.kind, node.target, node.rdev),
                *(node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs),
            )
        )
        self._weigh(node)

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._writer.claim(NAME, parent, name)
        self._add(("make_link", self._number(parent), name, self._number(at[0]), at[1]))

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        for holder, below, child in removals(parent, name, node):
            number = None
            if isinstance(child, Directory):
                self._last = None
                self._writer.forget(child)
                number = self._numbers.pop(child, None)
            self._add(("remove_one", self._number(holder), below, child.kind, number), ordered=True)

    def end_layer(self, tree: Tree, layer: LayerBlob) -> None:
        """Say that what follows is of the next layer; see :func:`~ociroot.rootfs.merge.merge`."""
        self._add(("end_layer",))

    def finish(self, root: Directory) -> None:
        """See :meth:`DirectoryWriter.finish`; before, wait until everything has been done."""
        self._add(("finish",))
        self._flush()
        while self._end is None:
            self._answered()
        for notice in self._end:
            self._notices.add(*notice)
        self._writer.finish(root)

    def close(self) -> None:
        """Wait until the other process has ended, which does no more than what it has been sent."""
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
        finally:
            self._writer.close()

    def _reap(self) -> None:
        if self._status is None:
            with suppress(ChildProcessError):  # somebody waits for all children of this process
                self._status = os.waitpid(self._pid, 0)[1]

    # The way there.

    def _number(self, directory: Directory) -> int:
        """Return what the other process calls a directory, and tell it where it is."""
        if directory is self._last:
            return self._last_number
        missing: list[Directory] = []
        node = directory
        while node.parent is not None and node not in self._numbers:
            missing.append(node)
            node = node.parent
        number = self._numbers[node] if node.parent is not None else 0
        for node in reversed(missing):
            self._count += 1
            self._numbers[node] = self._count
            self._add(("place", self._count, number, node.name))
            number = self._count
        self._last, self._last_number = directory, number
        return number

    def _add(self, operation: _Operation, *, ordered: bool = False) -> None:
        """Have something done there; if ``ordered``, what follows must not overtake it."""
        if len(self._batch) >= _OPERATIONS:
            self._flush()
        self._batch.append(operation)
        if ordered:
            self._removing = self._sent

    def _weigh(self, node: Node) -> None:
        """Send a batch that has become large without data: how large is the image's to say."""
        for name, value in (node.xattrs or {}).items():
            self._extra += len(name) + len(value)
        self._extra += 16 * len(node.segments or ())
        if self._extra > _SLOT:
            self._flush()

    def _begin(self, *, wait: bool) -> bool:
        """Begin a new batch; say whether there is a slot for its data."""
        self._flush()
        while self._sent - self._done >= _SLOTS:
            if not self._answered(wait=wait):
                return False
        self._at = self._sent % _SLOTS * _SLOT
        self._room = _SLOT
        return True

    def _in_order(self) -> bool:
        """Say whether something is under way that must not be overtaken."""
        while self._done <= self._removing:
            if not self._answered(wait=False):
                return True
        return False

    def _wait(self) -> None:
        """Wait until all that has been asked for is done."""
        self._flush()
        while self._done < self._sent:
            self._answered()

    def _flush(self) -> None:
        """Send the batch."""
        if not self._batch:
            return
        message = marshal.dumps(self._batch)
        rest = memoryview(LENGTH.pack(len(message)) + message)
        while rest:
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                self._poll(self._requests)
                self._answered(wait=False)
            except BrokenPipeError:
                self._answered()  # until it says why
            except OSError as error:
                raise _Failed(DestinationError.from_os(error, "have files written")) from error
        self._batch = []
        self._extra = 0
        self._sent += 1
        self._room = 0

    def _answered(self, *, wait: bool = True) -> bool:
        """Take answers; say whether there were any."""
        try:
            answers = os.read(self._answers, 4096)
        except BlockingIOError:
            if wait:
                self._poll()
                return self._answered()
            return False
        done = len(answers) - len(answers.lstrip(DONE))
        self._done += done
        rest = answers[done:]
        if rest or not answers:
            self._take_last(rest)
        return True

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
        if answer[:1] == END:
            self._end = marshal.loads(answer[1:])  # noqa: S302 - our own words
            return
        if answer[:1] == ERROR:
            self._writer.close()  # to open a module takes descriptors, which may be few
            import pickle

            with suppress(EOFError, pickle.UnpicklingError):  # it was killed over it
                error, layer = pickle.loads(answer[1:])  # noqa: S301 - our own words
                if isinstance(error, OcirootError) and layer < len(self._layers):
                    error = diagnose(self._layers[layer], error)
                raise _Failed(error)
        self._reap()
        killed = self._status is not None and os.WIFSIGNALED(self._status)
        how = f"was killed by signal {os.WTERMSIG(self._status or 0)}" if killed else "ended"
        raise _Failed(DestinationError(f"the process that writes the small files {how}"))
