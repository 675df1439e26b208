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
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import IO, Any, NoReturn

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

import ociroot

from .api.fileinfo import FileInfo
from .api.filesystem import FileSystem, Listings
from .compression import CHUNK
from .errors import PathError, UsageError, printable
from .limits import Limits
from .sources.spool import SpoolFile

__all__ = ["OciFileSystem"]

_TYPES = {"file": "file", "dir": "directory"}
# The options of fsspec itself, which its AbstractFileSystem takes.
_OF_FSSPEC = {
    "add_aliases",
    "add_docs",
    "asynchronous",
    "listings_expiry_time",
    "loop",
    "max_paths",
    "skip_instance_cache",
    "use_listings_cache",
}


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
        limits: Limits | Mapping[str, Any] | None = None,
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
            limits: the limits on the image: :class:`ociroot.Limits`, or a mapping of its fields;
                None: the defaults.
            options: fsspec's own; of a URL with ``::``, ``target_protocol`` and ``target_options``
                are the file system that ``fo`` is of, and its arguments.

        Raises:
            TypeError: there is no such option, or no such limit.
        """
        target = options.pop("target_protocol", None), options.pop("target_options", None) or {}
        unknown = sorted(options.keys() - _OF_FSSPEC)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {unknown[0]!r}")
        super().__init__(**options)
        if not fo:
            raise UsageError("no image is named: oci://PATH::IMAGE, or the argument fo")
        self.fo = os.fspath(fo)
        if isinstance(limits, Mapping):
            limits = Limits(**limits)
        self._source_options = ociroot.SourceOptions(limits=limits or Limits(), tmpdir=tmpdir)
        self._platform, self._ref, self._digest = platform, ref, digest
        self._target: tuple[str | None, dict[str, Any]] = target
        if target[0] == "file" and not os.path.lexists(self.fo):
            # fsspec takes `::oci-archive:image.tar` for a file of the current directory.
            transport = self.fo.removeprefix(f"{Path.cwd()}/")
            if ociroot.image_exists(transport):
                self.fo, self._target = transport, (None, {})
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
                    source = stack.enter_context(ociroot.open(path, self._source_options))
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
        spool = SpoolFile(self._source_options.tmpdir, self._source_options.limits)
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

    def ls(
        self, path: str, detail: bool = True, listings: Listings | None = None, **_: Any
    ) -> list[Any]:
        """Return what is in a directory, or what a file is.

        As :meth:`info`, it follows symbolic links; one that leads to nothing is ``other``.

        Args:
            path: the path.
            detail: whether to return what is known of each, not only its name.
            listings: those of a walk that this one belongs to.
            _: further options, which are ignored.

        Raises:
            LimitExceeded: the symbolic links take too many steps to follow.
        """
        path = self._strip_protocol(path)
        found = (listings or Listings(self.filesystem)).entries(path, follow=detail)
        if found is None:
            return [self.info(path)] if detail else [self.info(path)["name"]]
        if not detail:
            return [each.lstrip("/") for each, _, _ in found]
        return [_described(each.lstrip("/"), link, info) for each, link, info in found]

    def walk(
        self, path: str, *args: Any, listings: Listings | None = None, **options: Any
    ) -> Iterator[Any]:
        """Walk through directories as fsspec does.

        As for :func:`os.walk`, a symbolic link to a directory is among the directories, and is not
        followed: it may lead to a directory above it.

        Args:
            path: the directory to begin at, which may be a link.
            args: fsspec's arguments.
            listings: those of the walk that has found this directory in another one.
            options: fsspec's arguments; it hands unknown ones on to the directories below.

        Raises:
            LimitExceeded: the symbolic links take too many steps to follow.
        """
        if listings is None:
            listings = Listings(self.filesystem)
        elif listings.kind(self._strip_protocol(path), follow=False) == "symlink":
            return
        yield from super().walk(path, *args, listings=listings, **options)

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **options: Any,
    ) -> Any:
        """Return all files below a path, as fsspec does.

        Without ``withdirs``, these are the files that can be opened: no devices, and no links that
        lead to nothing or to directories.
        """
        found = super().find(path, maxdepth, withdirs, detail=True, **options)
        if not withdirs:
            found = {name: info for name, info in found.items() if info.get("type") != "other"}
        return found if detail else list(found)

    def get(self, rpath: Any, lpath: Any, recursive: bool = False, **options: Any) -> Any:
        """Copy files to local ones, as fsspec does.

        No link is made of a symbolic link: a file is copied, and of a directory that only a link
        leads to, an empty directory is made, with a warning.
        """
        if recursive:
            paths = self.expand_path(rpath, recursive=True, maxdepth=options.get("maxdepth"))
            above = {self._parent(path) for path in paths}
            kind = Listings(self.filesystem).kind
            links = [
                path
                for path in paths
                if path not in above and kind(path, follow=False) == "symlink"
            ]
            links = [path for path in links if kind(path) == "dir"]
            if links:
                more = f", and {len(links) - 1} more" if links[1:] else ""
                warnings.warn(
                    f"links to directories are not followed: {printable(links[0])}{more}",
                    stacklevel=2,
                )
        return super().get(rpath, lpath, recursive=recursive, **options)

    def modified(self, path: str) -> datetime:
        """Return when a file was modified."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        if mode != "rb":
            self._refuse(path)
        path, fs = self._strip_protocol(path), self.filesystem
        file = fs.open(path)
        # As fsspec's own files. The second keeps the image open as long as the file is used.
        file.size, file.fs = fs.stat(path).size, self  # type: ignore[attr-defined]
        return file

    # What would write.

    def _refuse(self, path: Any = "", *_: Any, **__: Any) -> NoReturn:
        raise PathError(errno.EROFS, str(path), "an image cannot be modified")

    mkdir = makedirs = rmdir = _rm = rm = rm_file = cp_file = mv = touch = _refuse
    put_file = pipe_file = _refuse


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
