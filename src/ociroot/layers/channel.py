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
    """A bounded queue built from two simple ones: the items, and the free slots."""

    def __init__(self, slots: int) -> None:
        self._items: SimpleQueue[T | _Failure] = SimpleQueue()
        self._slots: SimpleQueue[bool] = SimpleQueue()
        for _ in range(slots):
            self._slots.put(True)

    def put(self, item: T) -> None:
        """Put an item; wait for a free slot.

        Raises:
            Closed: the channel has been closed.
        """
        if not self._slots.get():
            raise Closed
        self._items.put(item)

    def get(self) -> T:
        """Return the next item; wait for one.

        Raises:
            BaseException: the error of the other side.
        """
        item = self._items.get()
        if isinstance(item, _Failure):
            self._items.put(item)  # so that a further call does not wait for ever
            raise item.error
        self._slots.put(True)
        return item

    def fail(self, error: BaseException) -> None:
        """Raise an error on the other side, after the items before it."""
        self._items.put(_Failure(error))

    def close(self) -> None:
        """Refuse further items, including that of a waiting :meth:`put`."""
        # One for a waiting put, one for the next one.
        self._slots.put(False)
        self._slots.put(False)
