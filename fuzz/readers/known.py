"""The differences that have been decided: each with the reason why we read it as we do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .difference import Difference
from .seen import Seen

__all__ = ["DECIDED", "decided"]

Layers = Sequence[Sequence[Seen]]


class Decided(NamedTuple):
    """One difference that has been decided.

    Attributes:
        name: what it is called in the figures.
        reason: why we differ.
        readers: who differs from us.
        attributes: in what.
        holds: says whether a difference is this one.
    """

    name: str
    reason: str
    readers: tuple[str, ...]
    attributes: tuple[str, ...]
    holds: Callable[[Difference, Layers], bool]


def _implied(difference: Difference, layers: Layers) -> bool:
    """Say whether the path is a directory that no layer has an entry for."""
    return not difference.seen


def _has_entry_below(difference: Difference, layers: Layers) -> bool:
    return bool(difference.seen) and difference.seen[-1].kind == "dir"


DECIDED: tuple[Decided, ...] = (
    Decided(
        "implied directory",
        "umoci leaves it the time of unpacking, and what it inherits from its parent on disk "
        "(group, set-group-ID). layer.md, File Attributes, gives attributes to entries only; ours "
        "are always the same.",
        ("umoci",),
        ("mtime_ns", "mode", "gid"),
        _implied,
    ),
    Decided(
        "time of a directory",
        "umoci sets it before it puts the rest into the directory, or not again. layer.md, File "
        "Attributes: 'MUST include … Modification Time (mtime)'.",
        ("umoci",),
        ("mtime_ns",),
        _has_entry_below,
    ),
)


def decided(difference: Difference, layers: Layers) -> str | None:
    """Return the name of the decision that a difference comes from; None: there is none."""
    for each in DECIDED:
        if (
            difference.reader in each.readers
            and difference.attribute in each.attributes
            and each.holds(difference, layers)
        ):
            return each.name
    return None
