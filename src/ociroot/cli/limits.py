"""The ``--max-…`` options: one for each field of :class:`~ociroot.limits.Limits`."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .. import Limits

__all__ = ["is_limit", "limit_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}


def _number(text: str) -> int:
    """Parse a number with an optional unit as in GNU tools: 10M is 10 MiB, 1MB is 10^6."""
    match = re.fullmatch(r"([0-9]{1,18})(?:([KMGTPE])(B|iB)?)?", text)
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{text!r} is not a positive number, such as 500, 10M or 2GB")
    unit = _UNITS[match[2] or ""]
    if match[3] == "B":
        unit = int(math.pow(1000, list(_UNITS).index(match[2])))
    return int(match[1]) * unit


def limit_options(command: _Command) -> _Command:
    """Add an option for each limit to a command, which receives them as the argument ``limits``."""

    @functools.wraps(command)
    def gathering(**arguments: Any) -> Any:
        given = {name: arguments.pop(f"max_{name}") for name in Limits.meanings()}
        chosen = {name: value for name, value in given.items() if value is not None}
        return command(limits=Limits(**chosen), **arguments)

    result: Any = gathering
    defaults = Limits()
    for name, meaning in reversed(Limits.meanings().items()):
        default = getattr(defaults, name)
        shown = _short(default, meaning.unit) if default is not None else "the free space"
        result = click.option(
            f"--max-{name.replace('_', '-')}",
            f"max_{name}",
            type=_number,
            metavar=meaning.unit.upper() or "NUMBER",
            help=f"{meaning.what[0].upper()}{meaning.what[1:]}. Default: {shown}.",
        )(result)
    return result  # type: ignore[no-any-return]


def _short(value: int, unit: str) -> str:
    """Return a number in the form that the options accept."""
    for letter, size in reversed(_UNITS.items()) if unit else ():
        if letter and value % size == 0:
            return f"{value // size}{letter}"
    return str(value)


def is_limit(parameter: click.Parameter) -> bool:
    """Return whether a parameter of a command is a ``--max-…`` option."""
    return isinstance(parameter, click.Option) and (parameter.name or "").startswith("max_")
