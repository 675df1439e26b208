"""Open a source: detect its form, and describe input that is not an image.

The form is detected by content, never by file name:

- a directory with ``index.json``: an OCI image layout;
- a tar archive with ``oci-layout`` and ``index.json``: an oci-archive (and maybe, since Docker 25,
  a docker-archive at the same time);
- a tar archive with ``manifest.json``: a docker-archive;
- any of the archives compressed as a whole: decompressed once into an unlinked temporary file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

from ..compression import CHUNK, decompress, sniff
from ..errors import MalformedImage, OcirootError, SourceError, Unsupported, located, printable
from ..fhs import looks_like_root
from ..limits import Limits
from ..progress import Progress, ProgressCallback
from ..spec.index import check_layout
from .archive import ArchiveSource
from .blob import FileRange, OpenFile, head
from .directory import DirectorySource
from .source import Files, Source
from .spool import spool

__all__ = ["open_source"]

# Magic numbers of other formats, for helpful messages: offset, magic, name, remedy.
_MAGIC = (
    (0, b"hsqs", "a squashfs file system", "unsquashfs unpacks it"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system", "it can be mounted as it is"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", "it can be mounted as it is"),
    (0, b"QFI\xfb", "a qcow2 disk image", None),
    (0, b"PK\x03\x04", "a zip archive", None),
    (0, b"\x7fELF", "an ELF program", None),
    (0, b"{", "a JSON document", "name the archive or the directory with the blobs"),
    (0, b"SIF", "a Singularity image", None),
)


def open_source(
    path: str | os.PathLike[str],
    *,
    shared_blobs: str | os.PathLike[str] | None = None,
    tmpdir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    limits: Limits,
) -> Source:
    """Open a source of images in any supported form.

    Args:
        path: a file or a directory; ``-`` is standard input.
        shared_blobs: the directory of the blobs, if several layout directories share it.
        tmpdir: the directory for decompressed archives; None: the system's default.
        progress: called while an archive is decompressed or copied.
        limits: bound the images.

    Raises:
        SourceError: it does not exist or cannot be read.
        MalformedImage: it is not an image; the message describes its content.
        Unsupported: it has another known format.
        DestinationError: there is no space to decompress it.
    """
    name = os.fspath(path)
    with located(source="standard input" if name == "-" else name):
        if name != "-" and os.path.isdir(name):
            shared = os.fspath(shared_blobs) if shared_blobs is not None else None
            return _checked(DirectorySource(name, shared, limits))
        if shared_blobs is not None:
            raise SourceError("shared blobs require a layout directory, and it is not a directory")
        file, packed = _archive(name, tmpdir, progress, limits)
        try:
            source = ArchiveSource(name, file, limits, packed)
        except BaseException:
            file.end()
            raise
        return _checked(source)


_AnySource = TypeVar("_AnySource", DirectorySource, ArchiveSource)


def _checked(source: _AnySource) -> _AnySource:
    """Return the source if it contains an image; otherwise close it.

    Raises:
        MalformedImage: it is not an image, is malformed, or is ambiguous.
        Unsupported: it has another known format.
    """
    try:
        for name in ("oci-layout", "index.json", "manifest.json"):
            source.files.check_unique(name)
        if source.is_layout:
            with located(member="oci-layout"):
                layout = source.files.get("oci-layout")
                check_layout(head(layout, CHUNK) if layout is not None else b"", source.limits)
        elif source.files.get("manifest.json") is None:
            raise _looks_like(source.files)
    except BaseException:
        source.close()
        raise
    return source


def _archive(
    name: str,
    tmpdir: str | os.PathLike[str] | None,
    progress: ProgressCallback | None,
    limits: Limits,
) -> tuple[OpenFile, int | None]:
    """Return a regular file with the uncompressed archive.

    Also return the size in bytes of the compressed archive, or None if it was not compressed.
    """
    try:
        # O_NONBLOCK: do not wait for the writer of a FIFO; it has no effect on regular files.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        file = OpenFile(os.dup(0) if name == "-" else os.open(name, flags))
    except OSError as error:
        raise SourceError(f"cannot open: {os.strerror(error.errno or 0)}") from error
    try:
        status = os.fstat(file.fileno())
        regular = stat.S_ISREG(status.st_mode)
        if not regular and name != "-":
            raise SourceError("this is not a regular file", remedy="`-` reads standard input")
        whole = FileRange(file, 0, status.st_size)
        chunks = whole.chunks(CHUNK) if regular else _piped(file.fileno())
        first = next(chunks, b"")
        while len(first) < 2048 and (more := next(chunks, b"")):
            first += more
        if not first:
            raise MalformedImage("it is empty")
        for offset, magic, what, remedy in _MAGIC:
            if first[offset : offset + len(magic)] == magic:
                raise Unsupported(f"this is {what}, not a container image", remedy=remedy)
        compression = sniff(first)
        if regular and compression == "none":
            return file, None
        total = status.st_size if regular else 0
        counted = _Counted(chain((first,), chunks), total, progress)
        unpacked = decompress(compression, counted, limits)
        spooled = spool(unpacked, total, tmpdir, limits)
    except BaseException:
        file.end()
        raise
    file.end()
    return spooled, counted.done


def _piped(fd: int) -> Iterator[bytes]:
    try:
        while data := os.read(fd, CHUNK):
            yield data
    except OSError as error:
        raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error


class _Counted:
    """Counts the bytes of chunks, and reports progress."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        total: int,
        progress: ProgressCallback | None,
    ) -> None:
        self._chunks = chunks
        self._total = total
        self._progress = progress
        self.done = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self.done += len(chunk)
        if self._progress is not None:
            self._progress(Progress("source", self.done, self._total))
        return chunk


def _looks_like(files: Files) -> OcirootError:
    """Return an error that describes input without an image."""
    names = set(files.names)
    tops = {name.split(b"/")[0] for name in names}
    if "repositories" in {name.decode("ascii", "replace") for name in names}:
        return Unsupported(
            "this is a docker-archive from before Docker 1.10, without a manifest.json",
            remedy="docker load and docker save convert it",
        )
    if any(name.endswith(b"Chart.yaml") for name in names):
        return Unsupported("this is a Helm chart, not a container image")
    if tops & {b"Files", b"Hives"} and tops <= {b"Files", b"Hives", b"UtilityVM"}:
        return Unsupported("this is a layer of a Windows image")
    if any(name.rpartition(b"/")[2].startswith(b".wh.") for name in names):
        return Unsupported("this is one layer, not an image", remedy="name the whole image")
    if looks_like_root(map(os.fsdecode, tops)):
        return Unsupported("this is a root file system, not an image", remedy="tar -xf unpacks it")
    if files.get("index.json") is not None:
        return MalformedImage("index.json exists, but not the oci-layout file, which MUST exist")
    if files.get("oci-layout") is not None:
        return MalformedImage("oci-layout exists, but index.json is missing")
    shown = ", ".join(printable(name[:200]) for name in files.names[:3])
    return MalformedImage(
        "it contains no image" + (f", only {shown}" if shown else ": it is empty")
    )
