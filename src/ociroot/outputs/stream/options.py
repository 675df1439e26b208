"""What the sinks of streams have in common: how they write, and what they are told."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ...limits import Limits
from ...notices import Notices
from ..policy import OutputPolicy

__all__ = ["SinkOptions", "Write"]

#: Called with the next bytes of an output, which do not change afterwards.
Write = Callable[[bytes | bytearray | memoryview], None]


class SinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink is told of its output.

    Attributes:
        policy: what becomes of attributes.
        limits: what the image may ask for.
        notices: told of what is not written.
        unpacked: bytes of the uncompressed layers.
        in_tree_order: whether names come depth first, or files in the order of the layers.
        to_file: whether the output is a file; otherwise a pipe.
        newest: later times are replaced by this one, in nanoseconds since 1970; None: none.
    """

    policy: OutputPolicy
    limits: Limits
    notices: Notices
    unpacked: int
    in_tree_order: bool = True
    to_file: bool = False
    newest: int | None = None
