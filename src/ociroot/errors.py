"""The exceptions of ociroot, each with its exit code.

The module that detects an error raises it with the offset and the member; callers add the layer
and the file with :func:`located`. The text is one line, in which the bytes of names are escaped so
that they are safe on a terminal.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

__all__ = [
    "ClosedSource",
    "DestinationError",
    "LimitExceeded",
    "MalformedImage",
    "OcirootError",
    "PathError",
    "PathIsDirectory",
    "PathNotDirectory",
    "PathNotFound",
    "SourceError",
    "Unsupported",
    "UsageError",
    "VerificationError",
    "located",
    "printable",
    "quoted",
]


# The maximum length of a member's name in a message, in bytes or characters.
_SHOWN = 1000


def printable(name: bytes | str) -> str:
    """Return a name as text without control characters.

    Args:
        name: bytes of an image or a path; text may contain surrogate escapes.

    Returns:
        The name with every character that is not printable written as an escape.
    """
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(name: bytes | str) -> str:
    """Return a name of an image as :func:`printable` text in quotes."""
    return f"'{printable(name)}'"


class OcirootError(Exception):
    """Base class of all errors that ociroot raises.

    Attributes:
        exit_code: the exit code of the command.
        problem: what is wrong: what was expected and what was found.
        source: the path of the image.
        layer: the layer, as ``2/5 sha256:…``.
        member: the name of the entry or of the document.
        offset: where the entry begins, in bytes of the uncompressed layer or of the archive.
        remedy: what the user can do about it, if anything.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        source: str | None = None,
        layer: str | None = None,
        member: bytes | str | None = None,
        offset: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.source = source
        self.layer = layer
        self.member = member
        self.offset = offset
        self.remedy = remedy

    def locate(
        self,
        *,
        source: str | None = None,
        layer: str | None = None,
        member: bytes | str | None = None,
        offset: int | None = None,
    ) -> Self:
        """Set the parts of the location that are not set yet; return the same error."""
        self.source = self.source if self.source is not None else source
        self.layer = self.layer if self.layer is not None else layer
        self.member = self.member if self.member is not None else member
        self.offset = self.offset if self.offset is not None else offset
        return self

    def __str__(self) -> str:
        place = [printable(self.source)] if self.source is not None else []
        if self.layer is not None:
            place.append(f"layer {self.layer}")
        if self.member is not None:
            shown = printable(self.member[:_SHOWN])
            place.append((shown + "…" if len(self.member) > _SHOWN else shown) or "(empty name)")
        if self.offset is not None:
            place.append(f"offset {self.offset}")
        text = ": ".join([", ".join(place), self.problem] if place else [self.problem])
        return f"{text} ({self.remedy})" if self.remedy else text


@contextmanager
def located(
    *,
    source: str | None = None,
    layer: str | None = None,
    member: bytes | str | None = None,
) -> Iterator[None]:
    """Add the location to any :class:`OcirootError` that the block raises.

    Args:
        source: the path of the image.
        layer: the layer, as ``2/5 sha256:…``.
        member: the name of the entry or of the document.
    """
    try:
        yield
    except OcirootError as error:
        error.locate(source=source, layer=layer, member=member)
        raise


class SourceError(OcirootError):
    """The image file or directory cannot be read."""


class ClosedSource(SourceError, ValueError):
    """The source, or a file system of one of its images, has been closed."""


class UsageError(OcirootError):
    """The requested image, layer or path does not exist, or is ambiguous.

    Attributes:
        choices: the available images: platform, name, and the option that selects it.
    """

    exit_code = 2

    def __init__(self, problem: str, *, choices: tuple[tuple[str, str, str], ...] = ()) -> None:
        super().__init__(problem)
        self.choices = choices


class MalformedImage(OcirootError, ValueError):
    """The image violates its format."""

    exit_code = 3


class VerificationError(OcirootError):
    """Content does not match its digest, size or diff_id."""

    exit_code = 4


class Unsupported(OcirootError, ValueError):
    """The image is well-formed, but uses a feature that ociroot does not support."""

    exit_code = 5


class LimitExceeded(OcirootError):
    """The image exceeds one of the :class:`~ociroot.Limits`."""

    exit_code = 6


class DestinationError(OcirootError):
    """The result cannot be written: the destination exists, is full, or is not writable.

    Attributes:
        errno: the error number of the failed system call; None if none failed.
    """

    exit_code = 7

    def __init__(self, problem: str, *, errno: int | None = None, **place: Any) -> None:
        super().__init__(problem, **place)
        self.errno = errno

    @property
    def is_full(self) -> bool:
        """Whether the error is ENOSPC or EDQUOT."""
        return self.errno in (_errno.ENOSPC, _errno.EDQUOT)

    @classmethod
    def from_os(cls, error: OSError, what: str, *, member: bytes | None = None) -> DestinationError:
        """Return the error for a failed system call while writing.

        Args:
            error: what the system call raised.
            what: the operation that failed, as in ``cannot {what}``.
            member: the path inside the root file system.
        """
        code = _errno.errorcode.get(error.errno or 0, "")
        reason = os.strerror(error.errno) if error.errno else str(error)
        return cls(f"cannot {what}: {reason} {code}".rstrip(), member=member, errno=error.errno)


class PathError(OcirootError, OSError):
    """A path inside the root file system cannot be used so, as the kernel would say it.

    Attributes:
        errno: what the kernel would answer.
        strerror: that as text.
        filename: the path.
    """

    def __init__(self, errno: int, filename: str | bytes, problem: str = "") -> None:
        OSError.__init__(self, errno, os.strerror(errno), filename)
        shown = (
            filename if isinstance(filename, bytes) else filename.encode("utf-8", "surrogateescape")
        )
        self.problem = problem or os.strerror(errno)
        self.source = self.layer = self.offset = self.remedy = None
        self.member = shown

    def __reduce__(self) -> tuple[Any, ...]:
        return _path_error, (type(self), self.errno, self.filename), self.__dict__


def _path_error(kind: type[PathError], errno: int, filename: str | bytes) -> PathError:
    """Make an error of a path as it was before it was pickled."""
    error = kind.__new__(kind)
    PathError.__init__(error, errno, filename)
    return error


class PathNotFound(PathError, FileNotFoundError):
    """There is nothing at a path."""

    def __init__(self, filename: str | bytes) -> None:
        super().__init__(_errno.ENOENT, filename)


class PathNotDirectory(PathError, NotADirectoryError):
    """A path leads through what is no directory, or to it where a directory is needed."""

    def __init__(self, filename: str | bytes) -> None:
        super().__init__(_errno.ENOTDIR, filename)


class PathIsDirectory(PathError, IsADirectoryError):
    """A path leads to a directory where a file is needed."""

    def __init__(self, filename: str | bytes) -> None:
        super().__init__(_errno.EISDIR, filename)
