"""The target for documents: which image each reader finds in an input.

An input is a byte that selects the form, and an archive of its files. The manifest, layers and
configuration that are selected are compared, and the tree that umoci extracts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

import ociroot
from ociroot.errors import OcirootError
from ociroot.limits import DEFAULTS
from ociroot.tar.reader import entries
from ociroot.tar.stream import ChunkStream
from tests.support.snapshot import snapshot

from ..extraction import arena
from ..images import write
from .difference import Difference, Result
from .known import decided
from .make_documents import FORMS

__all__ = ["compare_documents"]

_SECONDS = 20
Meaning = dict[str, Any]


def compare_documents(data: bytes) -> Result:
    """Read an input with all readers, and return their differences from us."""
    form = FORMS[data[0] % len(FORMS)]
    accepted: set[str] = set()
    found: list[Difference] = []
    with arena() as place:
        image = place / "image"
        if form == "oci-layout":
            write(image, _files(data[1:]))
        else:
            image.write_bytes(data[1:])
        for reader, called, ref in _readings(form, image):
            try:
                ours = _meaning(image, ref=ref)
            except OcirootError:
                continue
            accepted.add("ociroot")
            meaning = _skopeo(called)
            if meaning is not None:
                accepted.add(reader)
                if form == "hybrid" and "docker" in reader and meaning in _all(image):
                    # manifest.json may list only some of the images of index.json.
                    continue
                found += _compare(reader, _place(image, form), ours, meaning)
        if form == "oci-layout":
            trees = _trees(place)
            if trees is not None:
                accepted |= {"ociroot", "umoci"}
                found += (
                    [Difference("umoci", "tree", "layout", *trees)] if trees[0] != trees[1] else []
                )
    unknown = [each for each in found if decided(each, []) is None]
    known = [name for each in found if (name := decided(each, [])) is not None]
    return Result(frozenset(accepted), tuple(unknown), tuple(known))


def _files(archive: bytes) -> dict[str, bytes]:
    stream = ChunkStream(iter((archive,)))
    return {
        entry.name.decode(): b"".join(stream.iter_chunks(entry.size))
        for entry in entries(stream, DEFAULTS)
    }


def _readings(form: str, image: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the readings of an image: the reader, its name for the image, and our reference."""
    if form == "oci-layout":
        yield "skopeo-oci", f"oci:{image}:t", "t"
        yield "skopeo-oci", f"oci:{image}", ""
    if form in ("oci-archive", "hybrid"):
        yield "skopeo-oci-archive", f"oci-archive:{image}:t", "t"
        yield "skopeo-oci-archive", f"oci-archive:{image}", ""
    if form in ("docker-archive", "hybrid"):
        yield "skopeo-docker-archive", f"docker-archive:{image}", ""


def _meaning(image: Path, *, ref: str = "", digest: str = "") -> Meaning:
    """Return which image we select.

    Raises:
        OcirootError: we refuse it.
    """
    with ociroot.open(image) as source:
        chosen = source.image(ref=ref, digest=digest)
        chosen.merged()
        described = msgspec.to_builtins(chosen.config)
        return {
            "layers": [str(layer.digest or layer.diff_id) for layer in chosen.layers],
            **_described(described),
        }


def _all(image: Path) -> list[Meaning]:
    """Return all images of a source."""
    with ociroot.open(image) as source:
        digests = [str(each.digest) for each in source.listing().images]
    found = []
    for digest in digests:
        with suppress(OcirootError):
            found.append(_meaning(image, digest=digest))
    return found


def _skopeo(name: str) -> Meaning | None:
    outputs = []
    for command in (["inspect"], ["inspect", "--config"]):
        done = _run(["skopeo", *command, name])
        if done is None:
            return None
        outputs.append(json.loads(done))
    # Not its digest, which is that of the index if there is one.
    shown, config = outputs
    return {
        "layers": shown["Layers"] or [],
        **_described(config),
    }


def _run(command: list[str]) -> bytes | None:
    done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)
    return None if done.returncode else done.stdout


def _described(config: Meaning) -> Meaning:
    """Return the fields of a configuration that both readers have, in one form."""
    inner = config.get("config") or {}
    return {
        "architecture": config.get("architecture", ""),
        "os": config.get("os", ""),
        "diff_ids": list((config.get("rootfs") or {}).get("diff_ids") or ()),
        "history": [
            (each.get("created_by", ""), each.get("empty_layer", False))
            for each in config.get("history") or ()
        ],
        **{name: inner.get(name) or "" for name in ("User", "WorkingDir", "StopSignal")},
        **{name: list(inner.get(name) or ()) for name in ("Env", "Entrypoint", "Cmd")},
        **{name: sorted(inner.get(name) or ()) for name in ("ExposedPorts", "Volumes")},
        "Labels": dict(inner.get("Labels") or {}),
    }


def _place(image: Path, form: str) -> str:
    """Return a description of other items that a reader may select as the image."""
    with ociroot.open(image) as source:
        listing = source.listing()
    words = [form]
    if any(o.platform is not None and not o.error and not o.subject for o in listing.others):
        words.append("beside what is no image")
    return " ".join(words)


def _compare(reader: str, place: str, ours: Meaning, theirs: Meaning) -> Iterator[Difference]:
    for name, value in ours.items():
        if value != theirs[name]:
            yield Difference(reader, name, place, value, theirs[name])


def _trees(place: Path) -> tuple[Meaning, Meaning] | None:
    """Return the file contents of the trees that we and umoci extract, or None."""
    image = place / "image"
    try:
        with ociroot.open(image) as source:
            source.image(ref="t").extract(place / "root")
    except OcirootError:
        return None
    command = ["umoci", "raw", "unpack", "--image", f"{image}:t", os.fspath(place / "copy")]
    if _run(command) is None:
        return None
    ours, theirs = (
        {path.decode(): record.sha256 for path, record in snapshot(place / name).items()}
        for name in ("root", "copy")
    )
    return ours, theirs
