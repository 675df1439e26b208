"""A bound on the headers of all entries together."""

from __future__ import annotations

from ..limits import Limits

__all__ = ["Counted"]

# Records of one entry that are not counted: more than nearly every entry has.
_FREE = 16


class Counted:
    """Counts pax records, runs of sparse files and headers without an entry.

    A pax record can be as short as five bytes, which compress a thousandfold, and the limits on
    what is unpacked do not bound the time that records take. One counter serves all the layers
    that are read in one pass.
    """

    def __init__(self) -> None:
        self._count = 0
        self._since = 0

    def entry(self) -> None:
        """Subtract the records of the current entry that are not counted."""
        self._count -= min(self._since, _FREE)
        self._since = 0

    def add(self, count: int, limits: Limits) -> None:
        """Add to the count.

        Raises:
            LimitExceeded: the limit ``records`` is exceeded.
        """
        self._count += count
        self._since += count
        # The current entry's allowance is subtracted only once its header has been read.
        if self._count - _FREE > limits.records:
            raise limits.exceeded("records", self._count - _FREE)
