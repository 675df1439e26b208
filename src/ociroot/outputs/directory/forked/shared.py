"""Memory shared by both processes: slots for the data of batches, and the counters of each."""

from __future__ import annotations

import mmap

from ..made import NUMBERS

__all__ = ["SLOT", "SLOTS", "SharedMemory"]

#: The maximum number of pending batches with data, and the bytes of data in each.
SLOTS = 16
SLOT = 256 << 10


class SharedMemory:
    """Memory that a process shares with the child that it forks.

    Attributes:
        slots: the number of slots.
        memory: the memory; slot N begins at N times ``SLOT``.
        counts: the counters for :class:`~ociroot.outputs.directory.made.Made`: those of the parent,
            and those of the child.
    """

    def __init__(self) -> None:
        """Allocate the memory.

        Raises:
            OSError: the allocation failed.
        """
        self.slots = SLOTS
        self.memory = mmap.mmap(-1, self.slots * SLOT + mmap.PAGESIZE)
        numbers = memoryview(self.memory)[-mmap.PAGESIZE :].cast("Q")
        self.counts = numbers[:NUMBERS], numbers[NUMBERS : 2 * NUMBERS]

    def start(self, batch: int) -> int:
        """Return the offset of a batch's data in the memory: slots are used in turn."""
        return batch % self.slots * SLOT

    def views(self) -> list[memoryview]:
        """Return the slots."""
        whole = memoryview(self.memory)
        return [whole[at : at + SLOT] for at in map(self.start, range(self.slots))]
