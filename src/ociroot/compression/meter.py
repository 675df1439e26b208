"""Limits on the output of compressed data."""

from __future__ import annotations

from ..limits import RATIO_FROM, UNIT, Limits

__all__ = ["Meter"]


class Meter:
    """Enforces the limits on the output of all compressed data in one pass.

    One meter serves all layers of an image, because they can all be the same few bytes. The output
    is compared with the bytes that had to be transferred: for layers in a compressed archive, the
    size of that archive instead of theirs.
    """

    def __init__(self, limits: Limits, stored: int | None = None) -> None:
        """Begin a pass.

        Args:
            limits: bound the output.
            stored: stored bytes of all the input; None: the input read so far.
        """
        self.limits = limits
        self._stored = stored
        self._taken = self._given = self._units = 0

    def take(self, size: int) -> None:
        """Count compressed bytes."""
        self._taken += size

    def give(self, size: int) -> None:
        """Count uncompressed bytes.

        Raises:
            LimitExceeded: the limit ``ratio`` is exceeded.
        """
        self._given += size
        if self._given > RATIO_FROM:
            stored = self._taken if self._stored is None else self._stored
            if self._given > stored * self.limits.ratio:
                raise self.limits.exceeded("ratio")

    def begin_unit(self) -> None:
        """Count a gzip member, zstd frame or the like.

        Raises:
            LimitExceeded: there are too many for the output. Each costs time, and can consist of
                nine bytes that compress a thousandfold.
        """
        self._units += 1
        if self._units - self._given // UNIT > self.limits.units:
            raise self.limits.exceeded("units")
