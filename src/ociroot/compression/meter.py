"""How much comes out of compressed data, held against what it comes out of."""

from __future__ import annotations

from ..limits import RATIO_FROM, UNIT, Limits

__all__ = ["Meter"]


class Meter:
    """What comes out of compressed data in one pass, held against what it comes out of.

    One is for all layers of an image: each of them may be the same few bytes. And what they are
    held against is what whoever sent the image had to send: where a compressed archive holds them,
    its size and not theirs.
    """

    def __init__(self, limits: Limits, stored: int | None = None) -> None:
        """Begin a pass.

        Args:
            limits: on what comes out.
            stored: bytes of all that it comes out of; None: what has been taken so far.
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
            LimitExceeded: they are too many.
        """
        self._given += size
        if self._given > RATIO_FROM:
            stored = self._taken if self._stored is None else self._stored
            if self._given > stored * self.limits.ratio:
                raise self.limits.exceeded("ratio")

    def begin_unit(self) -> None:
        """Count a gzip member, zstd frame or the like.

        Raises:
            LimitExceeded: they are too many for what has come out of them. Each costs time, and may
                be of nine bytes that compress a thousandfold.
        """
        self._units += 1
        if self._units - self._given // UNIT > self.limits.units:
            raise self.limits.exceeded("units")
