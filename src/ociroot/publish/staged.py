"""What a directory and a single file that are published have in common.

Both are made in a staging directory beside their place, or in it. What the kernel says on the way
there and back becomes an error that names the destination; what the caller raises in between stays
as it is, and is told what there is now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from ..errors import DestinationError, OcirootError, printable
from ..notices import Notices
from .staging import StagingDirectory

__all__ = ["Staged", "entered", "notice_leftover", "sync_names", "translated"]


class Staged:
    """What is made where nobody else sees it.

    Attributes:
        fd: the descriptor of the directory in which it is made.
    """

    def __init__(self, place: StagingDirectory, holder: str, given: str) -> None:
        """Begin with nothing made.

        Args:
            place: the staging directory.
            holder: the path of the directory that it is in, for messages.
            given: the destination, as the user has it.
        """
        self.fd = place.fd
        self._place = place
        self._holder = holder
        self._given = given

    @property
    def left(self) -> str:
        """The path of what could not be removed, once all is done; empty: nothing is left."""
        return os.path.join(self._holder, self._place.left) if self._place.left else ""

    def explain(self, error: BaseException) -> None:
        """Say in an error what there is now."""
        state = []
        if self._place.published:
            state.append(f"{printable(self._given)} is complete")
        if self.left:
            state.append(f"{printable(self.left)} was left behind")
        if isinstance(error, DestinationError):
            # It names the member; whose file system is full is the destination's.
            error.locate(source=self._given)
            if error.is_full and not state:
                state.append("nothing was left behind")
        if isinstance(error, OcirootError):
            error.problem = "; ".join([error.problem, *state])
        elif state:
            error.add_note("; ".join(state))


_S = TypeVar("_S", bound=Staged)


@contextmanager
def entered(given: str, what: str, manager: AbstractContextManager[_S]) -> Iterator[_S]:
    """Enter a staging, and leave it.

    Args:
        given: the destination, as the user has it.
        what: what is being done, as in ``cannot {what}``.
        manager: makes the staging directory, and removes it.
    """
    with translated(given, what):
        staged = manager.__enter__()
    try:
        try:
            yield staged
        except BaseException as error:
            # What the caller raises is the caller's, an OSError too.
            manager.__exit__(type(error), error, error.__traceback__)
            raise
        with translated(given, what):
            manager.__exit__(None, None, None)
    except BaseException as error:
        staged.explain(error)
        raise


@contextmanager
def translated(given: str, what: str) -> Iterator[None]:
    """Turn what the kernel says into our error, which names the destination."""
    try:
        yield
    except DestinationError as error:
        raise error.locate(source=given) from error.__cause__
    except OSError as error:
        raise DestinationError.from_os(error, what).locate(source=given) from error


def sync_names(fd: int, notices: Notices) -> None:
    """Write the names in a directory to the disk; the result is there, whatever comes of it."""
    try:
        os.fsync(fd)
    except OSError as error:
        notices.add("not-synced", os.strerror(error.errno or 0))


def notice_leftover(place: StagingDirectory, holder: str, notices: Notices) -> None:
    """Give notice of what could not be removed.

    Args:
        place: the staging directory.
        holder: the path of the directory that it is in.
        notices: told of it.
    """
    if place.left:
        notices.add("left-over", f"{os.path.join(holder, place.left)}: {place.why}")
