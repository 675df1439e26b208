"""The file into which a compressed archive, or one that comes through a pipe, is decompressed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..errors import DestinationError
from ..limits import Limits
from ..space import SpaceBudget

__all__ = ["spool"]

_REMEDY = "--tmpdir names another directory"
_NO_RESERVE = "; --max-spool, of what it may take, does without this reserve"


def spool(
    chunks: Iterator[bytes], least: int, tmpdir: str | os.PathLike[str] | None, limits: Limits
) -> int:
    """Write chunks to a file that has no name, and is gone when it is closed.

    Args:
        chunks: what is written.
        least: bytes that there will surely be.
        tmpdir: where the file lies; None: the system's place.
        limits: on its size.

    Returns:
        The file's descriptor.

    Raises:
        DestinationError: the file system would be full, or nearly so.
        LimitExceeded: it is more than the limit that somebody has set.
    """
    import tempfile  # 4 ms that most images do not need

    directory = os.fspath(tmpdir) if tmpdir is not None else tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            # As for the destination, not where the user has said how much it may be.
            reserved = limits.spool is None
            budget = SpaceBudget(
                file.fileno(),
                remedy=_REMEDY + (_NO_RESERVE if reserved else ""),
                reserved=reserved,
                so_far=lambda: f" to decompress it in {directory}",
            )
            budget.require(least, f"no space for {least} bytes to decompress it in {directory}")
            for chunk in chunks:
                budget.claim(len(chunk))
                limits.check("spool", budget.claimed)
                file.write(chunk)
            file.flush()
            return os.dup(file.fileno())
    except OSError as error:
        failed = DestinationError.from_os(error, f"decompress it into {directory}")
        if failed.is_full:
            failed.remedy = _REMEDY
        raise failed from error
