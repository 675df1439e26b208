"""Images around the fuzzed data, with valid digests, so that the data is reached.

An input for layers is a byte of options, then the layers as tar archives with a separator between
them. An input for documents is a byte that selects one, and the document.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, NamedTuple

from tests.support.build import (
    CONFIG,
    HOST_ARCHITECTURE,
    INDEX,
    LAYER_TYPES,
    MANIFEST,
    Compression,
    Member,
    compress,
    describe,
    digest,
    directory,
    entry,
    file,
    link,
    symlink,
    tar,
)

__all__ = ["BASE", "DOCUMENTS", "LAYOUT", "SEPARATOR", "Stack", "files_of", "pack", "with_document"]

Form = Literal["oci-archive", "oci-layout", "docker-archive"]
Files = dict[str, bytes]

SEPARATOR = b"\n--layer--\n"
FORMS: tuple[Form, ...] = ("oci-archive", "oci-layout", "docker-archive")
COMPRESSIONS: tuple[Compression, ...] = ("none", "gzip", "zstd")
LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'

#: A layer below the fuzzed ones, with names that they can hide, replace and follow.
BASE = tar(
    [
        directory(b"a", mode=0o2750, uid=7),
        file(b"a/f", b"below"),
        directory(b"a/d"),
        file(b"a/d/g", b"x" * 600, mode=0o4755),
        link(b"h", b"a/d/g"),
        symlink(b"l", b"a"),
        symlink(b"root", b"/"),
        symlink(b"up", b"../../.."),
        symlink(b"out", b"../outside"),
        symlink(b"a/d/loop", b"loop"),
        Member(b"p", "fifo"),
        Member(b"c", "char", rdev=(1, 3)),
    ]
)


class Stack(NamedTuple):
    """Layers to extract, with options.

    Attributes:
        form: the input form of the image.
        compression: the compression of its layers.
        strict: whether violations of the specification are errors.
        again: whether it is extracted a second time over the first result.
        layers: the uncompressed layers.
    """

    form: Form
    compression: Compression
    strict: bool
    again: bool
    layers: list[bytes]

    @classmethod
    def read(cls, data: bytes) -> Stack:
        """Decode an input; any bytes are valid."""
        number, layers = data[0] if data else 0, data[1:].split(SEPARATOR)
        choices = []
        for count in (3, 3, 2, 2, 2):
            number, choice = divmod(number, count)
            choices.append(choice)
        form, compression, base, strict, again = choices
        return cls(
            FORMS[form],
            COMPRESSIONS[compression],
            bool(strict),
            bool(again),
            [BASE, *layers] if base else layers,
        )


def stack(layers: list[bytes], *choices: int) -> bytes:
    """Encode an input for :meth:`Stack.read`: form, compression, base, strict, again."""
    number = 0
    for choice, count in zip(reversed(choices), (2, 2, 2, 3, 3)[-len(choices) :], strict=True):
        number = number * count + choice
    return bytes([number]) + SEPARATOR.join(layers)


def files_of(form: Form, layers: list[bytes], compression: Compression) -> Files:
    """Return the files of an image, by name."""
    blobs = [compress(layer, compression) for layer in layers]
    config = _json(_config(layers))
    if form == "docker-archive":
        names = [f"{number}/layer.tar" for number in range(len(blobs))]
        item = {"Config": "config.json", "RepoTags": ["fuzz:latest"], "Layers": names}
        return {
            **dict(zip(names, blobs, strict=True)),
            "config.json": config,
            "manifest.json": _json([item]),
        }
    manifest = _json(_manifest(config, blobs, compression))
    index = {"schemaVersion": 2, "manifests": [describe(MANIFEST, manifest)]}
    return {
        "oci-layout": LAYOUT,
        "index.json": _json(index),
        **{_place(blob): blob for blob in (manifest, config, *blobs)},
    }


def pack(files: Files) -> bytes:
    """Return files as a tar archive."""
    members = (entry(Member(name.encode(), data=data), "gnu") for name, data in files.items())
    return b"".join(members) + bytes(1024)


def write(where: Path, files: Files) -> None:
    """Write files into a directory."""
    for name, data in files.items():
        path = where / name
        os.makedirs(path.parent, exist_ok=True)
        path.write_bytes(data)


# -- Documents ------------------------------------------------------------------------------------

LAYERS = [tar([file(b"f", b"one"), directory(b"d")]), tar([file(b".wh.f"), file(b"d/g")])]


def _config(layers: list[bytes]) -> dict[str, object]:
    return {
        "architecture": HOST_ARCHITECTURE,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }


def _manifest(config: bytes, blobs: list[bytes], compression: str) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(CONFIG, config),
        "layers": [describe(LAYER_TYPES[compression], blob) for blob in blobs],
    }


def _index(*manifests: bytes, media_type: str = MANIFEST) -> dict[str, object]:
    described = [describe(media_type, each) for each in manifests]
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": described}


CONFIG_DOCUMENT = {
    **_config(LAYERS),
    "created": "2024-01-01T00:00:00Z",
    "author": "someone",
    "variant": "v1",
    "os.version": "6.1",
    "os.features": ["a"],
    "config": {
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin"],
        "Entrypoint": ["/bin/sh"],
        "Cmd": ["-c", "true"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "b"},
        "StopSignal": "SIGTERM",
        "ArgsEscaped": False,
    },
    "history": [
        {"created_by": "one", "created": "2024-01-01T00:00:00Z", "author": "a", "comment": "c"},
        {"created_by": "nothing", "empty_layer": True},
        {"created_by": "two"},
    ],
}
_PLAIN = json.dumps(CONFIG_DOCUMENT).encode()
MANIFEST_DOCUMENT = {
    **_manifest(_PLAIN, LAYERS, "none"),
    "annotations": {"org.opencontainers.image.title": "fuzz"},
}
_MANIFEST = json.dumps(MANIFEST_DOCUMENT).encode()
INDEX_DOCUMENT = {
    "schemaVersion": 2,
    "mediaType": INDEX,
    "annotations": {"a": "b"},
    "manifests": [
        {
            **describe(MANIFEST, _MANIFEST),
            "platform": {"os": "linux", "architecture": HOST_ARCHITECTURE, "variant": "v1"},
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        },
        {
            **describe(MANIFEST, b"not there"),
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
        },
        {
            **describe(MANIFEST, b"attestation"),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": digest(_MANIFEST),
            },
        },
    ],
}
DOCKER_DOCUMENT = [
    {
        "Config": f"{digest(_PLAIN).removeprefix('sha256:')}.json",
        "RepoTags": ["fuzz:latest", "docker.io/library/fuzz:1"],
        "Layers": ["0/layer.tar", "1/layer.tar"],
    }
]
#: The fuzzed documents, with their valid content.
DOCUMENTS: tuple[tuple[str, object], ...] = (
    ("oci-layout", json.loads(LAYOUT)),
    ("index", INDEX_DOCUMENT),
    ("nested index", INDEX_DOCUMENT),
    ("manifest", MANIFEST_DOCUMENT),
    ("config", CONFIG_DOCUMENT),
    ("docker manifest", DOCKER_DOCUMENT),
    ("docker config", CONFIG_DOCUMENT),
    ("hybrid", DOCKER_DOCUMENT),
)


def with_document(kind: str, document: bytes) -> Files:
    """Return the files of an image with one document replaced."""
    top, index, manifest, config = LAYOUT, _json(INDEX_DOCUMENT), _MANIFEST, _PLAIN
    docker: Files = {f"{n}/layer.tar": layer for n, layer in enumerate(LAYERS)}
    docker[str(DOCKER_DOCUMENT[0]["Config"])] = _PLAIN
    if kind in ("docker manifest", "docker config"):
        if kind == "docker manifest":
            return {**docker, "manifest.json": document}
        item = {**DOCKER_DOCUMENT[0], "Config": "config.json"}
        return {**docker, "config.json": document, "manifest.json": _json([item])}
    nested: Files = {}
    if kind == "oci-layout":
        top = document
    elif kind == "index":
        index = document
    elif kind == "nested index":
        index = _json(_index(document, media_type=INDEX))
        nested = {_place(document): document}
    elif kind == "manifest":
        manifest = document
        index = _json(_index(manifest))
    elif kind == "config":
        config = document
        manifest = _json(_manifest(config, LAYERS, "none"))
        index = _json(_index(manifest))
    else:
        nested = {**docker, "manifest.json": document}
    return {
        "oci-layout": top,
        "index.json": index,
        **{_place(blob): blob for blob in (manifest, config, *LAYERS)},
        **nested,
    }


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _place(blob: bytes) -> str:
    return f"blobs/{digest(blob).replace(':', '/')}"
