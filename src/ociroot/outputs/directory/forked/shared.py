"""The memory that both processes have: slots for the data of batches, and what each has made."""

from __future__ import annotations

import mmap

from ..made import NUMBERS

__all__ = ["SLOT", "SLOTS", "SharedMemory"]

#: Batches with data that may be on their way, and the bytes of data in each.
SLOTS = 16
SLOT = 256 << 10


class SharedMemory:
    """Memory that a process and the one that it forks have in common.

    Attributes:
        slots: how many slots there are.
        memory: all of it; slot N begins at N times ``SLOT``.
        counts: for :class:`~ociroot.outputs.directory.made.Made`: of the process that forks, and of
            the other one.
    """

    def __init__(self) -> None:
        """Get it from the kernel.

        Raises:
            OSError: it gives none.
        """
        self.slots = SLOTS
        self.memory = mmap.mmap(-1, self.slots * SLOT + mmap.PAGESIZE)
        numbers = memoryview(self.memory)[-mmap.PAGESIZE :].cast("Q")
        self.counts = numbers[:NUMBERS], numbers[NUMBERS : 2 * NUMBERS]

    def start(self, batch: int) -> int:
        """Return where in the memory the data of a batch begins: slots take turns."""
        return batch % self.slots * SLOT

    def views(self) -> list[memoryview]:
        """Return the slots."""
        whole = memoryview(self.memory)
        return [whole[at : at + SLOT] for at in map(self.start, range(self.slots))]
