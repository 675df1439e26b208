"""The messages between the two processes, with the encoding and decoding of each.

Batches of operations are sent to the child with marshal, which supports only plain values, in half
the time of typed records. So an operation is a tuple that begins with its name; its type documents
the other items, and only this module stores a node's attributes in one or reads them. The child
answers with one byte for each batch that is done, and with a last answer at the end.
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

#: The header of a batch: its length in bytes.
LENGTH = struct.Struct("<Q")

# Operations. Directories are numbers; the root is 0.

_Xattrs = dict[bytes, bytes] | None
#: Assigns a number to a directory: its number, its parent's number, its name.
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
#: Parent and name of the new link, parent and name of the existing one.
MakeLink = tuple[Literal["make_link"], int, bytes, int, bytes]
#: Parent, name, kind; for a directory its number, if it has one, which becomes free.
RemoveOne = tuple[Literal["remove_one"], int, bytes, Kind, int | None]
#: The end of a layer; the end of all operations.
Mark = tuple[Literal["end_layer", "finish"]]

Operation = Place | MakeDirectory | MakeFile | MakeOther | MakeLink | RemoveOne | Mark


def make_file(parent: int, name: bytes, node: Node) -> MakeFile:
    """Return the operation that creates a regular file; its data is in the slot of the batch."""
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
    """Set the attributes of a node from a :func:`make_file` operation, except its location."""
    _, _, _, size, segments, mode, uid, gid, mtime_ns, xattrs = operation
    node.size, node.segments = size, segments
    node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = mode, uid, gid, mtime_ns, xattrs


def make_other(parent: int, name: bytes, node: Node) -> MakeOther:
    """Return the operation that creates a symbolic link, a device or a FIFO."""
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
    """Return the node of a :func:`make_other` operation."""
    _, _, _, kind, target, rdev, mode, uid, gid, mtime_ns, xattrs = operation
    node = Node(kind, -1)
    node.target, node.rdev = target, rdev
    node.mode, node.uid, node.gid, node.mtime_ns, node.xattrs = mode, uid, gid, mtime_ns, xattrs
    return node


def pack(batch: list[Operation]) -> bytes:
    """Encode a batch, with its length first."""
    message = marshal.dumps(batch)
    return LENGTH.pack(len(message)) + message


def unpack(message: bytes) -> list[Operation]:
    """Decode a batch from the bytes after the length."""
    batch: list[Operation] = marshal.loads(message)  # noqa: S302 - our own words
    return batch


# Answers.

#: A batch is done.
DONE = b"."
# The first byte of the last answer: success or failure.
_END, _ERROR = b"=", b"!"


class Ended(NamedTuple):
    """The last answer after success.

    Attributes:
        notices: the warnings, as :meth:`~ociroot.notices.Notices.take` returns them.
    """

    notices: list[tuple[str, str, int]]


class Failure(NamedTuple):
    """The last answer after a failure.

    Attributes:
        error: the exception.
        layer: the number of layers that were complete.
    """

    error: BaseException
    layer: int


def write_ended(notices: list[tuple[str, str, int]]) -> bytes:
    """Encode the last answer after success."""
    return _END + marshal.dumps(notices)


def write_failure(error: BaseException, layer: int) -> bytes:
    """Encode the last answer after a failure."""
    import pickle

    return _ERROR + pickle.dumps((error, layer))


def is_end(answer: bytes) -> bool:
    """Return whether a last answer reports success."""
    return answer.startswith(_END)


def read_last(answer: bytes) -> Ended | Failure | None:
    """Decode the last answer; None if it is missing or truncated because the child was killed."""
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
