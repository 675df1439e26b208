"""Mutations of the values of a JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["WORDS", "mutate_json"]

Raw = Callable[[bytes, int], bytes]
Place = tuple[Any, Any]  # a container, and the index or the name in it

_DIGEST = "sha256:" + "0" * 64
_SCALARS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2,
    1 << 63,
    1 << 64,
    10**30,
    1.5,
    1e308,
    "",
    "layers",
    "linux",
    "windows",
    "latest",
    "..",
    "/etc/passwd",
    "a\0b",
    "\x1b[2J",
    "\x85",
    "é",
    "x" * 300,
    _DIGEST,
    "sha512:" + "0" * 128,
    "md5:00",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.layer.v1.tar+encrypted",
)
_NAMES = [
    "schemaVersion",
    "mediaType",
    "manifests",
    "config",
    "layers",
    "digest",
    "size",
    "platform",
    "annotations",
    "artifactType",
    "architecture",
    "os",
    "variant",
    "os.version",
    "os.features",
    "rootfs",
    "type",
    "diff_ids",
    "history",
    "created_by",
    "empty_layer",
    "comment",
    "author",
    "created",
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "imageLayoutVersion",
    "Config",
    "RepoTags",
    "Layers",
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
    "vnd.docker.reference.type",
    "vnd.docker.reference.digest",
]
_TEXTS = (
    b"NaN",
    b"1e999",
    b'"\\ud800"',
    b"[" * 2000,
    b"[" * 1000 + b"]" * 1000,
    b'{"a":1,"a":2}',
    b"-",
    b"9" * 5000,
    b"\xff",
)
# A placeholder for one of these, which are not the encoding of any value.
_MARK = "mark"
#: Values that are inserted into documents.
WORDS = [f'"{name}"' for name in _NAMES] + [_DIGEST, "null", "true", "1e999", "\\u0000", "\\ud800"]


def mutate_json(document: bytes, random: Random, raw: Raw) -> bytes:
    """Change a value of a document or its position; mutate the bytes of invalid JSON."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return raw(document, len(document) + 100)
    for _ in range(random.choice((1, 1, 2, 3))):
        top = [value]
        holder, key = random.choice(_places(top))
        random.choice(_CHANGES)(holder, key, random, raw)
        value = top[0] if top else None
    marked = random.random() < 0.05
    if marked:
        top = [value]
        holder, key = random.choice(_places(top))
        holder[key] = _MARK
        value = top[0]
    try:
        written = json.dumps(value, ensure_ascii=random.random() < 0.5)
    except RecursionError:
        return raw(document, len(document))
    changed = written.encode("utf-8", "surrogatepass")
    if marked:
        changed = changed.replace(json.dumps(_MARK).encode(), random.choice(_TEXTS), 1)
    return changed


def _places(top: list[Any]) -> list[Place]:
    """Return the position of every value of a document."""
    found: list[Place] = []
    todo: list[Any] = [top]
    while todo:
        holder = todo.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                todo.append(holder[key])
    return found


def _replace(holder: Any, key: Any, random: Random, raw: Raw) -> None:
    holder[key] = random.choice(_SCALARS)


def _wrap(holder: Any, key: Any, random: Random, raw: Raw) -> None:
    value = holder[key]
    holder[key] = random.choice(([value], {}, [], {"a": value}, [value, value]))


def _remove(holder: Any, key: Any, random: Random, raw: Raw) -> None:
    del holder[key]


def _add(holder: Any, key: Any, random: Random, raw: Raw) -> None:
    into = holder[key] if isinstance(holder[key], dict | list) else holder
    value: Any = random.choice((random.choice(_SCALARS), [], {}, holder[key]))
    # A copy: a value shared by two positions would change in both.
    value = json.loads(json.dumps(value))
    if isinstance(into, list):
        into.insert(random.randrange(len(into) + 1), value)
    else:
        into[random.choice(_NAMES)] = value


def _rename(holder: Any, key: Any, random: Random, raw: Raw) -> None:
    if isinstance(holder, dict):
        holder[random.choice(_NAMES)] = holder.pop(key)


def _change_text(holder: Any, key: Any, random: Random, raw: Raw) -> None:
    if isinstance(holder[key], str):
        text = raw(holder[key].encode("utf-8", "surrogatepass") or b"x", 500)
        holder[key] = text.decode("utf-8", "replace")


_CHANGES = (_replace, _replace, _wrap, _remove, _add, _add, _rename, _change_text)
