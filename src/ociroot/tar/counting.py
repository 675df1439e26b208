"""What the headers of many entries cost together."""

from __future__ import annotations

from ..limits import Limits

__all__ = ["Counted"]

# What an entry may bring without being counted: more than nearly all of them do.
_FREE = 16


class Counted:
    """Counts pax records, runs of sparse files and headers that are no entries.

    A pax record may be as short as five bytes, which compress a thousandfold, and none of the
    limits on what is unpacked explains the time that each takes. One object is for all the layers
    that are read in a pass.
    """

    def __init__(self) -> None:
        self._count = 0
        self._since = 0

    def entry(self) -> None:
        """Take off what the entry in hand may have for nothing."""
        self._count -= min(self._since, _FREE)
        self._since = 0

    def add(self, count: int, limits: Limits) -> None:
        """Count some more.

        Raises:
            LimitExceeded: there are too many.
        """
        self._count += count
        self._since += count
        # Those of the entry in hand are not known to be one's before its header has been read.
        if self._count - _FREE > limits.records:
            raise limits.exceeded("records", self._count - _FREE)
