"""Archives as `docker save` writes them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import zstandard

from . import build
from .build import Member


def docker_archive(
    path: Path,
    layers: dict[str, bytes],
    *,
    links: dict[str, str] | None = None,
    config_name: str | None = None,
    diff_ids: list[str] | None = None,
    tags: tuple[str, ...] = ("example.org/app:1",),
    more: dict[str, bytes] | None = None,
) -> Path:
    """Write a docker-archive: layers by member name, links from names to members."""
    names = list(links or layers)
    config = json.dumps(
        {
            "architecture": build.HOST_ARCHITECTURE,
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": diff_ids or [build.digest(_plain(b)) for b in layers.values()],
            },
        }
    ).encode()
    name = config_name or build.digest(config).removeprefix("sha256:") + ".json"
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": names}]
    members = [
        Member(n.encode(), data=b) for n, b in {**layers, name: config, **(more or {})}.items()
    ]
    members += [Member(n.encode(), "symlink", target=t.encode()) for n, t in (links or {}).items()]
    members.append(Member(b"manifest.json", data=json.dumps(manifest).encode()))
    path.write_bytes(build.tar(members, "gnu"))
    return path


def _plain(blob: bytes) -> bytes:
    if blob.startswith(b"\x1f\x8b"):
        return gzip.decompress(blob)
    if blob.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    return blob
