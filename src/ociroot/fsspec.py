"""Images for fsspec, and for what opens files through it: pandas, pyarrow, dask, universal-pathlib.

``pip install ociroot[fsspec]`` registers the protocol ``oci``; ``ociroot`` is another name for it.
As with fsspec's other archives, a URL names the path in the image, then ``::``, then the image::

    oci://etc/os-release::/images/debian.tar
    oci://srv/data.csv::file:///images/app.tar
    oci://srv/data.csv::https://example.org/app.tar

fsspec itself has ``oci`` for Oracle's object storage (``ocifs``); where both are installed, use
``ociroot://``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import IO, Any, NoReturn

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

import ociroot

from .api.fileinfo import FileInfo
from .api.filesystem import FileSystem
from .compression import CHUNK
from .errors import PathError, UsageError
from .limits import DEFAULTS
from .sources.spool import SpoolFile

__all__ = ["OciFileSystem"]

_TYPES = {"file": "file", "dir": "directory"}


class OciFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """The root file system of an image, read-only.

    Nothing is opened before the first use. Instances of the same arguments are one, which keeps
    what it has read; ``OciFileSystem.clear_instance_cache()`` forgets them.

    >>> fs = fsspec.filesystem("oci", fo="sample.tar")
    >>> fs.ls("usr/bin", detail=False)
    ['usr/bin/become', 'usr/bin/hello', 'usr/bin/hi']
    >>> fs.cat("etc/os-release").splitlines()[-1]
    b'ID=sample'
    >>> with fsspec.open("oci://etc/os-release::sample.tar", "rt") as file:
    ...     print(file.readline(), end="")
    NAME="ociroot sample"
    """

    protocol = ("oci", "ociroot")
    root_marker = ""

    def __init__(
        self,
        fo: str | os.PathLike[str] = "",
        *,
        platform: str | None = None,
        ref: str = "",
        digest: str = "",
        tmpdir: str | None = None,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Describe an image.

        Args:
            fo: the image: what :func:`ociroot.open` takes, or a URL of another file system, from
                which it is then copied into a temporary file.
            platform: what it must run on, as for :meth:`ociroot.OpenedSource.image`.
            ref: a name of it.
            digest: its digest, or the beginning of one.
            tmpdir: where what is compressed is decompressed to; None: the system's place.
            target_protocol: the file system that ``fo`` is of, where a URL names it after ``::``.
            target_options: arguments of that file system.
            options: fsspec's own.
        """
        super().__init__(**options)
        if not fo:
            raise UsageError("no image is named: oci://PATH::IMAGE, or the argument fo")
        self.fo = os.fspath(fo)
        self._platform, self._ref, self._digest = platform, ref, digest
        self._tmpdir = tmpdir
        self._target = (target_protocol, target_options or {})
        self._opened: FileSystem | None = None
        self._lock = Lock()
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.fo}>"

    __str__ = __repr__

    def close(self) -> None:
        """Close the image; it is opened anew when it is used again."""
        with self._lock:
            self._opened = None
            self._stack.pop_all().close()

    @property
    def filesystem(self) -> FileSystem:
        """The same as :class:`ociroot.FileSystem`, which can do more."""
        with self._lock:
            if self._opened is None:
                with self._local() as path, ExitStack() as stack:
                    source = stack.enter_context(
                        ociroot.open(path, ociroot.SourceOptions(tmpdir=self._tmpdir))
                    )
                    image = source.image(
                        platform=self._platform, ref=self._ref, digest=self._digest
                    )
                    self._opened = stack.enter_context(image.filesystem())
                    self._stack = stack.pop_all()
            return self._opened

    @contextmanager
    def _local(self) -> Iterator[str]:
        """Give a path of the image: itself, or a copy of it."""
        protocol, options = self._target
        if protocol is None and "://" not in self.fo:
            yield self.fo
            return
        if protocol is None:
            remote, path = url_to_fs(self.fo, **options)
        else:
            remote = fsspec.filesystem(protocol, **options)
            path = remote._strip_protocol(self.fo)
        if isinstance(remote, LocalFileSystem):
            yield path
            return
        spool = SpoolFile(self._tmpdir, DEFAULTS)
        try:
            with remote.open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    spool.write(chunk)
            yield f"/proc/self/fd/{spool.file.fileno()}"
        finally:
            spool.close()

    def __del__(self) -> None:
        if hasattr(self, "_stack"):
            self.close()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return a path as fsspec's archives have it: from the root, without a leading ``/``."""
        stripped = super()._strip_protocol(path)
        return stripped.lstrip("/") if isinstance(stripped, str) else stripped

    # Reading.

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what is known of a path; a symbolic link is followed."""
        path = self._strip_protocol(path)
        link, fs = self.filesystem.lstat(path), self.filesystem
        return _described(path, link, fs.stat(path) if link.kind == "symlink" else link)

    def exists(self, path: str, **_: Any) -> bool:
        """Say whether there is something at a path."""
        return self.filesystem.exists(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what is in a directory, or what a file is.

        A symbolic link to a file is a ``file``. One to a directory is ``other``: it may lead back
        to where it is, and nothing that walks shall go in circles.
        """
        path = self._strip_protocol(path)
        fs = self.filesystem
        if not fs.is_dir(path):
            return [self.info(path)] if detail else [self.info(path)["name"]]
        names = [each.lstrip("/") for each in fs.iterdir(path)]
        return [self._entry(name) for name in names] if detail else names

    def _entry(self, name: str) -> dict[str, Any]:
        link, fs = self.filesystem.lstat(name), self.filesystem
        leads_to_file = link.kind == "symlink" and fs.is_file(name)
        return _described(name, link, fs.stat(name) if leads_to_file else link)

    def modified(self, path: str) -> datetime:
        """Return when a file was modified."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        if mode != "rb":
            self._refuse(path)
        path, fs = self._strip_protocol(path), self.filesystem
        file = fs.open(path)
        file.size = fs.stat(path).size  # type: ignore[attr-defined]  # as fsspec's own files
        return file

    # What would write.

    def _refuse(self, path: Any = "", *_: Any, **__: Any) -> NoReturn:
        raise PathError(errno.EROFS, str(path), "an image cannot be modified")

    mkdir = makedirs = rmdir = _rm = rm = rm_file = cp_file = mv = touch = _refuse
    put_file = pipe_file = sign = created = _refuse


def _described(path: str, link: FileInfo, info: FileInfo) -> dict[str, Any]:
    """Return what fsspec wants to know of a path.

    Args:
        path: the path.
        link: what is known of itself.
        info: what is known of it, or of what the link leads to.
    """
    described: dict[str, Any] = {
        "name": path,
        "size": info.size,
        "type": _TYPES.get(info.kind, "other"),
        "mode": info.mode,
        "uid": info.uid,
        "gid": info.gid,
        "mtime": info.mtime_ns / 1_000_000_000,
        "nlink": info.nlink,
        "layer": info.layer,
        "islink": link.kind == "symlink",
    }
    if link.target is not None:
        described["destination"] = link.target
    return described
