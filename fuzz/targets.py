"""The targets: their functions, their mutators, and the maximum length of inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import mutate
from .commands import commands
from .documents import documents, forms
from .extraction import extract
from .merging import merge
from .reading import archive, layer, pax
from .unpacking import codec

__all__ = ["TARGETS", "Target"]


class Target(NamedTuple):
    """One fuzz target.

    Attributes:
        run: processes an input; an exception is a finding.
        mutate: changes an input.
        longest: the maximum length of an input in bytes.
        crosses: whether two inputs can be crossed as stacks of layers.
    """

    run: Callable[[bytes], None]
    mutate: mutate.Mutator
    longest: int
    crosses: bool = False


TARGETS = {
    "archive": Target(archive, mutate.tars, 64 << 10),
    "layer": Target(layer, mutate.tars, 64 << 10),
    "pax": Target(pax, mutate.records, 8 << 10),
    "documents": Target(documents, mutate.mutate_document, 16 << 10),
    "forms": Target(forms, mutate.mutate_form, 32 << 10),
    "codec": Target(codec, mutate.units, 4 << 10),
    "merge": Target(merge, mutate.mutate_stack, 32 << 10, crosses=True),
    "extract": Target(extract, mutate.mutate_stack, 32 << 10, crosses=True),
    "commands": Target(commands, mutate.mutate_stack, 32 << 10, crosses=True),
}
