"""Opening what lies at a path: which form it is, and what it looks like when it is none.

Told apart by content, never by file name:

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

from ..compression import CHUNK, decompress, sniff
from ..errors import MalformedImage, OcirootError, SourceError, Unsupported, located, printable
from ..fhs import looks_like_root
from ..limits import DEFAULTS, Limits
from ..progress import Progress, ProgressCallback
from ..spec.index import check_layout
from .archive import ArchiveFiles
from .blob import Blob
from .directory import DirectoryFiles
from .source import Files, Source
from .spool import spool

__all__ = ["open_source"]

# What a file begins with, for a message that helps.
_MAGIC = (
    (0, b"hsqs", "a squashfs file system", "unsquashfs unpacks it"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system", "it can be mounted as it is"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", "it can be mounted as it is"),
    (0, b"QFI\xfb", "a qcow2 disk image", None),
    (0, b"PK\x03\x04", "a zip archive", None),
    (0, b"\x7fELF", "an ELF program", None),
    (0, b"{", "a JSON document", "name the archive or the directory that holds the blobs"),
    (0, b"SIF", "a Singularity image", None),
)

_SHARED = "--shared-blob-dir names the directory, where layouts share their blobs"


def open_source(
    path: str | os.PathLike[str],
    *,
    shared_blobs: str | os.PathLike[str] | None = None,
    tmpdir: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
    limits: Limits = DEFAULTS,
) -> Source:
    """Open what lies at a path, whatever form of an image it is.

    Args:
        path: a file or a directory; ``-`` is standard input.
        shared_blobs: where the blobs of a layout directory lie, when several share them.
        tmpdir: where a compressed archive is decompressed to; None: the system's place.
        progress: called while an archive is decompressed or copied.
        limits: what the image may ask for.

    Raises:
        SourceError: there is nothing that can be read.
        MalformedImage: it is no form of an image, with what it looks like.
        Unsupported: it is something else, with what.
        DestinationError: there is no space for decompressing it.
    """
    name = os.fspath(path)
    files: Files | None = None
    packed: int | None = None
    try:
        if name != "-" and os.path.isdir(name):
            shared = os.fspath(shared_blobs) if shared_blobs is not None else None
            files = DirectoryFiles(name, shared)
        else:
            if shared_blobs is not None:
                raise SourceError("shared blobs are for a layout directory, and it is none")
            fd, packed = _archive(name, tmpdir, progress, limits)
            try:
                files = ArchiveFiles(fd, limits)
            except BaseException:
                os.close(fd)
                raise
        # Standard input, too, may be a file of which we would not know otherwise.
        named = ("/proc/self/fd/0" if name == "-" else name, shared_blobs)
        source_paths = tuple(os.path.realpath(each) for each in named if each is not None)
        if isinstance(files, DirectoryFiles):
            # Each of these may be a mount of its own.
            parts = ("index.json", "blobs", "blobs/sha256", "blobs/sha512")
            source_paths += tuple(os.path.realpath(os.path.join(name, part)) for part in parts)
        form = _form(files)
        remedy = _SHARED if form == "oci-layout" and shared_blobs is None else None
        return Source(name, form, files, limits, source_paths, remedy, packed)
    except OcirootError as error:
        if files is not None:
            files.close()
        shown = "standard input" if name == "-" else name
        raise error.locate(source=shown) from error.__cause__
    except BaseException:
        if files is not None:
            files.close()
        raise


def _form(files: Files) -> str:
    """Tell the form by the files that are there."""
    for name in ("oci-layout", "index.json", "manifest.json"):
        files.check_unique(name)
    layout = files.get("oci-layout")
    if layout is not None and files.get("index.json") is not None:
        with located(member="oci-layout"):
            check_layout(b"".join(layout._replace(size=min(layout.size, CHUNK)).chunks()))
        return "oci-layout" if isinstance(files, DirectoryFiles) else "oci-archive"
    if files.get("manifest.json") is not None:
        return "docker-archive"
    raise _looks_like(files)


def _archive(
    name: str,
    tmpdir: str | os.PathLike[str] | None,
    progress: ProgressCallback | None,
    limits: Limits,
) -> tuple[int, int | None]:
    """Return a descriptor of a regular file that holds the uncompressed archive.

    And the bytes of the compressed one, where it was compressed.
    """
    try:
        # O_NONBLOCK: not to wait for the writer of a FIFO; a regular file does not care.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.dup(0) if name == "-" else os.open(name, flags)
    except OSError as error:
        raise SourceError(f"cannot open: {os.strerror(error.errno or 0)}") from error
    try:
        status = os.fstat(fd)
        regular = stat.S_ISREG(status.st_mode)
        if not regular and name != "-":
            raise SourceError("this is not a regular file", remedy="`-` reads standard input")
        chunks = Blob(fd, 0, status.st_size).chunks(CHUNK) if regular else _piped(fd)
        head = next(chunks, b"")
        while len(head) < 2048 and (more := next(chunks, b"")):
            head += more
        if not head:
            raise MalformedImage("it is empty")
        for offset, magic, what, remedy in _MAGIC:
            if head[offset : offset + len(magic)] == magic:
                raise Unsupported(f"this is {what}, not a container image", remedy=remedy)
        compression = sniff(head)
        if regular and compression == "none":
            return fd, None
        total = status.st_size if regular else 0
        counted = _Counted(chain((head,), chunks), total, progress)
        unpacked = decompress(compression, counted, limits)
        spooled = spool(unpacked, total, tmpdir, limits)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return spooled, counted.done


def _piped(fd: int) -> Iterator[bytes]:
    try:
        while data := os.read(fd, CHUNK):
            yield data
    except OSError as error:
        raise SourceError(f"cannot read: {os.strerror(error.errno or 0)}") from error


class _Counted:
    """Chunks that arrive, with the bytes that have."""

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
    """Say what something is that holds no image."""
    names = set(files.names)
    tops = {name.split(b"/")[0] for name in names}
    if "repositories" in {name.decode("ascii", "replace") for name in names}:
        return Unsupported(
            "this is a docker-archive from before Docker 1.10, without a manifest.json",
            remedy="docker load it, and docker save it again",
        )
    if any(name.endswith(b"Chart.yaml") for name in names):
        return Unsupported("this is a Helm chart, not a container image")
    if tops & {b"Files", b"Hives"} and tops <= {b"Files", b"Hives", b"UtilityVM"}:
        return Unsupported("this is a layer of a Windows image")
    if any(name.rpartition(b"/")[2].startswith(b".wh.") for name in names):
        return Unsupported("this is one layer, not an image", remedy="name the whole image")
    if looks_like_root(map(os.fsdecode, tops)):
        return Unsupported(
            "this is a root file system, not an image of one", remedy="tar -xf unpacks it"
        )
    if files.get("index.json") is not None:
        return MalformedImage("index.json is there, but no oci-layout file, which MUST exist")
    if files.get("oci-layout") is not None:
        return MalformedImage("oci-layout is there, but index.json is missing")
    shown = ", ".join(printable(name[:200]) for name in files.names[:3])
    return MalformedImage(
        "there is no image in it" + (f", only {shown}" if shown else ": it is empty")
    )
