"""How the specification's JSON documents are read: strictly where two readers could disagree.

considerations.md, "JSON": "All JSON content MUST follow the I-JSON limitations in RFC 7493: The
encoding MUST be UTF-8 … Objects MUST NOT contain duplicate names." A document that breaks this can
mean one thing to us and another to whoever checked it, so it is refused. "Implementations
processing content SHOULD NOT generate an error if they encounter an unknown property in a known
media type" (considerations.md, "Extensibility"): unknown properties are ignored.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn, TypeVar

import msgspec

from ..errors import (
    LimitExceeded,
    MalformedImage,
    OcirootError,
    Unsupported,
    printable,
    quoted,
)
from ..limits import DEFAULTS, Limits

__all__ = ["decode", "parse", "typed"]

_T = TypeVar("_T")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise MalformedImage(f"the name {quoted(twice[:100])} stands twice in one object")
    # config.md, "Properties": "Any OPTIONAL field MAY also be set to null, which is equivalent to
    # being absent." Go writes an empty list as null, too.
    return {name: value for name, value in pairs if value is not None}


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
        Plain dicts, lists, strings and numbers; names whose value is null are left out.

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
        raise MalformedImage(f"a JSON object is expected, not {type(value).__name__}")
    # CVE-2021-41190: one document that is an index to some and a manifest to others.
    if "manifests" in value and ("layers" in value or "config" in value):
        raise MalformedImage("both an index (`manifests`) and a manifest (`config`, `layers`)")
    return typed(value, kind)


def typed(value: Any, kind: type[_T]) -> _T:
    """Make plain values a document of a known type.

    Args:
        value: as :func:`parse` returns it.
        kind: what it should be.

    Raises:
        MalformedImage: a value of another type, or that breaks a rule, with its JSON path.
        Unsupported: a value that means something ociroot does not do, with its JSON path.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        # What a struct's own check raised is a ValueError too, to which msgspec adds the path.
        why = error.__cause__
        found = Unsupported if isinstance(why, Unsupported) else MalformedImage
        raise found(printable(str(error)[:400])) from None
