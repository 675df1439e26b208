"""Where the blobs and documents of an image are written: a tar archive, or a directory.

A blob of the source is copied by the kernel where it can (copy_file_range(2), which shares the
blocks on file systems with reflinks), and read back where it is verified: what is published is what
was verified, whoever writes to the source meanwhile. Blobs are never hard-linked: a layout that is
changed in place, or has its owner or mode changed, would change the copy as well.
"""

from __future__ import annotations

from typing import Protocol

from ...sources.blob import Blob, LocalBlob

__all__ = ["BlobFile", "Store"]


class Store(Protocol):
    """Files by name, each written once."""

    def directory(self, name: str) -> None:
        """Make a directory, whose parent has been made."""

    def add(self, name: str, content: bytes) -> None:
        """Write a file."""

    def copy(self, name: str, blob: Blob) -> LocalBlob:
        """Copy a blob to a file; return the copy."""

    def create(self) -> BlobFile:
        """Begin a file whose name and size are known at its end."""

    def finish(self) -> None:
        """Write what comes at the end."""

    def close(self) -> None:
        """Close what is open, whatever comes of it."""

    @property
    def size(self) -> int:
        """Bytes of all files so far, with what is around them."""


class BlobFile(Protocol):
    """A file that is being written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next bytes."""

    def finish(self, name: str) -> LocalBlob:
        """Give it its name; return it."""
