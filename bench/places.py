"""Directories for the trees: a new one for each run, in memory or on a disk."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PLACES", "Place", "place"]

MEMORY = Path("/dev/shm")
#: Bytes that must be free: the vfs storage of ten layers has ten trees.
ROOM = 10 * 2**30


@dataclass
class Place:
    """A directory for the trees.

    On a disk nothing is removed before the end, or before its space runs out: ext4 without a
    journal checks recently freed inodes repeatedly, which would be measured too.

    Attributes:
        directory: where.
        keep: whether trees stay until the end.
        short: how often there was not enough space to keep them.
    """

    directory: Path
    keep: bool
    short: int = 0
    _made: list[Path] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Provide an unused path that no other run uses at the same time."""
        if self.keep:
            if shutil.disk_usage(self.directory).free < ROOM:
                self.short += 1
                self.clear()
            os.sync()
        # Podman limits its paths to 50 characters.
        path = self.directory / str(next(self._numbers))
        self._made.append(path)
        try:
            yield path
        finally:
            if not self.keep:
                self.clear()

    def clear(self) -> None:
        """Remove the trees."""
        for path in self._made:
            _remove(path)
        self._made.clear()


def _remove(path: Path) -> None:
    # Container storages may be mounted on themselves.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{path}/"):
            subprocess.run(["umount", "--lazy", mount], check=True)
    subprocess.run(["rm", "-rf", path], check=True)


@contextmanager
def _memory(cache: Path) -> Iterator[Path]:
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=MEMORY) as directory:
            yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix=".tmpfs-", dir=cache) as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80%", "none", directory], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


@contextmanager
def _disk(cache: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".disk-", dir=cache) as directory:
        yield Path(directory)


#: The kinds of places: the function that provides the directory, and whether trees are kept.
PLACES: dict[str, tuple[Callable[[Path], AbstractContextManager[Path]], bool]] = {
    "tmpfs": (_memory, False),
    "disk": (_disk, True),
}


@contextmanager
def place(name: str, cache: Path) -> Iterator[Place]:
    """Provide a place, and remove its content at the end.

    Args:
        name: a key of ``PLACES``.
        cache: a directory on the disk to use.
    """
    where, keep = PLACES[name]
    cache.mkdir(parents=True, exist_ok=True)
    with where(cache) as directory:
        given = Place(directory, keep)
        try:
            yield given
        finally:
            given.clear()
