"""Channels: bounded queues between the threads of the pipeline."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Channel", "Closed"]

T = TypeVar("T")


class Closed(Exception):
    """The pipeline is being stopped."""


class _Failure(NamedTuple):
    error: BaseException


class Channel(Generic[T]):
    """A bounded queue made of two simple ones: the items, and the slots that are free."""

    def __init__(self, slots: int) -> None:
        self._items: SimpleQueue[T | _Failure] = SimpleQueue()
        self._slots: SimpleQueue[bool] = SimpleQueue()
        for _ in range(slots):
            self._slots.put(True)

    def put(self, item: T) -> None:
        """Put an item, once there is a slot.

        Raises:
            Closed: the channel has been closed.
        """
        if not self._slots.get():
            raise Closed
        self._items.put(item)

    def get(self) -> T:
        """Take the next item, once there is one.

        Raises:
            BaseException: what the other side failed with.
        """
        item = self._items.get()
        if isinstance(item, _Failure):
            self._items.put(item)  # whoever asks again must not wait for ever
            raise item.error
        self._slots.put(True)
        return item

    def fail(self, error: BaseException) -> None:
        """Have the other side raise an error when it has taken the items before it."""
        self._items.put(_Failure(error))

    def close(self) -> None:
        """Refuse more items, also that of whoever waits for a slot."""
        # Once for a put that waits, once more for the next one.
        self._slots.put(False)
        self._slots.put(False)
