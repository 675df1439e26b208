"""The peak memory of an extraction, as the kernel reports it, does not grow with the image."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from .support.build import CONFIG, HOST_ARCHITECTURE, LAYER_TYPES, MANIFEST
from .support.needs import need_tools
from .support.peak import measured
from .support.room import roomy_directory

MEGABYTE = 1_000_000
FILE_SIZE = 2 * 2**30
ENTRIES = 200_000
COMPRESSORS = {"gzip": ("pigz", "-1", "-c"), "zstd": ("zstd", "-1", "-q", "-c")}


class Hashing:
    """A file that counts and hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


class Repeated(io.RawIOBase):
    """A repeated block: not zeros, for which there may be a fast path, and quickly made."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.block = random.Random(0).randbytes(2**19).hex().encode()

    def read(self, size: int = -1) -> bytes:
        data = self.block[: min(size, self.left, len(self.block))]
        self.left -= len(data)
        return data


def one_large_file(archive: tarfile.TarFile) -> None:
    member = tarfile.TarInfo("large")
    member.size = FILE_SIZE
    archive.addfile(member, Repeated(FILE_SIZE))


def many_entries(archive: tarfile.TarFile) -> None:
    member = tarfile.TarInfo()
    for number in range(ENTRIES):
        directory, file = divmod(number, 500)
        member.name = f"usr/share/directory-{directory:03}/a-file-of-many-{file:03}"
        if file == 0:
            member.name, member.type = f"usr/share/directory-{directory:03}", tarfile.DIRTYPE
            member.mode = 0o755
        else:
            member.type, member.mode = tarfile.REGTYPE, 0o644
        archive.addfile(member)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory; files in a tmpfs are not part of the resident set."""
    with roomy_directory(4 * FILE_SIZE) as directory:
        yield directory


def image(path: Path, compression: str, fill: Callable[[tarfile.TarFile], None]) -> Path:
    """Stream an image of one layer: the layer is neither in memory nor twice on disk."""
    with path.open("w+b") as outer:
        outer.write(bytes(tarfile.BLOCKSIZE))  # the blob's header: its name is known at the end
        outer.flush()
        with subprocess.Popen(
            COMPRESSORS[compression], stdin=subprocess.PIPE, stdout=outer
        ) as compressor:
            assert compressor.stdin is not None
            hashing = Hashing(compressor.stdin)
            with tarfile.open(fileobj=hashing, mode="w|", bufsize=2**20) as archive:  # type: ignore[call-overload]
                fill(archive)
        assert compressor.returncode == 0
        size = outer.seek(0, os.SEEK_END) - tarfile.BLOCKSIZE
        outer.seek(tarfile.BLOCKSIZE)
        digest = hashlib.file_digest(outer, "sha256").hexdigest()
        outer.write(bytes(-size % tarfile.BLOCKSIZE))
        outer.seek(0)
        outer.write(header(f"blobs/sha256/{digest}", size))
        outer.seek(0, os.SEEK_END)

        def add(name: str, data: bytes) -> None:
            outer.write(header(name, len(data)))
            outer.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))

        def document(value: object, media_type: str) -> dict[str, object]:
            data = json.dumps(value).encode()
            name = hashlib.sha256(data).hexdigest()
            add(f"blobs/sha256/{name}", data)
            return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

        diff_id = f"sha256:{hashing.digest.hexdigest()}"
        config = {
            "architecture": HOST_ARCHITECTURE,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        layer = {
            "mediaType": LAYER_TYPES[compression],
            "digest": f"sha256:{digest}",
            "size": size,
        }
        manifest = {"schemaVersion": 2, "config": document(config, CONFIG), "layers": [layer]}
        index = {"schemaVersion": 2, "manifests": [document(manifest, MANIFEST)]}
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add("index.json", json.dumps(index).encode())
        outer.write(bytes(2 * tarfile.BLOCKSIZE))
    return path


def header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def peak(path: Path, root: Path) -> int:
    """Extract in a child process and return its peak resident set size in bytes."""
    result = measured("extract", "--quiet", "--max-ratio=1000000", path, root)
    assert (result.code, result.err) == (0, "")
    return result.peak


def exporting(path: Path, tmpdir: Path) -> int:
    """Export to a pipe in a child process and return its peak resident set size in bytes."""
    result = measured("export", "--quiet", "--max-ratio=1000000", f"--tmpdir={tmpdir}", path, "-")
    assert (result.code, result.err) == (0, "")
    return result.peak


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_large_file(scratch: Path, compression: str) -> None:
    need_tools(COMPRESSORS[compression][0])
    root = scratch / "root"
    made = image(scratch / "image.tar", compression, one_large_file)
    used = peak(made, root)
    assert (root / "large").stat().st_size == FILE_SIZE
    assert used < 200 * MEGABYTE
    (root / "large").unlink()
    assert exporting(made, scratch) < 150 * MEGABYTE


@pytest.mark.slow
def test_many_entries(scratch: Path) -> None:
    need_tools(COMPRESSORS["zstd"][0])
    root = scratch / "root"
    made = image(scratch / "image.tar", "zstd", many_entries)
    used = peak(made, root)
    assert sum(len(files) + len(dirs) for _, dirs, files in os.walk(root)) == ENTRIES + 2
    assert used < 400 * MEGABYTE
    assert exporting(made, scratch) < 400 * MEGABYTE
