"""A naive extraction in Python: the standard library's ``tarfile``, without verification.

python naive.py ARCHIVE ROOT
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from typing import IO, Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def extract(path: str, root: str) -> None:
    """Extract the only image of an oci-archive."""
    with tarfile.open(path) as archive:

        def blob(descriptor: dict[str, Any]) -> IO[bytes]:
            file = archive.extractfile("blobs/" + descriptor["digest"].replace(":", "/"))
            assert file is not None
            return file

        index = archive.extractfile("index.json")
        assert index is not None
        manifest = json.load(blob(json.load(index)["manifests"][0]))
        for descriptor in manifest["layers"]:
            with layer(blob(descriptor), descriptor["mediaType"]) as tar:
                # As an attribute: Debian 12's Python has no such argument yet.
                tar.extraction_filter = lambda member, _: member
                tar.extractall(root, wanted(tar, root))


def layer(file: IO[bytes], media_type: str) -> tarfile.TarFile:
    """Open a layer; ``tarfile`` itself supports zstd since Python 3.14."""
    if media_type.endswith("zstd"):
        return tarfile.open(fileobj=zstd.ZstdFile(file))
    return tarfile.open(fileobj=file)


def wanted(tar: tarfile.TarFile, root: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members to extract; remove what they replace, and what whiteouts name."""
    for member in tar:
        parent, name = os.path.split(os.path.join(root, member.name))
        if name == ".wh..wh..opq":
            for each in os.listdir(parent) if os.path.isdir(parent) else ():
                remove(os.path.join(parent, each))
        elif name.startswith(".wh."):
            remove(os.path.join(parent, name.removeprefix(".wh.")))
        else:
            if not member.isdir() or os.path.islink(os.path.join(parent, name)):
                remove(os.path.join(parent, name))
            yield member


def remove(path: str) -> None:
    """Remove a path if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


if __name__ == "__main__":
    extract(*sys.argv[1:])
