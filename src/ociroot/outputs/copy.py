"""Copying a part of a merged tree to disk, whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy

from ..errors import DestinationError
from ..notices import Notices
from ..publish.directory import Staging, staged
from ..publish.file import staged_file
from ..rootfs.nodes import Directory, Node
from ..tar.stream import Stream
from .directory.writer import DirectoryWriter

__all__ = ["Files", "copy_directory", "copy_file"]

_SET_ID = stat.S_ISUID | stat.S_ISGID
_CAPABILITIES = b"security.capability"

#: What goes to the contents of files: ``Merged.files``.
Files = Callable[[Iterable[Node]], Iterator[tuple[Node, Stream]]]


def copy_directory(
    directory: Directory,
    files: Files,
    destination: str | os.PathLike[str],
    notices: Notices,
    *,
    keep_set_id: bool = True,
    spare: bool = False,
) -> None:
    """Copy a directory of the tree, with all that is below it.

    Hard links within it stay hard links. The files are written in the order in which the layers
    hold them, so that each layer is read once.

    Args:
        directory: what to copy.
        files: goes to the contents of files.
        destination: an absent path, an empty directory or an empty mount point.
        notices: told of what could not be made or set.
        keep_set_id: whether files keep their set-id bits also where they do not keep their owners,
            and so would lend the rights of somebody else.
        spare: whether to stop before the file system is full.

    Raises:
        DestinationError: the destination may not be used, or not be written.
        OcirootError: a layer cannot be read.
    """
    with _staged(destination, notices) as staging:
        # A tree of its own: the writer asks a directory for its way up to the root.
        root = Directory(None, b"", directory.layer)
        root.copy_metadata(directory)
        writer = DirectoryWriter(staging.fd, notices, spare=spare)
        keep_set_id = keep_set_id or os.geteuid() == 0
        try:
            _write(directory, root, files, writer, None if keep_set_id else notices)
            writer.finish(root)
        finally:
            writer.close()
        staging.publish(lambda fd: writer.finish_root(fd, root))


@contextmanager
def _staged(destination: str | os.PathLike[str], notices: Notices) -> Iterator[Staging]:
    """Make a staging directory, whose errors name no option that only extraction has."""
    with ExitStack() as stack:
        try:
            staging = stack.enter_context(staged(destination, notices))
        except DestinationError as error:
            if (error.remedy or "").startswith("--"):
                error.remedy = None
            raise
        yield staging


def _write(
    directory: Directory,
    root: Directory,
    files: Files,
    writer: DirectoryWriter,
    bits_left_out: Notices | None,
) -> None:
    copies = {directory: root}
    names: dict[Node, list[tuple[Directory, bytes]]] = {}
    for parent, name, node in directory.walk():
        to = copies[parent]
        if isinstance(node, Directory):
            made = copies[node] = Directory(to, name, node.layer)
            made.copy_metadata(node)
            to.entries[name] = made
            writer.make_directory(made)
        else:
            to.entries[name] = node
            names.setdefault(node, []).append((to, name))
    for node, places in names.items():
        if node.kind != "file":
            writer.make_other(*places[0], node)
    for node, stream in files(node for node in names if node.kind == "file"):
        parent, name = names[node][0]
        if bits_left_out is not None and node.mode & _SET_ID:
            bits_left_out.add("set-id", parent.path_of(name))
            node = _without_privileges(node)
        writer.make_file(parent, name, node, stream)
    for node, places in names.items():
        for parent, name in places[1:]:
            writer.make_link(parent, name, node, places[0])


def _without_privileges(node: Node) -> Node:
    """Return a file as it is to whoever runs it with no more rights than their own."""
    made = copy(node)
    made.mode &= ~_SET_ID
    made.xattrs = {n: v for n, v in (node.xattrs or {}).items() if n != _CAPABILITIES} or None
    return made


def copy_file(
    node: Node,
    files: Files,
    destination: str,
    notices: Notices,
    *,
    force: bool = False,
    keep_set_id: bool = True,
    spare: bool = False,
) -> None:
    """Copy a file of any kind but a directory.

    Args:
        node: what to copy.
        files: goes to the contents of files.
        destination: the path that it is to have.
        notices: told of what could not be made or set.
        force: whether a file that is there is replaced.
        keep_set_id: whether a regular file keeps set-id bits and capabilities.
        spare: whether to stop before the file system is full.

    Raises:
        DestinationError: the destination exists, or cannot be written.
        OcirootError: its layer cannot be read.
    """
    with staged_file(destination, notices, force=force) as staging:
        writer = DirectoryWriter(staging.fd, notices, spare=spare)
        root = Directory(None, b"", 0)
        try:
            if node.kind == "file":
                for found, stream in files([node]):
                    made = found if keep_set_id else _without_privileges(found)
                    writer.make_file(root, staging.name, made, stream)
            else:
                writer.make_other(root, staging.name, node)
        finally:
            writer.close()
        if node.kind != "file" and any(w.code == "devices" for w in notices.warnings()):
            raise DestinationError("devices may not be made here", source=destination)
        staging.publish()
