"""An image's merged file system, and the contents of its files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import located, printable
from ..layers.reading import Plan
from ..notices import ImageWarning, Notices
from ..rootfs.lookup import Place
from ..rootfs.merge import LayerReport
from ..rootfs.nodes import Directory, Node
from ..rootfs.tree import Tree
from ..sources.source import Source
from ..tar.names import as_bytes, as_text
from ..tar.stream import Data

# The other modules are imported on demand: extraction does not need them.
if TYPE_CHECKING:
    from ..rootfs.contents import ContentCache
    from ..rootfs.walking import DirectoryListing

__all__ = ["Merged"]


class Merged:
    """An image's merged file system, and the contents of its files.

    Attributes:
        tree: the file system.
        layers: reports of the applied layers in order; nodes refer to them by ``layer``.
        warnings: the warnings.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        merged: tuple[Tree, tuple[LayerReport, ...]],
        warnings: tuple[ImageWarning, ...],
        *,
        cache: ContentCache | None,
        tmpdir: str | None,
    ) -> None:
        self._source = source
        self._plan = plan
        self._cache = cache
        self._tmpdir = tmpdir
        self.tree, self.layers = merged
        self._plain = {each.layer for each in self.layers if each.compression == "none"}
        self.warnings = warnings

    def __repr__(self) -> str:
        return f"<Merged {printable(self._source.name)} layers={len(self.layers)}>"

    def glob(
        self,
        pattern: str | bytes,
        *,
        follow: bool = False,
        hidden: bool = False,
        recursive: bool = False,
    ) -> list[tuple[bytes, Place]]:
        """Return what a path or a pattern matches.

        ``*``, ``?`` and ``[…]`` match within one name. Links in the parents are followed inside the
        root. A pattern with ``/`` at its end matches only directories, and links to them.
        :meth:`FileSystem.glob` matches the same with ``hidden`` and ``recursive``.

        Args:
            pattern: a path from the root, or a pattern.
            follow: whether a symbolic link in the final component is followed.
            hidden: whether they match a leading dot that is not written.
            recursive: whether a name ``**`` matches any number of names, including none.

        Returns:
            The matching paths, sorted, with their parents, names and nodes.

        Raises:
            LimitExceeded: through links, the pattern matches too many paths; or they have more
                bytes in all than a listing may have.
        """
        from ..rootfs.glob import followed_place, glob

        lookup = self.tree.lookup
        found: list[tuple[bytes, Place]] = []
        length = 0
        for match in glob(lookup, as_bytes(pattern), hidden=hidden, recursive=recursive):
            place = followed_place(lookup, match.place) if follow else match.place
            if place is not None:
                path = match.path
                length += len(path)
                self._plan.limits.check("listing", length)
                found.append((path, place))
        return sorted(found, key=lambda each: each[0])

    def walk(
        self,
        directories: Iterable[tuple[bytes, Directory]] | None = None,
        *,
        recursive: bool = False,
        hidden: bool = False,
        show: Callable[[bytes], str] = as_text,
    ) -> Iterator[DirectoryListing]:
        """Walk directories lazily.

        Args:
            directories: the directories, each with the path to display, as :meth:`glob` returns
                them; None: the root.
            recursive: whether directories below them are walked, each after its parent.
            hidden: whether names that begin with a dot are listed.
            show: converts a name to text; see :func:`~ociroot.printable`.

        Yields:
            Each directory with its entries.

        Raises:
            LimitExceeded: the requested paths exceed the limit ``listing``, or directories are
                listed repeatedly too often.
        """
        from ..rootfs.walking import walk

        return walk(
            self.tree.lookup,
            directories if directories is not None else [(b"", self.tree.root)],
            recursive=recursive,
            hidden=hidden,
            show=show,
        )

    def files(self, nodes: Iterable[Node], *, verify: bool = False) -> Iterator[tuple[Node, Data]]:
        """Yield the contents of regular files in the order of the layers.

        Each layer is read at most once. A compressed layer is read and verified to its end: its
        data must not be trusted before the iteration has continued to a file of another layer or
        has ended, without an error. Of a plain layer only the files are read, in place. The merge
        has verified the layers, unless with ``verify=False``; but the image may have been changed
        since.

        Args:
            nodes: regular files of the tree; duplicates are yielded once.
            verify: whether plain layers are read to their end and verified, too.

        Yields:
            Each file with its data: exactly ``node.stored_size`` bytes can be read from it.

        Raises:
            VerificationError: a layer has changed since the merge.
            OcirootError: a layer cannot be read.
        """
        from ..rootfs.contents import streams

        self._source.check_open()
        with located(source=self._source.name):
            in_place = self._plain if not verify else ()
            yield from streams(self._plan.layers, in_place, nodes, self._plan.limits)

    def read(self, node: Node) -> Iterator[memoryview]:
        """Yield the content of a regular file, the holes of a sparse one as zeros.

        It must not be trusted before the iteration has ended without an error; see :meth:`files`.

        Args:
            node: a regular file of the tree.

        Raises:
            VerificationError: its layer has changed since the merge.
            OcirootError: its layer cannot be read.
        """
        from ..rootfs.contents import iter_chunks

        if self._cache is not None and node in self._cache:
            yield from self._cache.read(node)
            return
        for found, data in self.files([node]):
            yield from iter_chunks(found, data)

    def is_kept(self, node: Node) -> bool:
        """Return whether the content of a file is kept, so that :meth:`read` reads no layer."""
        return self._cache is not None and node in self._cache

    def keep(self, nodes: Iterable[Node], *, verify: bool = False) -> None:
        """Keep the contents of regular files in a temporary file; read each layer at most once.

        The contents are verified as described for :meth:`files`.

        Args:
            nodes: regular files of the tree; those that are kept already are not read.
            verify: whether plain layers are read to their end and verified, too.

        Raises:
            DestinationError: there is no space for them.
            OcirootError: as :meth:`files`.
        """
        from ..rootfs.contents import ContentCache

        if self._cache is None:
            self._cache = ContentCache((), self._tmpdir)
        cache = self._cache
        for node, data in self.files((each for each in nodes if each not in cache), verify=verify):
            cache.keep(node, data)

    def copy(
        self,
        node: Node,
        destination: str | os.PathLike[str],
        *,
        force: bool = False,
        keep_set_id: bool = False,
        verify: bool = True,
    ) -> tuple[ImageWarning, ...]:
        """Copy a file of the tree, or a directory with everything below it, to disk.

        The copy appears in one atomic step. As root, owners, devices and extended attributes are
        kept, too.

        Args:
            node: the file or directory to copy.
            destination: the path of the copy; for a directory also an existing empty directory or
                an empty mount point.
            force: whether an existing file is replaced.
            keep_set_id: whether set-id bits and capabilities are kept even if they grant the
                rights of an owner who is not kept.
            verify: whether plain layers are read to their end and verified, as compressed ones are.

        Returns:
            Warnings about what could not be created or set.

        Raises:
            DestinationError: the destination cannot be used or written.
            OcirootError: a layer cannot be read, or has changed.
        """
        from .copying import copy_directory, copy_file

        notices = Notices()
        files = functools.partial(self.files, verify=verify)
        spare = self._plan.limits.size is None
        if isinstance(node, Directory):
            copy_directory(node, files, destination, notices, keep_set_id=keep_set_id, spare=spare)
        else:
            copy_file(
                node,
                files,
                os.fspath(destination),
                notices,
                force=force,
                keep_set_id=keep_set_id,
                spare=spare,
            )
        return notices.warnings()
