"""Strict decoding of the specification's JSON documents.

considerations.md, "JSON": "All JSON content MUST follow the I-JSON limitations in RFC 7493: The
encoding MUST be UTF-8 … Objects MUST NOT contain duplicate names." Two readers can interpret a
document that violates this differently, so it is refused. "Implementations processing content
SHOULD NOT generate an error if they encounter an unknown property in a known media type"
(considerations.md, "Extensibility"): unknown properties are ignored, except those that Go's JSON
decoder treats as a known one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import cache
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args, get_origin

import msgspec

from ..errors import LimitExceeded, MalformedImage, OcirootError, Unsupported, printable, quoted
from ..limits import Limits

__all__ = ["decode", "expected", "parse", "typed"]

_T = TypeVar("_T")

# The JSON names of Python types; any other type is an object.
_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class _WithNulls(dict[str, Any]):
    """A JSON object without its null members; their names are kept in ``nulls``."""

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


def parse(content: bytes, limits: Limits) -> Any:
    """Parse I-JSON text.

    Args:
        content: the bytes of the document.
        limits: bound its size and its nesting.

    Returns:
        Plain dicts, lists, strings and numbers; members whose value is null are removed, except
        in maps (:func:`typed`).

    Raises:
        MalformedImage: not UTF-8, not JSON, a duplicate name in an object, a lone surrogate, or a
            number that is too large.
        LimitExceeded: it is too large, or nested too deeply.
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
        raise MalformedImage("a string contains a lone surrogate") from None
    except RecursionError:
        raise LimitExceeded("JSON document nested too deeply to parse") from None
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


def decode(content: bytes, kind: type[_T], limits: Limits) -> _T:
    """Decode a document of a known type.

    Args:
        content: the bytes of the document.
        kind: the struct that defines its properties.
        limits: bound its size and its nesting.

    Returns:
        The document, with every property of the right type.

    Raises:
        MalformedImage: as :func:`parse`; also for a property that is missing or of another type,
            with its JSON path.
        LimitExceeded: as :func:`parse`.
    """
    value = parse(content, limits)
    if not isinstance(value, dict):
        raise expected("an object", value)
    # CVE-2021-41190: a document that some readers treat as an index and others as a manifest.
    names = set(map(_fold, value))
    if "manifests" in names and names & {"layers", "config"}:
        raise MalformedImage("both an index (`manifests`) and a manifest (`config`, `layers`)")
    return typed(value, kind, kind)


def expected(kind: str, value: Any) -> MalformedImage:
    """Return the error for a value that is not of the expected kind, such as ``an array``."""
    found = _KINDS.get(type(value), "an object")
    return MalformedImage(f"JSON: expected {kind}, found {found}")


def typed(value: Any, kind: type[_T], struct: type[msgspec.Struct] | Any) -> _T:
    """Convert parsed JSON to a document of a known type.

    Args:
        value: as :func:`parse` returns it.
        kind: the type to return.
        struct: the struct of the value or of its items.

    Raises:
        MalformedImage: a value of another type, or one that violates a rule, with its JSON path;
            or a name that Go's JSON decoder treats as another one.
        Unsupported: a value for a feature that ociroot does not support, with its JSON path.
    """
    _check_names(value, struct)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        # The errors of __post_init__ are ValueErrors, to which msgspec adds the JSON path.
        why = error.__cause__
        found = Unsupported if isinstance(why, Unsupported) else MalformedImage
        raise found(printable(str(error)[:400])) from None


class _Names(NamedTuple):
    """The names of a struct's properties.

    Attributes:
        known: each name, with the struct of its value or of its items, or None.
        folded: each name by its form after Go's case folding.
        maps: the properties that are maps, with the type whose empty value replaces a null.
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
    """Return a name in the form in which Go's encoding/json compares it when no exact match exists.

    Go uses Unicode simple case folding: ASCII letters match the other case, ``s`` also matches the
    long s, and ``k`` the Kelvin sign.
    """
    return name.replace("\u017f", "s").lower()  # lower() maps the Kelvin sign to k


def _check_names(value: Any, struct: type[msgspec.Struct]) -> None:
    """Refuse names that some readers ignore and others treat as a known property."""
    if isinstance(value, list):
        for each in value:
            _check_names(each, struct)
    if not isinstance(value, dict):
        return  # msgspec refuses it where an object is expected
    names = _names_of(struct)
    for name in (*value, *value.nulls) if isinstance(value, _WithNulls) else value:
        if name not in names.known and (exact := names.folded.get(_fold(name))):
            raise MalformedImage(
                f"key {quoted(name)}, which some readers treat as {quoted(exact)} and others ignore"
            )
    for name, inner in names.known.items():
        if inner is not None and name in value:
            _check_names(value[name], inner)
    for name, kind in names.maps.items():
        # A null property is absent, but a null value in a map is not: Go's decoder keeps its key.
        if isinstance(found := value.get(name), _WithNulls):
            found.update({each: kind() for each in found.nulls})
