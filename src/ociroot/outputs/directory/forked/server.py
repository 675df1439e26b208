"""The forked process of :mod:`~ociroot.outputs.directory.forked.client`: carries out batches."""

from __future__ import annotations

import gc
import marshal
import os
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ....errors import OcirootError
from ....notices import Notices
from ....rootfs.nodes import Directory, Node
from ..standard import fill_standard
from ..writer import DirectoryWriter

__all__ = ["DONE", "END", "ERROR", "LENGTH", "serve"]

#: What stands before a batch: its length in bytes.
LENGTH = struct.Struct("<Q")
#: What is answered: that a batch is done, that all is done, that something failed.
DONE, END, ERROR = b".", b"=", b"!"


def serve(
    writer: DirectoryWriter,
    notices: Notices,
    slots: Sequence[memoryview],
    requests: int,
    answers: int,
) -> None:
    """Do what is asked for, and end this process.

    Args:
        writer: what does it.
        notices: its notices.
        slots: the shared memory of batches, which take turns.
        requests: the end of a pipe from which batches are read.
        answers: the end of a pipe to which it is written what became of them.
    """
    try:
        # Signals are blocked from before the fork: they are the reader's to handle, who ends this
        # process by closing the pipe.
        signal.set_wakeup_fd(-1)
        gc.disable()
        _close_others({writer.root_fd, requests, answers})
        server = Server(writer, slots, requests, answers)
        notices.take()
        try:
            if not server.run():
                return
            last = END + marshal.dumps(notices.take())
        except _Gone:
            return
        except BaseException as error:
            import pickle
            import traceback

            if not isinstance(error, OcirootError):
                error.add_note(traceback.format_exc())
            last = ERROR + pickle.dumps((error, server.layer))
        _say(answers, last)
    finally:
        # Nothing of what this process has inherited is its to clean up.
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
    """Close the other inherited descriptors: a write end of a pipe would delay its reader's EOF."""
    for fd in {0, 1, 2} - needed:
        with suppress(OSError):
            os.close(fd)
    fill_standard()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in needed:
            with suppress(OSError):  # that of the list itself
                os.close(int(name))


def _receive(fd: int) -> bytes | None:
    """Receive a message; None at the end."""
    head = _read(fd, LENGTH.size)
    return _read(fd, *LENGTH.unpack(head)) if head is not None else None


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
    """Does what batches ask for; it is also the data behind their files."""

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
        self._file = Node("file", -1)  # the one in hand
        # The slot of the batch in hand, and where in it the next data is.
        self._slot = slots[0]
        self._at = 0
        self._at_end = False
        #: How many layers have ended.
        self.layer = 0

    def run(self) -> bool:
        """Do everything; say whether it came to the end, or to that of the one who asks."""
        known: dict[str, Callable[..., None]] = {
            "place": self._place,
            "make_directory": self._make_directory,
            "make_file": self._make_file,
            "make_other": self._make_other,
            "make_link": self._make_link,
            "remove_one": self._remove_one,
            "end_layer": self._end_layer,
            "finish": self._finish,
        }
        number = 0
        while (message := _receive(self._requests)) is not None:
            self._slot = self._slots[number % len(self._slots)]
            self._at = 0
            for operation in marshal.loads(message):  # noqa: S302 - our own words
                try:
                    known[operation[0]](*operation)
                except OcirootError as error:
                    if error.member is None:
                        error.member = self._places[operation[1]].path_of(operation[2])
                    raise
            if self._at_end:
                return True
            number += 1
            _say(self._answers, DONE)
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

    def _place(self, _: str, number: int, parent: int, name: bytes) -> None:
        self._places[number] = Directory(self._places[parent], name, -1)

    def _make_directory(self, _: str, number: int) -> None:
        self._writer.make_directory(self._places[number])

    def _make_file(
        self,
        _: str,
        parent: int,
        name: bytes,
        size: int,
        segments: list[tuple[int, int]] | None,
        *attributes: Any,
    ) -> None:
        node = self._file
        node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = attributes
        node.size = size
        node.segments = segments
        self._writer.make_file(self._places[parent], name, node, self)

    def _make_other(
        self,
        _: str,
        parent: int,
        name: bytes,
        kind: Any,
        target: bytes,
        rdev: tuple[int, int],
        *attributes: Any,
    ) -> None:
        node = Node(kind, -1)
        node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = attributes
        node.target = target
        node.rdev = rdev
        self._writer.make_other(self._places[parent], name, node)

    def _make_link(self, _: str, parent: int, name: bytes, holder: int, target: bytes) -> None:
        at = (self._places[holder], target)
        self._writer.make_link(self._places[parent], name, Node("file", -1), at)

    def _remove_one(self, _: str, parent: int, name: bytes, kind: Any, number: int | None) -> None:
        node = Node(kind, -1) if number is None else self._places.pop(number)
        if kind == "dir" and number is None:
            node = Directory(self._places[parent], name, -1)
        self._writer.remove_one(self._places[parent], name, node)

    def _end_layer(self, _: str) -> None:
        self.layer += 1

    def _finish(self, _: str) -> None:
        self._at_end = True
