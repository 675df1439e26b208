"""Synthetic layers, streamed to disk: many entries, many bytes, many layers."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SCALE", "Size", "layers_of", "tiny"]

_IN_A_DIRECTORY = 500


@dataclass(frozen=True)
class Size:
    """The size of an image.

    Attributes:
        name: its name.
        entries: the number of files and directories.
        bytes: the bytes of all files.
        layers: the number of layers with these entries.
    """

    name: str
    entries: int
    bytes: int
    layers: int = 1


SCALE = (
    Size("1k entries", 1_000, 100_000),
    Size("10k entries", 10_000, 1_000_000),
    Size("100k entries", 100_000, 10_000_000),
    Size("1M entries", 1_000_000, 100_000_000),
    Size("0.1 GB", 1, 100_000_000),
    Size("1 GB", 1, 1_000_000_000),
    Size("4 GB", 1, 4_000_000_000),
    Size("1 layer", 20_000, 200_000_000, 1),
    Size("10 layers", 20_000, 200_000_000, 10),
    Size("100 layers", 20_000, 200_000_000, 100),
)


class _Content(io.RawIOBase):
    """Endless bytes that compress to half: half of them random, half repetitive."""

    def __init__(self, start: int) -> None:
        self._at = start % len(_SAMPLE)

    def read(self, size: int = -1) -> bytes:
        data = _SAMPLE[self._at : self._at + size]
        while len(data) < size:
            data += _SAMPLE[: size - len(data)]
        self._at = (self._at + size) % len(_SAMPLE)
        return data


def _sample() -> bytes:
    source = random.Random(1)
    pieces = [source.randbytes(2048) + b"the same line again\n" * 100 for _ in range(2048)]
    return b"".join(pieces)


_SAMPLE = _sample()


def layers_of(size: Size, directory: Path) -> list[Path]:
    """Write the layers of a size unless they exist; return them, base first."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    entries, content = size.entries // size.layers, size.bytes // size.layers
    for number in range(size.layers):
        path = directory / f"{number:03}.tar"
        paths.append(path)
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            _write(unfinished, f"layer-{number:03}", entries, content)
            unfinished.rename(path)
    return paths


def tiny(directory: Path) -> Sequence[Path]:
    """Write a layer of one small file."""
    return layers_of(Size("tiny", 1, 100), directory)


def _write(path: Path, top: str, entries: int, content: int) -> None:
    directories = (entries + _IN_A_DIRECTORY - 1) // _IN_A_DIRECTORY if entries > 1 else 0
    files = entries - directories
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(files):
            directory, file = divmod(number, _IN_A_DIRECTORY - 1)
            if file == 0 and directories:
                member = tarfile.TarInfo(f"{top}/share/directory-{directory:04}")
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            name = f"{top}/share/directory-{directory:04}/a-file-of-many-{file:03}"
            member = tarfile.TarInfo(name)
            member.size = content // files
            archive.addfile(member, _Content(number * 9973))
            # The members are not needed again, and a million of them take much memory.
            archive.members.clear()  # type: ignore[attr-defined]
