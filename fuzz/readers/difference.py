"""How two readers differ."""

from __future__ import annotations

from typing import NamedTuple

from .seen import Seen

__all__ = ["Difference", "Result"]


class Difference(NamedTuple):
    """One thing in which another reader of an input differs from us.

    Attributes:
        reader: the other reader.
        attribute: in what: an attribute, or ``entries`` or ``missing`` for what one side lacks.
        place: the path, or the number of the entry.
        ours: what we see.
        theirs: what the other sees.
        seen: the entries that have to do with it, as we read them, uppermost layer last.
    """

    reader: str
    attribute: str
    place: str
    ours: object
    theirs: object
    seen: tuple[Seen, ...] = ()

    @property
    def signature(self) -> str:
        """The same for differences of one kind."""
        kinds = {seen.kind for seen in self.seen[-1:]}
        return "-".join([self.reader, self.attribute, *sorted(kinds)])

    def __str__(self) -> str:
        return (
            f"{self.reader}, {self.place}, {self.attribute}: ours {self.ours!r}, "
            f"theirs {self.theirs!r}"
        )


class Result(NamedTuple):
    """What came of one input.

    Attributes:
        accepted: the readers that took it; ``ociroot`` is one.
        differences: those between us and the others that nobody has decided.
        decided: the names of those that have been decided.
    """

    accepted: frozenset[str]
    differences: tuple[Difference, ...] = ()
    decided: tuple[str, ...] = ()
