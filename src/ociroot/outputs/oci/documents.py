"""The documents of an image that is written: changed where they must be, and as they are otherwise.

A document that stays the same keeps its bytes, and with them its digest. One that is changed keeps
all that is not changed, unknown properties as well, and their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...spec.descriptor import LAYER_TYPES
from ...spec.digest import Digest
from ...spec.platform import Platform

__all__ = [
    "CONFIG",
    "INDEX",
    "LAYOUT",
    "MANIFEST",
    "Written",
    "WrittenLayer",
    "docker_manifest",
    "index",
    "is_tagged",
    "layer_type",
    "manifest",
    "squashed_config",
]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_NON_DISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
#: image-layout.md, "oci-layout file".
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_SQUASHED = "ociroot export --squash"
# distribution's reference grammar, as far as a name with a tag goes.
_REPOSITORY_TAG = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*:\w[\w.-]{0,127}", re.ASCII
)


class Written(msgspec.Struct, frozen=True):
    """A blob of the image that is written.

    Attributes:
        digest: its digest.
        size: its size in bytes.
        media_type: its media type.
        is_copy: whether it is a blob of the source.
    """

    digest: Digest
    size: int
    media_type: str
    is_copy: bool = True


class WrittenLayer(msgspec.Struct, frozen=True):
    """A layer of the image that was written.

    Attributes:
        digest: the digest of its blob; None in a docker-archive, which has none.
        diff_id: the digest of its uncompressed content.
        media_type: its media type; empty in a docker-archive.
        size: its size in bytes.
        copied: whether it is a blob of the source, as it was there.
    """

    digest: str | None
    diff_id: str
    media_type: str
    size: int
    copied: bool


def layer_type(declared: str, compression: str) -> str:
    """Return the media type of a layer, by what its bytes are.

    Args:
        declared: its media type in the source; empty: it has none there.
        compression: ``none``, ``gzip`` or ``zstd``.
    """
    if LAYER_TYPES.get(declared) == compression and "docker" not in declared:
        return declared
    foreign = "nondistributable" in declared or "foreign" in declared
    base = _NON_DISTRIBUTABLE if foreign else _LAYER
    return base if compression == "none" else f"{base}+{compression}"


def manifest(
    original: bytes | None,
    config: Written,
    layers: Sequence[Written],
    annotations: Mapping[str, str],
) -> bytes:
    """Return the manifest.

    Args:
        original: that of the source; None: it has none.
        config: the configuration.
        layers: the layers, base first.
        annotations: those that are added to it.
    """
    old = _object(original) if original is not None else {}
    before: dict[str, Any] = {}
    for each in old.get("layers") or ():
        before.setdefault(each["digest"], each)
    new = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _changed(old.get("config"), config),
        "layers": [_changed(before.get(str(each.digest)), each) for each in layers],
    }
    same = all(old.get(name) == new[name] for name in ("config", "layers"))
    is_oci = old.get("mediaType") in (None, MANIFEST)
    if original is not None and same and is_oci and not annotations:
        return original
    made = new | {name: value for name, value in old.items() if name not in new}
    if annotations:
        made["annotations"] = {**(old.get("annotations") or {}), **annotations}
    return _encoded(made)


def _changed(old: dict[str, Any] | None, new: Written) -> dict[str, Any]:
    """Return a descriptor: the source's with another type, or a new one.

    The annotations of a blob that is written anew are not taken over: they are about its bytes, as
    those of eStargz and zstd:chunked are.
    """
    known = {"mediaType": new.media_type, "digest": str(new.digest), "size": new.size}
    if old is None or old.get("digest") != str(new.digest) or not new.is_copy:
        return known
    return {**old, **known}


def index(
    manifest_digest: Digest,
    size: int,
    platform: Platform,
    names: Mapping[str, str],
) -> bytes:
    """Return the ``index.json`` of a layout with one image.

    Args:
        manifest_digest: the digest of the manifest.
        size: its size in bytes.
        platform: what the image runs on.
        names: the annotations with the image's names.
    """
    runs_on = {key: value for key, value in msgspec.to_builtins(platform).items() if value}
    descriptor: dict[str, Any] = {
        "mediaType": MANIFEST,
        "digest": str(manifest_digest),
        "size": size,
        "platform": runs_on,
    }
    if names:
        descriptor["annotations"] = dict(names)
    return _encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]})


def docker_manifest(config: str, tags: Sequence[str], layers: Sequence[str]) -> bytes:
    """Return the ``manifest.json`` of a docker-archive with one image.

    Args:
        config: the name of the configuration's file.
        tags: the names of the image; those that are no ``repository:tag`` are left out.
        layers: the names of the layers' files, base first.
    """
    kept = [tag for tag in tags if is_tagged(tag)]
    return _encoded([{"Config": config, "RepoTags": kept or None, "Layers": list(layers)}])


def is_tagged(name: str) -> bool:
    """Say whether a name is ``repository:tag``, as Docker has them."""
    return _REPOSITORY_TAG.fullmatch(name) is not None


def squashed_config(original: bytes, diff_id: Digest) -> bytes:
    """Return a configuration for one layer instead of all.

    config.md, "history": each step but those with ``empty_layer`` has a layer. So the steps are
    kept as such without one, and one more is added, for the layer.

    Args:
        original: the configuration of the source.
        diff_id: the digest of the layer.
    """
    config = _object(original)
    steps = [{**step, "empty_layer": True} for step in config.get("history") or ()]
    last: dict[str, Any] = {"created_by": _SQUASHED}
    if config.get("created"):
        last = {"created": config["created"], **last}
    config["rootfs"] = {**config["rootfs"], "diff_ids": [str(diff_id)]}
    config["history"] = [*steps, last]
    return _encoded(config)


def _object(content: bytes) -> dict[str, Any]:
    """Parse a document that has been checked, with its null members."""
    value: dict[str, Any] = json.loads(content)
    return value


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
