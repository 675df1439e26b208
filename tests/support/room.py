"""A directory for large or many files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextmanager
def roomy_directory(size: int) -> Iterator[Path]:
    """Provide a directory, in memory if there is space for `size` bytes, else in TMPDIR.

    It is removed at the end, unlike pytest's, which are kept for three sessions.
    """
    place = MEMORY if MEMORY.is_dir() and _good(MEMORY, size) else None
    directory = Path(tempfile.mkdtemp(prefix="ociroot-test-", dir=place))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _good(place: Path, size: int) -> bool:
    """Return whether the directory has enough space, supports xattrs, and allows execution."""
    status = os.statvfs(place)
    if status.f_bavail * status.f_frsize < size or status.f_flag & os.ST_NOEXEC:
        return False
    with tempfile.NamedTemporaryFile(dir=place) as file:
        try:
            os.setxattr(file.fileno(), "user.probe", b"")  # tmpfs has them since Linux 6.6
        except OSError:
            return False
    return True
