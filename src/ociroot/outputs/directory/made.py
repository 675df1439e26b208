"""Counters of what has been written below a root, by one process or by two."""

from __future__ import annotations

__all__ = ["NUMBERS", "Made"]

#: The number of counters per process.
NUMBERS = 3


class Made:
    """Counts what this process and another one have written below the same root.

    Attributes:
        own: three counters of this process: files and directories, bytes of files, and bytes of
            space claimed in addition to those and a block each.
        beside: the counters of the other process.
    """

    def __init__(self, block: int) -> None:
        """Begin with zero.

        Args:
            block: the bytes of disk that each file or directory takes in addition to its data.
        """
        self._block = block
        self.own = memoryview(bytearray(8 * NUMBERS)).cast("Q")
        self.beside = memoryview(bytearray(8 * NUMBERS)).cast("Q")

    def share(self, own: memoryview, beside: memoryview) -> None:
        """Use counters in memory that two processes share."""
        self.own, self.beside = own, beside

    def totals(self) -> list[int]:
        """Return the three counters, summed over both processes."""
        return [sum(two) for two in zip(self.own, self.beside, strict=True)]

    def space(self) -> int:
        """Return the bytes of disk used."""
        made, size, more = self.totals()
        return made * self._block + size + more

    def so_far(self) -> str:
        """Return the totals as text for a message, with a leading space."""
        made, size, _ = self.totals()
        return f" after {size} bytes in {made} files and directories"
