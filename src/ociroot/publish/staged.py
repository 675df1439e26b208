"""The common code of publishing a directory and a single file.

Both are created in a staging directory beside the destination, or in it. Failed system calls of
staging and publication become errors that name the destination; exceptions of the caller are not
changed, except that the resulting state is added.
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
    """A result in a private staging directory.

    Attributes:
        fd: the descriptor of the directory for the result.
    """

    def __init__(self, place: StagingDirectory, holder: str, given: str) -> None:
        """Begin with an empty staging directory.

        Args:
            place: the staging directory.
            holder: the path of its parent, for messages.
            given: the destination as given by the user.
        """
        self.fd = place.fd
        self._place = place
        self._holder = holder
        self._given = given

    @property
    def left(self) -> str:
        """The path of what could not be removed; empty: nothing is left."""
        return os.path.join(self._holder, self._place.left) if self._place.left else ""

    def explain(self, error: BaseException) -> None:
        """Add the resulting state to an error."""
        state = []
        if self._place.published:
            state.append(f"{printable(self._given)} is complete")
        if self.left:
            state.append(f"{printable(self.left)} was left behind")
        if isinstance(error, DestinationError):
            # It names the member; the file system is that of the destination.
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
    """Enter and exit a context manager of a staging directory, with errors for the destination.

    Args:
        given: the destination as given by the user.
        what: the operation, as in ``cannot {what}``.
        manager: creates the staging directory, and removes it.
    """
    with translated(given, what):
        staged = manager.__enter__()
    try:
        try:
            yield staged
        except BaseException as error:
            # Exceptions of the caller are not translated, not even an OSError.
            manager.__exit__(type(error), error, error.__traceback__)
            raise
        with translated(given, what):
            manager.__exit__(None, None, None)
    except BaseException as error:
        staged.explain(error)
        raise


@contextmanager
def translated(given: str, what: str) -> Iterator[None]:
    """Translate OSErrors to errors that name the destination."""
    try:
        yield
    except DestinationError as error:
        raise error.locate(source=given) from error.__cause__
    except OSError as error:
        raise DestinationError.from_os(error, what).locate(source=given) from error


def sync_names(fd: int, notices: Notices) -> None:
    """Flush the names in a directory to the disk; a failure is only a warning."""
    try:
        os.fsync(fd)
    except OSError as error:
        notices.add("not-synced", os.strerror(error.errno or 0))


def notice_leftover(place: StagingDirectory, holder: str, notices: Notices) -> None:
    """Add a warning about what could not be removed.

    Args:
        place: the staging directory.
        holder: the path of its parent.
        notices: collects the warning.
    """
    if place.left:
        notices.add("left-over", f"{os.path.join(holder, place.left)}: {place.why}")
