"""Differences between two readers."""

from __future__ import annotations

from typing import NamedTuple

from .seen import Seen

__all__ = ["Difference", "Result"]


class Difference(NamedTuple):
    """One difference between another reader and us.

    Attributes:
        reader: the other reader.
        attribute: the attribute, or ``entries`` or ``missing`` if one side lacks it.
        place: the path, or the number of the entry.
        ours: what we see.
        theirs: what the other sees.
        seen: the related entries as we read them, uppermost layer last.
    """

    reader: str
    attribute: str
    place: str
    ours: object
    theirs: object
    seen: tuple[Seen, ...] = ()

    @property
    def signature(self) -> str:
        """The kind of the difference."""
        kinds = {seen.kind for seen in self.seen[-1:]}
        return "-".join([self.reader, self.attribute, *sorted(kinds)])

    def __str__(self) -> str:
        return (
            f"{self.reader}, {self.place}, {self.attribute}: ours {self.ours!r}, "
            f"theirs {self.theirs!r}"
        )


class Result(NamedTuple):
    """The result of one input.

    Attributes:
        accepted: the readers that accepted it, ``ociroot`` included.
        differences: the undecided differences between us and the others.
        decided: the names of the decided ones.
    """

    accepted: frozenset[str]
    differences: tuple[Difference, ...] = ()
    decided: tuple[str, ...] = ()
