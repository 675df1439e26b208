"""How the specification's JSON documents are read: strictly where two readers could disagree.

considerations.md, "JSON": "All JSON content MUST follow the I-JSON limitations in RFC 7493: The
encoding MUST be UTF-8 … Objects MUST NOT contain duplicate names." A document that breaks this can
mean one thing to us and another to whoever checked it, so it is refused. "Implementations
processing content SHOULD NOT generate an error if they encounter an unknown property in a known
media type" (considerations.md, "Extensibility"): unknown properties are ignored, but for those that
Go's readers take for a known one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import cache
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args, get_origin

import msgspec

from ..errors import LimitExceeded, MalformedImage, OcirootError, Unsupported, printable, quoted
from ..limits import DEFAULTS, Limits

__all__ = ["decode", "expected", "parse", "typed"]

_T = TypeVar("_T")

# How JSON calls what Python makes of it; anything else is an object.
_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class _WithNulls(dict[str, Any]):
    """An object without its names whose value is null, which are remembered."""

    nulls: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedImage(f"duplicate key {quoted(twice[:100])} in one object")
    if None not in result.values():
        return result
    # config.md, "Properties": "Any OPTIONAL field MAY also be set to null, which is equivalent to
    # being absent." Go writes an empty list as null, too.
    kept = _WithNulls((name, value) for name, value in pairs if value is not None)
    kept.nulls = tuple(name for name, value in pairs if value is None)
    return kept


def _constant(text: str) -> NoReturn:
    raise MalformedImage(f"{text} is not a JSON number")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        # RFC 7493, 2.2: no "greater magnitude … than an IEEE 754 double precision number".
        raise MalformedImage(f"the number {text[:40]} is too large")
    return value


def parse(content: bytes, limits: Limits = DEFAULTS) -> Any:
    """Read JSON text as I-JSON.

    Args:
        content: the bytes of the document.
        limits: on its size and its nesting.

    Returns:
        Plain dicts, lists, strings and numbers; names whose value is null are left out, but for
        those of a map (:func:`typed`).

    Raises:
        MalformedImage: not UTF-8, not JSON, a name twice in one object, a lone surrogate, a
            number that is too large.
        LimitExceeded: it is too long, or nested too deeply.
    """
    limits.check("document", len(content))
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number,
        )
        if b"\\u" in content:
            # RFC 7493, 2.1: strings "MUST NOT include code points that identify Surrogates".
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedImage(f"not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise MalformedImage("a string holds a lone surrogate") from None
    except RecursionError:
        raise LimitExceeded("a JSON document nested too deeply to be read") from None
    except OcirootError:
        raise
    except ValueError as error:
        raise MalformedImage(f"not JSON: {printable(str(error)[:200])}") from None
    _check_nesting(value, limits)
    return value


def _check_nesting(value: Any, limits: Limits) -> None:
    level, depth = [value], 0
    while level:
        limits.check("nesting", depth)
        depth += 1
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]


def decode(content: bytes, kind: type[_T], limits: Limits = DEFAULTS) -> _T:
    """Read a document of a known type.

    Args:
        content: the bytes of the document.
        kind: the struct that says what it may hold.
        limits: on its size and its nesting.

    Returns:
        The document, with every property of the right type.

    Raises:
        MalformedImage: as :func:`parse`; also a property that is missing or of another type, with
            its JSON path.
        LimitExceeded: as :func:`parse`.
    """
    value = parse(content, limits)
    if not isinstance(value, dict):
        raise expected("an object", value)
    # CVE-2021-41190: one document that is an index to some and a manifest to others.
    names = set(map(_fold, value))
    if "manifests" in names and names & {"layers", "config"}:
        raise MalformedImage("both an index (`manifests`) and a manifest (`config`, `layers`)")
    return typed(value, kind, kind)


def expected(kind: str, value: Any) -> MalformedImage:
    """Return what to raise for a value of another kind, as in ``an array``, than is expected."""
    found = _KINDS.get(type(value), "an object")
    return MalformedImage(f"JSON: {kind} is expected, not {found}")


def typed(value: Any, kind: type[_T], struct: type[msgspec.Struct] | Any) -> _T:
    """Make plain values a document of a known type.

    Args:
        value: as :func:`parse` returns it.
        kind: what it should be.
        struct: the struct that it is, or that its items are.

    Raises:
        MalformedImage: a value of another type, or that breaks a rule, with its JSON path; or a
            name that Go's readers take for another.
        Unsupported: a value that means something ociroot does not do, with its JSON path.
    """
    _check_names(value, struct)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        # What a struct's own check raised is a ValueError too, to which msgspec adds the path.
        why = error.__cause__
        found = Unsupported if isinstance(why, Unsupported) else MalformedImage
        raise found(printable(str(error)[:400])) from None


class _Names(NamedTuple):
    """The names of a struct's properties.

    Attributes:
        known: each of them, and the struct that its value is or holds, if it is one.
        folded: the same by what Go's readers fold them to.
        maps: those whose value has any names, and what a null stands for in it.
    """

    known: dict[str, Any]
    folded: dict[str, str]
    maps: dict[str, type]


@cache
def _names_of(struct: type[msgspec.Struct]) -> _Names:
    fields = msgspec.structs.fields(struct)
    known = {each.encode_name: _struct_in(each.type) for each in fields}
    maps = {each.encode_name: get_args(each.type) for each in fields if _is_map(each.type)}
    nulls: dict[str, type] = {n: str if value is str else dict for n, (_, value) in maps.items()}
    return _Names(known, {_fold(name): name for name in known}, nulls)


def _is_map(hint: Any) -> bool:
    return get_origin(hint) is dict


def _struct_in(hint: Any) -> Any:
    """Return the struct in a type such as ``tuple[Descriptor, ...]`` or ``Platform | None``."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next((found for each in get_args(hint) if (found := _struct_in(each))), None)


def _fold(name: str) -> str:
    """Return a name as Go's encoding/json compares it, where it is not known as it stands.

    Each character stands for all those of its Unicode simple folding: those of ASCII for the other
    case, and ``s`` and ``k`` for two more, the long s and the Kelvin sign.
    """
    return name.replace("\u017f", "s").lower()  # which makes the Kelvin sign a k


def _check_names(value: Any, struct: type[msgspec.Struct]) -> None:
    """Refuse names that one reader ignores and another takes for a property, and which one wins."""
    if isinstance(value, list):
        for each in value:
            _check_names(each, struct)
    if not isinstance(value, dict):
        return  # which msgspec refuses where it is none
    names = _names_of(struct)
    for name in (*value, *value.nulls) if isinstance(value, _WithNulls) else value:
        if name not in names.known and (exact := names.folded.get(_fold(name))):
            raise MalformedImage(
                f"the key {quoted(name)}, which some readers take for {quoted(exact)} "
                "and others ignore"
            )
    for name, inner in names.known.items():
        if inner is not None and name in value:
            _check_names(value[name], inner)
    for name, kind in names.maps.items():
        # Null is no value of a property, but it is one of a map: Go's readers keep its name.
        if isinstance(found := value.get(name), _WithNulls):
            found.update({each: kind() for each in found.nulls})
