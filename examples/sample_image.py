"""Write a small sample image as an oci-archive: ``python examples/sample_image.py OUT.tar``.

An OCI image consists of JSON documents and tar archives that refer to each other by digest::

    index.json ──► manifest ──► config     (execution parameters, digests of uncompressed layers)
                           └──► layers     (tar archives, base first: changes to the layers below)

Everything but the index is in ``blobs/sha256/<digest>``, and an oci-archive is that directory in a
tar archive. The times are fixed: the same Python writes the same bytes on the same kind of machine.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import platform
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BUILT = 1_700_000_000  # seconds since 1970: 2023-11-14 22:13:20 UTC
OCI = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # the machine's name and GOARCH
APP = 1000  # uid and gid of the application
GREETING = "Grüße aus Köln, 你好, здравствуйте\n"


class Layer:
    """A changeset: a tar archive of added, modified and removed files."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(
        self,
        name: str,
        kind: bytes = tarfile.REGTYPE,
        content: str = "",
        mode: int = 0o644,
        owner: int = 0,
        mtime: float = BUILT,
        **more: Any,
    ) -> None:
        """Append an entry; ``more`` are further attributes of a ``tarfile.TarInfo``."""
        entry = tarfile.TarInfo(name)
        data = content.encode()
        entry.type, entry.size, entry.mode, entry.mtime = kind, len(data), mode, mtime
        entry.uid = entry.gid = owner
        for attribute, value in more.items():
            setattr(entry, attribute, value)
        self._tar.addfile(entry, io.BytesIO(data))

    def directory(self, name: str, mode: int = 0o755, **more: Any) -> None:
        """Append a directory."""
        self.add(name, tarfile.DIRTYPE, mode=mode, **more)

    def link(self, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
        """Append a symbolic link, or a hard link, whose target is a path in the image."""
        self.add(name, kind, mode=0o777, linkname=target)

    def finish(self) -> bytes:
        """Return the bytes of the uncompressed archive."""
        self._tar.close()
        return self._buffer.getvalue()


def base() -> bytes:
    """Return the bottom layer: a tree like that of a small system."""
    layer = Layer()
    for name in ("dev", "etc", "srv", "usr", "usr/bin", "var", "var/cache", "var/cache/apt"):
        layer.directory(name, mtime=BUILT - 3600)
    layer.directory("tmp", mode=0o1777)
    layer.link("bin", "usr/bin")
    layer.add("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
    layer.add("etc/os-release", content='NAME="ociroot sample"\nID=sample\n')
    layer.add("etc/motd", content="A message that the second layer removes.\n")
    layer.add("usr/bin/hello", content='#!/bin/sh\necho "Hello, ${1:-world}"\n', mode=0o755)
    layer.link("usr/bin/hi", "usr/bin/hello", tarfile.LNKTYPE)
    layer.add("usr/bin/become", content="#!/bin/sh\n# the set-user-ID bit is on\n", mode=0o4755)
    for name in ("a.deb", "b.deb"):
        layer.add(f"var/cache/apt/{name}", content="of no use in an image\n" * 100)
    return layer.finish()


def application() -> bytes:
    """Return a layer with an application; it removes one file of the base."""
    layer = Layer()
    # A whiteout: an empty file that removes the name after `.wh.` from the layers below.
    layer.add("etc/.wh.motd")
    layer.directory("srv/app", owner=APP, mode=0o2775)
    # A tar header has no fields for fractions of seconds and extended attributes, so both are pax
    # records; tarfile writes the record of the time itself.
    label = {"SCHILY.xattr.user.language": "de, zh, ru"}
    layer.add(
        "srv/app/grüße.txt", content=GREETING, owner=APP, mtime=BUILT + 0.5, pax_headers=label
    )
    layer.directory("srv/app/plugins", owner=APP)
    layer.add("srv/app/plugins/one", content="first\n", owner=APP)
    return layer.finish()


def cleanup() -> bytes:
    """Return a layer that empties the cache directory and adds one file to it."""
    layer = Layer()
    layer.directory("var/cache/apt", mode=0o700)
    # An opaque whiteout: it removes all entries of its directory in the layers below.
    layer.add("var/cache/apt/.wh..wh..opq")
    layer.add("var/cache/apt/lock", mode=0o640)
    return layer.finish()


def update() -> bytes:
    """Return the top layer: a directory becomes a link, a file of the base is renamed."""
    layer = Layer()
    layer.directory("srv/app/plugins-2", owner=APP, mtime=BUILT + 60)
    layer.add("srv/app/plugins-2/two", content="second\n", owner=APP)
    layer.link("srv/app/plugins", "plugins-2")
    layer.link("srv/app/start", "usr/bin/hello", tarfile.LNKTYPE)
    return layer.finish()


def to_json(document: Any) -> bytes:
    """Return the bytes of a document, of which its digest is computed."""
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def digest_of(content: bytes) -> str:
    """Return the digest of some bytes in the form of the specification."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def write(path: Path) -> None:
    """Write the image to a file."""
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, content: bytes) -> dict[str, Any]:
        """Add a blob and return its descriptor."""
        digest = digest_of(content)
        blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    timeless = partial(gzip.compress, mtime=0)  # otherwise it would contain the current time
    # The steps that created the layers, base first, and one that changed only the configuration.
    history: list[dict[str, Any]] = [
        {"created_by": "ADD base.tar /"},
        {"created_by": "COPY app /srv/app"},
        {"created_by": 'ENTRYPOINT ["/usr/bin/hello"]', "empty_layer": True},
        {"created_by": "RUN apt-get clean"},
        {"created_by": "RUN update-plugins"},
    ]
    stack: list[tuple[bytes, str, Callable[[bytes], bytes]]] = [
        (base(), ".layer.v1.tar+gzip", timeless),
        (application(), ".layer.v1.tar+gzip", timeless),
        (cleanup(), ".layer.v1.tar+zstd", zstd.compress),
        (update(), ".layer.v1.tar", bytes),
    ]
    config = {
        "created": "2023-11-14T22:13:20Z",
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": f"{APP}:{APP}",
            "Env": ["PATH=/usr/bin:/bin", "GREETING=Grüße"],
            "Entrypoint": ["/usr/bin/hello"],
            "Cmd": ["container"],
            "WorkingDir": "/srv/app",
            "Labels": {"org.opencontainers.image.title": "ociroot sample"},
        },
        # The digests of the uncompressed layers, which do not depend on the compression.
        "rootfs": {"type": "layers", "diff_ids": [digest_of(content) for content, _, _ in stack]},
        "history": [{"created": "2023-11-14T22:13:20Z", **step} for step in history],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI + ".manifest.v1+json",
        "config": blob(OCI + ".config.v1+json", to_json(config)),
        "layers": [blob(OCI + kind, compress(content)) for content, kind, compress in stack],
    }
    named = blob(OCI + ".manifest.v1+json", to_json(manifest))
    named["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "mediaType": OCI + ".index.v1+json", "manifests": [named]}

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        members = {"oci-layout": to_json({"imageLayoutVersion": "1.0.0"})}
        members["index.json"] = to_json(index)
        members |= {f"blobs/{digest.replace(':', '/')}": blobs[digest] for digest in sorted(blobs)}
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), BUILT
            archive.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a small sample image as an oci-archive.")
    parser.add_argument("out", metavar="OUT.tar", type=Path)
    write(parser.parse_args().out)
