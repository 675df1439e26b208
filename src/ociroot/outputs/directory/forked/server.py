"""The forked process of :mod:`~ociroot.outputs.directory.forked.client`: executes batches."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from ....errors import OcirootError
from ....notices import Notices
from ....rootfs.nodes import Directory, Node
from ..standard import fill_standard
from ..writer import DirectoryWriter
from . import messages

__all__ = ["Server", "serve"]


def serve(
    writer: DirectoryWriter,
    notices: Notices,
    slots: Sequence[memoryview],
    requests: int,
    answers: int,
) -> None:
    """Execute batches until the pipe closes, and exit this process.

    Args:
        writer: the writer for the same root.
        notices: its warnings.
        slots: the slots of the shared memory, used in turn.
        requests: the read end of the pipe with batches.
        answers: the write end of the pipe for answers.
    """
    try:
        # Signals have been blocked since before the fork: the parent handles them, and ends this
        # process by closing the pipe.
        signal.set_wakeup_fd(-1)
        gc.disable()
        _close_others({writer.root_fd, requests, answers})
        server = Server(writer, slots, requests, answers)
        notices.take()
        try:
            if not server.run():
                return
            last = messages.write_ended(notices.take())
        except _Gone:
            return
        except BaseException as error:
            if not isinstance(error, OcirootError):
                import traceback

                error.add_note(traceback.format_exc())
            last = messages.write_failure(error, server.layer)
        _say(answers, last)
    finally:
        # No clean-up: everything that this process has inherited belongs to the parent.
        os._exit(0)


class _Gone(Exception):
    """The parent has exited."""


def _say(fd: int, message: bytes) -> None:
    try:
        while message:
            message = message[os.write(fd, message) :]
    except OSError as error:
        raise _Gone from error


def _close_others(needed: set[int]) -> None:
    """Close the other inherited descriptors: an inherited write end would delay EOF."""
    for fd in {0, 1, 2} - needed:
        with suppress(OSError):
            os.close(fd)
    fill_standard()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in needed:
            with suppress(OSError):  # the descriptor of the listing itself
                os.close(int(name))


def _receive(fd: int) -> bytes | None:
    """Receive a message; None at the end."""
    head = _read(fd, messages.LENGTH.size)
    return _read(fd, *messages.LENGTH.unpack(head)) if head is not None else None


def _read(fd: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Server:
    """Executes the operations of batches; it also provides the data of their files."""

    def __init__(
        self,
        writer: DirectoryWriter,
        slots: Sequence[memoryview],
        requests: int,
        answers: int,
    ) -> None:
        """Begin with nothing done; see :func:`serve`."""
        self._writer = writer
        self._slots = slots
        self._requests = requests
        self._answers = answers
        self._places = {0: Directory(None, b"", 0)}
        self._file = Node("file", -1)  # the current one
        # The slot of the current batch, and the offset of the next data in it.
        self._slot = slots[0]
        self._at = 0
        self._at_end = False
        #: The number of complete layers.
        self.layer = 0

    def run(self) -> bool:
        """Execute all batches; return whether the last one arrived before the pipe closed."""
        known: dict[str, Callable[..., None]] = {
            "place": self._place,
            "make_directory": self._make_directory,
            "make_file": self._make_file,
            "make_other": self.make_other,
            "make_link": self._make_link,
            "remove_one": self._remove_one,
            "end_layer": self._end_layer,
            "finish": self._finish,
        }
        number = 0
        while (message := _receive(self._requests)) is not None:
            self._slot = self._slots[number % len(self._slots)]
            self._at = 0
            for operation in messages.unpack(message):
                known[operation[0]](operation)
            if self._at_end:
                return True
            number += 1
            _say(self._answers, messages.DONE)
        return False

    # The data of a file.

    def try_read(self, size: int) -> memoryview:
        """See :class:`~ociroot.tar.stream.Data`."""
        at = self._at
        self._at = at + size
        return self._slot[at : at + size]

    def iter_chunks(self, size: int) -> Iterator[memoryview]:
        """See :class:`~ociroot.tar.stream.Data`."""
        yield self.try_read(size)

    # The operations.

    def _place(self, operation: messages.Place) -> None:
        _, number, parent, name = operation
        self._places[number] = Directory(self._places[parent], name, -1)

    def _make_directory(self, operation: messages.MakeDirectory) -> None:
        self._writer.make_directory(self._places[operation[1]])

    def _make_file(self, operation: messages.MakeFile) -> None:
        node = self._file
        messages.read_file(operation, node)
        self._writer.make_file(self._places[operation[1]], operation[2], node, self)

    def make_other(self, operation: messages.MakeOther) -> None:
        """Create a symbolic link, a device or a FIFO."""
        node = messages.read_other(operation)
        self._writer.make_other(self._places[operation[1]], operation[2], node)

    def _make_link(self, operation: messages.MakeLink) -> None:
        _, parent, name, holder, target = operation
        at = (self._places[holder], target)
        self._writer.make_link(self._places[parent], name, Node("file", -1), at)

    def _remove_one(self, operation: messages.RemoveOne) -> None:
        _, parent, name, kind, number = operation
        node = Node(kind, -1) if number is None else self._places.pop(number)
        if kind == "dir" and number is None:
            node = Directory(self._places[parent], name, -1)
        self._writer.remove_one(self._places[parent], name, node)

    def _end_layer(self, _: messages.Mark) -> None:
        self.layer += 1

    def _finish(self, _: messages.Mark) -> None:
        self._at_end = True
