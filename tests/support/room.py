"""A place for what is too large, or too many files, for the disk of just any machine."""

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
    """Give a directory, in memory if there is room for `size` bytes, else among the temporary.

    It is removed at the end, unlike pytest's, of which three sessions are kept.
    """
    place = MEMORY if MEMORY.is_dir() and _good(MEMORY, size) else None
    directory = Path(tempfile.mkdtemp(prefix="ociroot-test-", dir=place))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _good(place: Path, size: int) -> bool:
    """Whether the place is large enough, carries what images have, and runs programs."""
    status = os.statvfs(place)
    if status.f_bavail * status.f_frsize < size or status.f_flag & os.ST_NOEXEC:
        return False
    with tempfile.NamedTemporaryFile(dir=place) as file:
        try:
            os.setxattr(file.fileno(), "user.probe", b"")  # tmpfs has them since Linux 6.6
        except OSError:
            return False
    return True
