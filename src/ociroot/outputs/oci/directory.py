"""A layout as a directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from ...errors import SourceError
from ...linux import CREATE_FILE
from ...sources.blob import STEP, Blob, LocalBlob
from ...space import SpaceBudget
from .store import BlobFile
from .writing import REMEDY, FileWriter, writing

__all__ = ["DirectoryStore"]

_TEMPORARY = ".new"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class _Copy(msgspec.Struct, frozen=True):
    """A file of the directory, as a blob.

    Attributes:
        dir_fd: the directory's descriptor.
        name: the file's name in it.
        size: its size in bytes.
    """

    dir_fd: int
    name: str
    size: int

    @property
    def offset(self) -> int:
        """See :class:`~ociroot.sources.blob.LocalBlob`."""
        return 0

    @contextmanager
    def opened(self) -> Iterator[int]:
        """See :class:`~ociroot.sources.blob.LocalBlob`."""
        with writing():
            fd = os.open(self.name, _READ, dir_fd=self.dir_fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def read_at(self, offset: int, size: int) -> bytes:
        """See :class:`~ociroot.sources.blob.LocalBlob`."""
        with self.opened() as fd:
            return os.pread(fd, min(size, self.size - offset), offset)

    def chunks(self, step: int = STEP) -> Iterator[bytes]:
        """See :class:`~ociroot.sources.blob.Blob`."""
        at = 0
        with self.opened() as fd:
            while at < self.size:
                data = os.pread(fd, min(step, self.size - at), at)
                if not data:
                    raise SourceError(f"what was written of {self.name} is not there any more")
                at += len(data)
                yield data


class DirectoryStore:
    """A directory: files of mode 0644 and directories of mode 0755."""

    def __init__(self, fd: int, *, reserved: bool) -> None:
        """Begin in an empty directory.

        Args:
            fd: its descriptor; it stays the caller's.
            reserved: whether a reserve of the file system is left free.
        """
        self._fd = fd
        self._budget = SpaceBudget(fd, remedy=REMEDY, reserved=reserved)
        self._open: set[int] = set()
        self.size = 0

    def directory(self, name: str) -> None:
        """See :class:`Store`."""
        with writing():
            os.mkdir(name, 0o755, dir_fd=self._fd)
            os.chmod(name, 0o755, dir_fd=self._fd)  # noqa: S103  # whatever the umask

    def add(self, name: str, content: bytes) -> None:
        """See :class:`Store`."""
        writer = self._create(name)
        writer.write(content)
        self._end(writer, name)

    def copy(self, name: str, blob: Blob) -> LocalBlob:
        """See :class:`Store`."""
        writer = self._create(name)
        writer.copy(blob)
        return self._end(writer, name)

    def create(self) -> BlobFile:
        """See :class:`Store`."""
        writer = self._create(_TEMPORARY)

        def end(name: str) -> LocalBlob:
            with writing():
                os.rename(_TEMPORARY, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            return self._end(writer, name)

        return _NewFile(writer, end)

    def finish(self) -> None:
        """See :class:`Store`."""

    def close(self) -> None:
        """See :class:`Store`."""
        for fd in self._open:
            with suppress(OSError):
                os.close(fd)
        self._open.clear()

    def _create(self, name: str) -> FileWriter:
        with writing():
            fd = os.open(name, CREATE_FILE, 0o644, dir_fd=self._fd)
            self._open.add(fd)
            os.fchmod(fd, 0o644)
        return FileWriter(fd, self._budget)

    def _end(self, writer: FileWriter, name: str) -> LocalBlob:
        self.size += writer.at
        self._open.discard(writer.fd)
        with writing():
            os.close(writer.fd)
        return _Copy(self._fd, name, writer.at)


class _NewFile:
    """A file that gets its name at its end."""

    def __init__(self, writer: FileWriter, end: Callable[[str], LocalBlob]) -> None:
        self.write = writer.write
        self.finish = end
