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

# The other modules are imported by what needs them: extraction does without.
if TYPE_CHECKING:
    from ..rootfs.contents import ContentCache
    from ..rootfs.walking import DirectoryListing

__all__ = ["Merged"]


class Merged:
    """An image's merged file system, and the way to the contents of its files.

    Attributes:
        tree: the file system.
        layers: what was applied, in this order; each has its number as ``layer``, as a node has it.
        warnings: what was odd.
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

    def glob(self, pattern: str | bytes, *, follow: bool = False) -> list[tuple[bytes, Place]]:
        """Return what a path or a pattern matches.

        ``*``, ``?`` and ``[…]`` match within one name, and a leading dot only when it is written.
        Links on the way are followed inside the root.

        Args:
            pattern: a path from the root, or a pattern of one.
            follow: whether a symbolic link at the end is followed, too.

        Returns:
            The paths, sorted, and what is there.

        Raises:
            LimitExceeded: links make more of the pattern than there may be.
        """
        from ..rootfs.glob import glob

        return glob(self.tree, as_bytes(pattern), follow=follow)

    def walk(
        self,
        directories: Iterable[tuple[bytes, Directory]] | None = None,
        *,
        recursive: bool = False,
        hidden: bool = False,
        show: Callable[[bytes], str] = as_text,
    ) -> Iterator[DirectoryListing]:
        """Go through directories, one after the other: nothing is held whole.

        Args:
            directories: the directories, each with the path by which it is shown, as :meth:`glob`
                finds them; None: the root.
            recursive: whether those below them are gone through, too, each after the one it is in.
            hidden: whether names that begin with a dot are listed.
            show: turns a name of a path into text; see :func:`~ociroot.printable`.

        Yields:
            Each of them, with what is in it.

        Raises:
            LimitExceeded: the paths that were asked for have more bytes than they may, or
                directories are listed again and again.
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
        """Go to the contents of regular files, in the order in which the layers hold them.

        Each layer is read at most once. A compressed one is read to its end and verified then:
        what came of it is not to be trusted before the iteration has gone on to a file of another
        layer, or has ended, without an error. Of a plain one only the files are read, in place.
        When the layers were merged they were verified, unless with ``verify=False``; whoever can
        write to the image may have changed them since.

        Args:
            nodes: regular files of the tree; one that is given twice comes once.
            verify: whether plain layers are read to their end and verified, too.

        Yields:
            Each of them, with its data: ``node.stored_size`` bytes can be read from it, and no
            more.

        Raises:
            VerificationError: a layer is not what it was when the layers were merged.
            OcirootError: a layer cannot be read.
        """
        from ..rootfs.contents import streams

        self._source.check_open()
        with located(source=self._source.name):
            in_place = self._plain if not verify else ()
            yield from streams(self._plan.layers, in_place, nodes, self._plan.limits)

    def read(self, node: Node) -> Iterator[memoryview]:
        """Yield the content of a regular file, the holes of a sparse one as zeros.

        It is not to be trusted before the iteration has ended without an error; see :meth:`files`.

        Args:
            node: a regular file of the tree.

        Raises:
            VerificationError: its layer is not what it was when the layers were merged.
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
        """Keep the contents of regular files, and read each layer for that at most once.

        They go to a temporary file. What is kept has been verified as :meth:`files` says.

        Args:
            nodes: regular files of the tree; of those that are kept already, nothing is read.
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
        """Copy a file of the tree, or a directory with all that is below it, to disk.

        The copy appears whole or not at all. As root, owners, devices and extended attributes are
        kept, too.

        Args:
            node: what to copy.
            destination: the path that the copy is to have; for a directory an empty one may be
                there, or an empty mount point.
            force: whether a file that is there is replaced.
            keep_set_id: whether set-id bits, and the capabilities of a single file, are kept where
                they would lend the rights of an owner who is not kept.
            verify: whether plain layers are read to their end and verified, as compressed ones are.

        Returns:
            What could not be made or set.

        Raises:
            DestinationError: the destination may not be used, or not be written.
            OcirootError: a layer cannot be read, or is not what it was.
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
