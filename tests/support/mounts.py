"""Mount file systems of many kinds for the duration of a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[Path]:
    """Mount something at a new directory; the arguments are those of mount(8).

    If root may not mount (in a container without the capability or without loop devices), the test
    is skipped with mount's message.
    """
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", *arguments, place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def disk(place: Path, kind: str, size: str, *options: str) -> Iterator[Path]:
    """Create a file system in a file and mount it; its root is empty.

    The test is skipped if this kernel does not support the file system.
    """
    known = Path("/proc/filesystems").read_text().split()
    image = place.with_name(place.name + ".img")
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run([f"mkfs.{kind}", *options, image], check=True, capture_output=True)
    try:
        if kind not in known and subprocess.run(["modprobe", kind], check=False).returncode:
            pytest.skip(f"this kernel has no {kind}")
    except FileNotFoundError:
        pytest.skip(f"this kernel has no {kind}")
    with mounted(place, "-o", "loop", image):
        if (place / "lost+found").is_dir():
            (place / "lost+found").rmdir()
        yield place
    image.unlink()


@contextmanager
def fat(place: Path, size: str) -> Iterator[Path]:
    """Create a FAT file system in a file and mount it with FUSE.

    The test is skipped without FUSE.
    """
    image = place.with_name(place.name + ".img")
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run(["mkfs.vfat", image], check=True, capture_output=True)
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["fusefat", "-o", "rw+", image, place], check=False, capture_output=True)
    if not place.is_mount():
        pytest.skip("FUSE cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    image.unlink()


def room(place: Path) -> tuple[int, int]:
    """Return the free bytes and inodes of a file system after a sync."""
    os.sync()
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize, status.f_ffree
