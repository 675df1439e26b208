"""An image's root file system, read as Python reads files: paths, binary files, ``stat``.

with ociroot.open("image.tar") as source, source.image().filesystem() as fs:
    print(fs.read_text("/etc/os-release"))

More than 400 lines, since it is one class and a half of them are its documentation.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, overload

from ..errors import (
    OcirootError,
    PathError,
    PathIsDirectory,
    PathNotDirectory,
    PathNotFound,
    printable,
)
from ..notices import ImageWarning
from ..rootfs.file import NodeFile
from ..rootfs.lookup import Lookup, Place, find
from ..rootfs.nodes import Directory, Node
from .fileinfo import FileInfo, info_of
from .merged_layers import MergedLayers
from .paths import AnyPath, as_bytes, cleaned, returner

if TYPE_CHECKING:
    from ..rootfs.glob import Above
    from .paths import P

__all__ = ["FilePredicate", "FileSystem", "Listings"]

_BUFFER = 64 << 10
# Bytes of a file that files() reads at once, which takes less than half the time.
_SMALL = 64 << 10

#: What :meth:`FileSystem.files` asks of each file: whether it is meant.
FilePredicate = Callable[[str, FileInfo], object]


class FileSystem:
    """The root file system of an image, to be read without extracting it; a context manager.

    Nothing is read before the first use. Then all layers are read and verified once, as for
    :meth:`Image.extract`, and merged in memory. The contents of files come from plain layers in
    place. A compressed layer is decompressed once more when the first of its files is opened, into
    a temporary file that has no name, and verified before anything of it is given out; later files
    are read from there. :meth:`files` fills that file in the first pass where it can.

    A path is text, ``bytes`` or ``PurePosixPath``, from the root with a leading ``/`` or without;
    an empty one is the root, as ``/`` and ``.`` are.
    Bytes that are no UTF-8 are surrogate escapes in text, as in :mod:`os`. Paths that are returned
    begin with ``/`` and have the type of the one that was given. Symbolic links are followed inside
    the root, out of which neither ``/`` nor ``..`` leads.

    Errors are those of Python beside being :class:`OcirootError`: ``FileNotFoundError``,
    ``NotADirectoryError``, ``IsADirectoryError``, and ``OSError`` with ``errno.ELOOP``. After
    :meth:`close`, or when the source has been closed, every use is a :class:`ClosedSource`.

    Several threads may use it.

    >>> with ociroot.open("sample.tar") as source, source.image().filesystem() as fs:
    ...     print(fs.read_text("/etc/os-release"), end="")
    ...     print(sorted(fs.glob("/usr/bin/h*")))
    ...     print(fs.stat("/bin/hello").nlink)
    NAME="ociroot sample"
    ID=sample
    ['/usr/bin/hello', '/usr/bin/hi']
    3
    """

    def __init__(self, layers: MergedLayers, warnings: tuple[ImageWarning, ...] = ()) -> None:
        """See :meth:`Image.filesystem`."""
        self._layers = layers
        self._warnings = warnings

    def __repr__(self) -> str:
        state = ", closed" if self._layers.closed else ""
        return f"<{type(self).__name__} of {printable(self._layers.source_name)}{state}>"

    def __enter__(self) -> Self:
        self._layers.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file; the open files of the file system cannot be read any more."""
        self._layers.close()

    @property
    def warnings(self) -> tuple[ImageWarning, ...]:
        """The warnings from the selection of the image and from the merge of its layers."""
        return self._warnings + self._layers.merged().warnings

    # What is at a path.

    def stat(self, path: AnyPath) -> FileInfo:
        """Return what is known of a file, of a symbolic link what is known of its target.

        Raises:
            PathNotFound: there is nothing at the path; also a ``FileNotFoundError``.
            PathNotDirectory: it leads through a file; also a ``NotADirectoryError``.
            PathError: it leads through a loop of links; also an ``OSError``.
        """
        return info_of(self._find(path)[2])

    def lstat(self, path: AnyPath) -> FileInfo:
        """Return what is known of a file, of a symbolic link what is known of itself.

        Raises:
            PathError: as :meth:`stat`.
        """
        return info_of(self._find(path, follow=False)[2])

    def exists(self, path: AnyPath) -> bool:
        """Say whether there is something at a path; not at a link that leads to nothing."""
        return self._kind(path) is not None

    def is_file(self, path: AnyPath) -> bool:
        """Say whether there is a regular file at a path, or a link to one."""
        return self._kind(path) == "file"

    def is_dir(self, path: AnyPath) -> bool:
        """Say whether there is a directory at a path, or a link to one."""
        return self._kind(path) == "dir"

    def is_symlink(self, path: AnyPath) -> bool:
        """Say whether there is a symbolic link at a path."""
        return self._kind(path, follow=False) == "symlink"

    def _kind(
        self, path: AnyPath, *, follow: bool = True, lookup: Lookup | None = None
    ) -> str | None:
        try:
            return self._find(path, follow=follow, lookup=lookup)[2].kind
        except (PathError, UnicodeEncodeError):  # no name has a lone surrogate
            return None

    def samefile(self, path: AnyPath, other: AnyPath) -> bool:
        """Say whether two paths lead to one file, as those of hard links do.

        Raises:
            PathError: as :meth:`stat`.
        """
        return self._find(path)[2] is self._find(other)[2]

    def readlink(self, path: P) -> P:
        """Return where a symbolic link points to.

        Raises:
            PathError: as :meth:`stat`; or it is no link (``errno.EINVAL``).
        """
        node = self._find(path, follow=False)[2]
        if node.kind != "symlink":
            raise PathError(errno.EINVAL, _shown(path), "it is no symbolic link")
        target: P = returner(path)(node.target)
        return target

    def _lookup(self, *, counted: bool = True) -> Lookup:
        merged = self._layers.merged()
        return Lookup(merged.tree.root, merged.limits, counted=counted)

    def _find(self, path: AnyPath, *, follow: bool = True, lookup: Lookup | None = None) -> Place:
        """Return what is at a path, as a process in the root would see it.

        Args:
            path: the path.
            follow: whether a symbolic link in the final component is followed.
            lookup: counts the steps of several look-ups; None: it is a single one.
        """
        raw = as_bytes(path)
        way = (lookup or self._lookup(counted=False)).way(raw)
        while way.advance():
            node = way.node
            if node is None:
                raise PathNotFound(_shown(path))
            if node.kind == "symlink" and (follow or way.needs_directory):
                try:
                    followed = way.follow()
                except OcirootError:  # the limit on the names on one path
                    followed = False
                if not followed:
                    raise PathError(errno.ELOOP, _shown(path))
            elif way.needs_directory:
                raise PathNotDirectory(_shown(path))
            else:
                return Place(way.directory, way.name, node)
        directory = way.directory
        return Place(directory.parent or directory, directory.name, directory)

    def _directory(self, path: AnyPath) -> Directory:
        node = self._find(path)[2]
        if not isinstance(node, Directory):
            raise PathNotDirectory(_shown(path))
        return node

    # Directories.

    @overload
    def iterdir(self) -> Iterator[str]: ...
    @overload
    def iterdir(self, path: P) -> Iterator[P]: ...
    def iterdir(self, path: AnyPath = "/") -> Iterator[Any]:
        """Yield the paths of what is in a directory, in the order of their names.

        Raises:
            PathError: as :meth:`stat`; or it is no directory.
        """
        give, above, names = returner(path), _above(path), sorted(self._directory(path).entries)
        return (give(above + name) for name in names)

    @overload
    def scan(self) -> Iterator[tuple[str, FileInfo]]: ...
    @overload
    def scan(self, path: P) -> Iterator[tuple[P, FileInfo]]: ...
    def scan(self, path: AnyPath = "/") -> Iterator[tuple[Any, FileInfo]]:
        """Yield all that is below a directory, with what is known of it, as :meth:`lstat`.

        A directory comes before what is in it, names in order. Symbolic links are not followed.

        >>> for path, info in fs.scan("/srv"):
        ...     print(info.layer, path)
        4 /srv/app
        2 /srv/app/grüße.txt
        4 /srv/app/plugins
        4 /srv/app/plugins-2
        4 /srv/app/plugins-2/two
        1 /srv/app/start

        Raises:
            PathError: as :meth:`stat`; or it is no directory.
        """
        return _scanned(returner(path), self._directory(path), _above(path))

    @overload
    def walk(self, *, topdown: bool = True) -> Iterator[tuple[str, list[str], list[str]]]: ...
    @overload
    def walk(self, top: P, *, topdown: bool = True) -> Iterator[tuple[P, list[P], list[P]]]: ...
    def walk(
        self, top: AnyPath = "/", *, topdown: bool = True
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        """Walk through directories as :func:`os.walk` does.

        Args:
            top: the directory to begin at.
            topdown: whether a directory comes before those in it; then the list of its directories
                may be changed, and only those are walked that are left in it.

        Yields:
            The path of each directory, and the names of the directories and of the other files in
            it. A link to a directory is among the directories, and is not followed.

        Raises:
            PathError: as :meth:`stat`; or it is no directory.
            LimitExceeded: the symbolic links take too many steps to follow.
        """
        return self._walked(returner(top), self._directory(top), _above(top), topdown)

    def _walked(
        self, give: Callable[[bytes], Any], start: Directory, above: bytes, topdown: bool
    ) -> Iterator[tuple[Any, list[Any], list[Any]]]:
        lookup = self._lookup()
        inside = len(start.path_of(b""))

        def path(directory: Directory) -> Any:
            return give((above + directory.path_of(b"")[inside:])[:-1] or b"/")

        # Directories, with what is in them when they have been visited. Not their paths, each of
        # which may have a megabyte.
        todo: list[tuple[Directory, tuple[list[Any], list[Any]] | None]] = [(start, None)]
        while todo:
            directory, visited = todo.pop()
            if visited is not None:
                yield path(directory), *visited
                continue
            names: list[Any] = []
            files: list[Any] = []
            below: dict[Any, Directory] = {}
            for name, node in sorted(directory.entries.items()):
                shown = give(name)
                if isinstance(node, Directory):
                    below[shown] = node
                kind = _followed(lookup, directory, name, node).kind
                (names if kind == "dir" else files).append(shown)
            if topdown:
                yield path(directory), names, files
            else:
                todo.append((directory, (names, files)))
            todo += [(below[name], None) for name in reversed(names) if name in below]

    def glob(self, pattern: P) -> Iterator[P]:
        """Yield the paths that a pattern matches, a directory before what is in it.

        ``*``, ``?`` and ``[…]`` match within one name, also a leading dot. ``**`` as a name matches
        any number of names, none as well: ``/etc/**/*.conf``; at the end of a pattern, all that is
        below. It goes through no symbolic link; the rest of a pattern does. A ``/`` at the end
        matches directories alone.

        Raises:
            LimitExceeded: links make more of the pattern than there may be.
        """
        give, found = returner(pattern), self._glob(as_bytes(pattern))
        return (give(raw) for raw in _joined((above, name) for above, name, _ in found))

    def _glob(self, pattern: bytes) -> Iterator[tuple[Above, bytes, Node]]:
        from ..rootfs.glob import glob  # the other methods do without

        found = glob(self._lookup(), pattern, hidden=True, recursive=True)
        return ((match.above, match.name, match.node) for match in found)

    # Contents.

    def open(self, path: AnyPath, mode: Literal["r", "rb"] = "rb") -> io.BufferedReader:
        """Open a regular file for reading, in binary mode.

        Args:
            path: its path, which is the file's ``name``.
            mode: both mean the same.

        Returns:
            A file that can be read and sought in like any other; the holes of a sparse file are
            zeros. For text, wrap it: ``io.TextIOWrapper(fs.open(path), "utf-8")``.

        Raises:
            PathIsDirectory: it is a directory; also an ``IsADirectoryError``.
            PathError: as :meth:`stat`; or it is a device or a FIFO (``errno.ENXIO``).
            DestinationError: there is no space to decompress its layer.
            VerificationError: its layer is compressed, and has been changed since it was verified.
                A plain layer is read in place, and is not verified again.
            ValueError: the mode is another one.
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"the mode is {mode!r}, and must be 'r' or 'rb'; both are binary")
        node = self._find(path)[2]
        if node.kind == "dir":
            raise PathIsDirectory(_shown(path))
        if node.kind != "file":
            raise PathError(errno.ENXIO, _shown(path), f"it is a {node.kind}, not a file")
        return self._open(node, _shown(path))

    def _contents(self, node: Node) -> BinaryIO:
        """Open a file that is read from its beginning, most likely: a small one in one go."""
        if node.size <= _SMALL and node.segments is None:
            return io.BytesIO(self._layers.bytes_of(node.layer).read(node.offset, node.size))
        return self._open(node)

    def _open(self, node: Node, name: str | bytes = "") -> io.BufferedReader:
        file = NodeFile(node, self._layers.bytes_of(node.layer), name)
        return io.BufferedReader(file, _BUFFER)

    def read_bytes(self, path: AnyPath) -> bytes:
        """Return the content of a regular file.

        Raises:
            LimitExceeded: it does not fit into memory.
            OcirootError: as :meth:`open`.
        """
        with self.open(path) as file:
            return file.read()

    def read_text(self, path: AnyPath, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the content of a regular file as text, with every line's end as a newline.

        Raises:
            UnicodeDecodeError: it is no text in this encoding.
            OcirootError: as :meth:`open`.
        """
        with io.TextIOWrapper(self.open(path), encoding, errors) as file:
            return file.read()

    @overload
    def files(
        self, selection: FilePredicate | None = None
    ) -> Iterator[tuple[str, FileInfo, BinaryIO]]: ...
    @overload
    def files(self, selection: P) -> Iterator[tuple[P, FileInfo, BinaryIO]]: ...
    def files(
        self, selection: AnyPath | FilePredicate | None = None
    ) -> Iterator[tuple[Any, FileInfo, BinaryIO]]:
        """Go through regular files with their contents, in the order in which the layers have them.

        This is the fast way: where nothing has been read yet, it decompresses each layer once for
        everything. A file with several names comes once for each of them, one after the other;
        symbolic links are not followed, but for those on the way in a pattern.

        >>> for path, info, file in fs.files("/srv/**/*.txt"):
        ...     print(path, info.size, file.read().decode().split()[0])
        /srv/app/grüße.txt 52 Grüße

        Args:
            selection: which files: a pattern as for :meth:`glob`; or what is called with a path as
                text and a :class:`FileInfo` and says whether the file is meant; None: all. A path
                is a pattern, too: the name of a symbolic link yields nothing, nor does a name
                with ``[`` that is not written as ``[[]``.

        Yields:
            The path, what is known of the file, and the file, open for reading in binary mode. It
            need not be read, and is closed when the loop goes on: later reads are a ``ValueError``.

        Raises:
            DestinationError: there is no space to decompress the layers.
            OcirootError: the layers cannot be read, or are not what they should be.
        """
        tree = self._layers.merged(spool=True).tree
        if selection is None or callable(selection):
            return self._contents_of(tree.root.walk(), returner(""), selection)
        return self._contents_of(self._glob(as_bytes(selection)), returner(selection), None)

    def _contents_of(
        self,
        found: Iterable[tuple[Directory | Above, bytes, Node]],
        give: Callable[[bytes], Any],
        keep: FilePredicate | None,
    ) -> Iterator[tuple[Any, FileInfo, BinaryIO]]:
        nodes: list[Node] = []
        parents: list[Directory | Above] = []
        names: list[bytes] = []
        # Three lists, for a tuple that stays is work for the garbage collector, which would go
        # through the whole tree.
        for parent, name, node in found:
            if node.kind == "file":
                nodes.append(node)
                parents.append(parent)
                names.append(name)
        order = sorted(range(len(nodes)), key=lambda at: _place(nodes[at]))
        paths = _joined((parents[index], names[index]) for index in order)
        for index, raw in zip(order, paths, strict=True):
            node = nodes[index]
            path, info = give(raw), info_of(node)
            if keep is None or keep(path, info):
                with self._contents(node) as file:
                    yield path, info, file


class Listings:
    """Directories of a file system, each as a list.

    The limit ``steps`` is on the look-ups of all of them together.
    """

    def __init__(self, fs: FileSystem) -> None:
        """Begin with a count of zero."""
        self._fs = fs
        self._lookup = fs._lookup()

    def entries(
        self, path: str, *, follow: bool = True
    ) -> list[tuple[str, FileInfo, FileInfo]] | None:
        """Return what is in a directory; None if something else is at the path.

        Args:
            path: the path of the directory.
            follow: whether the symbolic links in it are followed.

        Returns:
            The path of each entry, what is known of itself, and of what a symbolic link leads to;
            of a link to nothing, of the link.

        Raises:
            PathError: as :meth:`FileSystem.stat`.
            LimitExceeded: the symbolic links take too many steps to follow.
        """
        directory = self._fs._find(path, lookup=self._lookup).node
        if not isinstance(directory, Directory):
            return None
        give, above = returner(path), _above(path)
        return [
            (
                give(above + name),
                info_of(node),
                info_of(_followed(self._lookup, directory, name, node) if follow else node),
            )
            for name, node in sorted(directory.entries.items())
        ]

    def kind(self, path: str, *, follow: bool = True) -> str | None:
        """Return the type of the file at a path; None if there is none.

        Raises:
            LimitExceeded: the symbolic links take too many steps to follow.
        """
        return self._fs._kind(path, follow=follow, lookup=self._lookup)


def _followed(lookup: Lookup, directory: Directory, name: bytes, node: Node) -> Node:
    """Return what a symbolic link leads to, a link to nothing and any other node itself."""
    if node.kind != "symlink":
        return node
    place = find(lookup, name, start=directory)
    return place.node if place is not None else node


def _joined(found: Iterable[tuple[Directory | Above, bytes]]) -> Iterator[bytes]:
    """Yield the path of each name in a directory; those in one directory mostly come together."""
    last: Directory | Above | None = None
    above = b""
    for parent, name in found:
        if parent is not last:
            last, above = parent, b"/" + parent.path_of(b"")
        yield above + name


def _place(node: Node) -> int:
    """Return what is greater the later the data of a file comes in the layers."""
    return node.layer << 64 | node.offset


def _scanned(
    give: Callable[[bytes], Any], directory: Directory, above: bytes
) -> Iterator[tuple[Any, FileInfo]]:
    todo = [_sorted(directory, above)]
    while todo:
        for raw, node in todo[-1]:
            yield give(raw), info_of(node)
            if isinstance(node, Directory):
                todo.append(_sorted(node, raw + b"/"))
                break
        else:
            todo.pop()


def _sorted(directory: Directory, above: bytes) -> Iterator[tuple[bytes, Node]]:
    return ((above + name, node) for name, node in sorted(directory.entries.items()))


def _above(path: AnyPath) -> bytes:
    """Return what goes before the names in a directory."""
    clean = cleaned(as_bytes(path))
    return b"/" + clean + b"/" if clean else b"/"


def _shown(path: AnyPath) -> str | bytes:
    """Return a path as an error has it in its ``filename``."""
    return path if isinstance(path, (str, bytes)) else str(path)
