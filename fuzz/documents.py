"""Targets for the JSON documents, and for the detection of the input form."""

from __future__ import annotations

import json
from typing import Any

import msgspec

import ociroot
from ociroot.errors import OcirootError
from ociroot.limits import DEFAULTS
from ociroot.spec.config import Config
from ociroot.spec.digest import Digest
from ociroot.spec.docker import decode_manifest
from ociroot.spec.document import decode
from ociroot.spec.index import Index
from ociroot.spec.manifest import Manifest

from .checks import Finding, check, memory_file, refusal, undisturbed
from .commands import show
from .images import DOCUMENTS, pack, with_document

__all__ = ["documents", "forms"]

_KINDS: dict[str, type[Index | Manifest | Config]] = {
    "index": Index,
    "nested index": Index,
    "manifest": Manifest,
    "config": Config,
    "docker config": Config,
}
_WANTED: tuple[dict[str, str], ...] = (
    {},
    {"platform": "linux/arm/v7"},
    {"ref": "latest"},
    {"digest": "sha256:0"},
)


def documents(data: bytes) -> None:
    """One document of an image: decoded, encoded and decoded again, listed, selected, and shown."""
    kind = DOCUMENTS[(data[0] if data else 0) % len(DOCUMENTS)][0]
    document = data[1:]
    try:
        _twice(kind, document)
    except OcirootError as error:
        refusal(error)
    with undisturbed(), memory_file(pack(with_document(kind, document))) as path:
        _choose(path)
        show(path, "inspect")
        show(path, "inspect", "--json")


def forms(data: bytes) -> None:
    """Any file: its form is detected, or it is refused with what it looks like."""
    with undisturbed(), memory_file(data) as path:
        _choose(path)


def _twice(kind: str, document: bytes) -> None:
    if kind not in _KINDS:
        for image in decode_manifest(document, DEFAULTS):
            check(isinstance(image.config, str), image)
        return
    value = decode(document, _KINDS[kind], DEFAULTS)
    again = json.dumps(msgspec.to_builtins(value)).encode()
    try:
        check(decode(again, _KINDS[kind], DEFAULTS) == value, f"{value}, and read again: {again!r}")
    except OcirootError as error:
        raise Finding(f"it was taken, and not when written again: {again!r}") from error


def _choose(path: str) -> None:
    try:
        with ociroot.open(path) as source:
            check(source.form in ("oci-archive", "docker-archive"), source.form)
            for found in source.listing().images:
                check(Digest.parse(str(found.digest)) == found.digest, found.digest)
            for wanted in _WANTED:
                _merge(source, wanted)
    except OcirootError as error:
        refusal(error)


def _merge(source: Any, wanted: dict[str, str]) -> None:
    try:
        image = source.image(**wanted)
        check(len(image.layers) == len(image.config.rootfs.diff_ids), image.layers)
        if len(image.layers) <= 4:
            image.merged()
    except OcirootError as error:
        refusal(error)
