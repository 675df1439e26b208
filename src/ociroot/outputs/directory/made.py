"""How much has been made below a root, by one process or by two."""

from __future__ import annotations

__all__ = ["NUMBERS", "Made"]

#: How many numbers each process counts.
NUMBERS = 3


class Made:
    """What has been made, in this process and in another one below the same root.

    Attributes:
        own: three numbers: files and directories made here, the bytes of the files, and what space
            was claimed beside those and a block for each.
        beside: those of the other process.
    """

    def __init__(self, block: int) -> None:
        """Begin with nothing.

        Args:
            block: the bytes of disk that anything takes beside its data.
        """
        self._block = block
        self.own = memoryview(bytearray(8 * NUMBERS)).cast("Q")
        self.beside = memoryview(bytearray(8 * NUMBERS)).cast("Q")

    def share(self, own: memoryview, beside: memoryview) -> None:
        """Count in memory that two processes have in common."""
        self.own, self.beside = own, beside

    def totals(self) -> list[int]:
        """Return the three numbers of both."""
        return [sum(two) for two in zip(self.own, self.beside, strict=True)]

    def space(self) -> int:
        """Return the bytes of disk that it takes."""
        made, size, more = self.totals()
        return made * self._block + size + more

    def so_far(self) -> str:
        """Say how much it is, with a blank before it."""
        made, size, _ = self.totals()
        return f" after {size} bytes in {made} files and directories"
