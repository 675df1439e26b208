"""What the two processes say to each other, each message written and read side by side.

Batches of operations go to the forked process, by marshal: it takes plain tuples only, in half the
time of a typed record. So an operation is a tuple that begins with its name; its type says what the
other items are, and nobody but this module puts a node's attributes into one, or takes them out.
Back come a byte for each batch that is done, and at last how it ended.
"""

from __future__ import annotations

import marshal
import struct
from typing import Any, Literal, NamedTuple

from ....rootfs.nodes import Node
from ....tar.entry import Kind
from ....tar.sparse import Segments

__all__ = [
    "DONE",
    "LENGTH",
    "Ended",
    "Failure",
    "MakeDirectory",
    "MakeFile",
    "MakeLink",
    "MakeOther",
    "Mark",
    "Operation",
    "Place",
    "RemoveOne",
    "is_end",
    "make_file",
    "make_other",
    "pack",
    "read_file",
    "read_last",
    "read_other",
    "unpack",
    "write_ended",
    "write_failure",
]

#: What stands before a batch: its length in bytes.
LENGTH = struct.Struct("<Q")

# Operations. A directory is a number there; the root is 0.

_Xattrs = dict[bytes, bytes] | None
#: A directory gets a number: its own, its parent's, its name.
Place = tuple[Literal["place"], int, int, bytes]
#: The number of the directory.
MakeDirectory = tuple[Literal["make_directory"], int]
#: Parent, name, size and segments, and the attributes: mode, owner, group, time, xattrs.
MakeFile = tuple[
    Literal["make_file"], int, bytes, int, Segments | None, int, int, int, int, _Xattrs
]
#: Parent, name, kind, target and device, and the attributes.
MakeOther = tuple[
    Literal["make_other"], int, bytes, Kind, bytes, tuple[int, int], int, int, int, int, _Xattrs
]
#: Parent, name, and the same of the name that is there.
MakeLink = tuple[Literal["make_link"], int, bytes, int, bytes]
#: Parent, name, kind; of a directory the number that is free from then on, if it has one.
RemoveOne = tuple[Literal["remove_one"], int, bytes, Kind, int | None]
#: What follows is of the next layer; nothing follows.
Mark = tuple[Literal["end_layer", "finish"]]

Operation = Place | MakeDirectory | MakeFile | MakeOther | MakeLink | RemoveOne | Mark


def make_file(parent: int, name: bytes, node: Node) -> MakeFile:
    """Return what has a regular file made; its data is in the slot of the batch."""
    return (
        "make_file",
        parent,
        name,
        node.size,
        node.segments,
        node.mode,
        node.uid,
        node.gid,
        node.mtime_ns,
        node.xattrs,
    )


def read_file(operation: MakeFile, node: Node) -> None:
    """Give a node what :func:`make_file` was given; parent and name are for the caller."""
    _, _, _, size, segments, mode, uid, gid, mtime_ns, xattrs = operation
    node.size, node.segments = size, segments
    node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = mode, uid, gid, mtime_ns, xattrs


def make_other(parent: int, name: bytes, node: Node) -> MakeOther:
    """Return what has a symbolic link, a device or a FIFO made."""
    return (
        "make_other",
        parent,
        name,
        node.kind,
        node.target,
        node.rdev,
        node.mode,
        node.uid,
        node.gid,
        node.mtime_ns,
        node.xattrs,
    )


def read_other(operation: MakeOther) -> Node:
    """Return the node that :func:`make_other` was given."""
    _, _, _, kind, target, rdev, mode, uid, gid, mtime_ns, xattrs = operation
    node = Node(kind, -1)
    node.target, node.rdev = target, rdev
    node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = mode, uid, gid, mtime_ns, xattrs
    return node


def pack(batch: list[Operation]) -> bytes:
    """Return a batch as bytes, with its length before it."""
    message = marshal.dumps(batch)
    return LENGTH.pack(len(message)) + message


def unpack(message: bytes) -> list[Operation]:
    """Return the batch that :func:`pack` was given, from the bytes after the length."""
    batch: list[Operation] = marshal.loads(message)  # noqa: S302 - our own words
    return batch


# Answers.

#: A batch is done.
DONE = b"."
# How the last answer begins: all is done, or something failed.
_END, _ERROR = b"=", b"!"


class Ended(NamedTuple):
    """All is done.

    Attributes:
        notices: what came up, as :meth:`~ociroot.notices.Notices.take` returns it.
    """

    notices: list[tuple[str, str, int]]


class Failure(NamedTuple):
    """Something failed.

    Attributes:
        error: what was raised.
        layer: how many layers had ended before.
    """

    error: BaseException
    layer: int


def write_ended(notices: list[tuple[str, str, int]]) -> bytes:
    """Return the last answer when all is done."""
    return _END + marshal.dumps(notices)


def write_failure(error: BaseException, layer: int) -> bytes:
    """Return the last answer when something failed."""
    import pickle

    return _ERROR + pickle.dumps((error, layer))


def is_end(answer: bytes) -> bool:
    """Say whether a last answer is that all is done."""
    return answer.startswith(_END)


def read_last(answer: bytes) -> Ended | Failure | None:
    """Return what the last answer was; None: there is none, or a part: the process was killed."""
    if is_end(answer):
        return Ended(marshal.loads(answer[1:]))  # noqa: S302 - our own words
    if answer.startswith(_ERROR):
        import pickle

        try:
            content: Any = pickle.loads(answer[1:])  # noqa: S301 - our own words
        except (EOFError, pickle.UnpicklingError):
            return None
        return Failure(*content)
    return None
