"""Build OCI images from layers that are tar files: streamed to disk, and reproducible."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measure import Failed

__all__ = ["COMPRESSIONS", "Image", "Stored", "digest_of", "make", "single", "stored"]

OCI = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

#: Compressions: the suffix of the media type, and the command from stdin to stdout.
COMPRESSIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gzip": ("tar+gzip", ("gzip", "-6", "-n", "-c")),
    "zstd": ("tar+zstd", ("zstd", "-3", "-q", "-c")),
    "none": ("tar", ("cat",)),
}


@dataclass(frozen=True)
class Image:
    """An image in one compression.

    Attributes:
        name: its name in the tables.
        compression: a key of ``COMPRESSIONS``.
        archive: the oci-archive.
        layout: the OCI layout directory; its only image is named ``latest``.
        blobs: the layers' blobs in the layout, base first.
    """

    name: str
    compression: str
    archive: Path
    layout: Path
    blobs: tuple[Path, ...]


@dataclass(frozen=True)
class Stored:
    """The location of a layer's blob in an oci-archive."""

    offset: int
    size: int
    compression: str

    def __str__(self) -> str:
        return f"{self.offset},{self.size},{self.compression}"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make(directory: Path, name: str, layers: Sequence[Path], compression: str) -> Image:
    """Create an image, as a layout and as an archive, unless they exist.

    Args:
        directory: the directory for the image.
        name: its name.
        layers: tar files, base first.
        compression: the compression of all its layers.
    """
    layout = directory / f"{name}.{compression}"
    archive = directory / f"{name}.{compression}.tar"
    if not archive.exists():
        if layout.exists():
            shutil.rmtree(layout)
        _write_layout(layout, layers, compression)
        unfinished = archive.with_suffix(".unfinished")
        _write_archive(unfinished, layout)
        unfinished.rename(archive)
    return Image(name, compression, archive, layout, _blobs(layout))


def single(image: Image, number: int, directory: Path, diff_id: str) -> Image:
    """Create an image of one layer of another image; the blob is a hard link."""
    layout = directory / f"{image.name}-{number}.{image.compression}"
    archive = layout.with_name(layout.name + ".tar")
    if not archive.exists():
        if layout.exists():
            shutil.rmtree(layout)
        (layout / "blobs/sha256").mkdir(parents=True)
        blob = image.blobs[number]
        (layout / "blobs/sha256" / blob.name).hardlink_to(blob)
        _write_documents(layout, [(blob.name, blob.stat().st_size, diff_id)], image.compression)
        _write_archive(archive, layout)
    return Image(f"{image.name}-{number}", image.compression, archive, layout, _blobs(layout))


def stored(image: Image) -> list[Stored]:
    """Return the locations of the layers' blobs in the archive."""
    with tarfile.open(image.archive) as archive:
        members = {member.name: member for member in archive}
    found = [members[f"blobs/sha256/{blob.name}"] for blob in image.blobs]
    return [Stored(each.offset_data, each.size, image.compression) for each in found]


def _blobs(layout: Path) -> tuple[Path, ...]:
    def read(digest: str) -> Any:
        return json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())

    index = json.loads((layout / "index.json").read_bytes())
    manifest = read(index["manifests"][0]["digest"])
    return tuple(layout / "blobs" / each["digest"].replace(":", "/") for each in manifest["layers"])


def _write_layout(layout: Path, layers: Sequence[Path], compression: str) -> None:
    store = layout / "blobs/sha256"
    store.mkdir(parents=True)
    described = []
    for layer in layers:
        unfinished = layout / "unfinished"
        with layer.open("rb") as source, unfinished.open("wb") as blob:
            done = subprocess.run(COMPRESSIONS[compression][1], stdin=source, stdout=blob)
        if done.returncode != 0:
            raise Failed(f"{COMPRESSIONS[compression][1][0]}: exit {done.returncode}")
        digest = digest_of(unfinished)
        unfinished.rename(store / digest)
        described.append((digest, (store / digest).stat().st_size, digest_of(layer)))
    _write_documents(layout, described, compression)


def _write_documents(
    layout: Path, layers: Sequence[tuple[str, int, str]], compression: str
) -> None:
    """Write the documents; each layer is given as its digest, size and diff_id."""

    def document(kind: str, value: object) -> dict[str, Any]:
        content = json.dumps(value).encode()
        digest = hashlib.sha256(content).hexdigest()
        (layout / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": OCI + kind, "digest": f"sha256:{digest}", "size": len(content)}

    machine = platform.machine()
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each[2]}" for each in layers]},
    }
    kind = f"{OCI}.layer.v1.{COMPRESSIONS[compression][0]}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI + ".manifest.v1+json",
        "config": document(".config.v1+json", config),
        "layers": [
            {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}
            for digest, size, _ in layers
        ],
    }
    named = document(".manifest.v1+json", manifest)
    named["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [named]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _write_archive(path: Path, layout: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for file in sorted(each for each in layout.rglob("*") if each.is_file()):
            member = tarfile.TarInfo(str(file.relative_to(layout)))
            member.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(member, content)
