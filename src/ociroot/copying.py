"""Copying a part of a merged tree to disk, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from .errors import DestinationError
from .nodes import Directory, Node
from .notices import Notices
from .publish.directory import staged
from .publish.file import staged_file
from .tar.stream import Stream
from .writers.directory import DirectoryWriter

__all__ = ["Files", "copy_directory", "copy_file"]

#: What goes to the contents of files: ``Merged.files``.
Files = Callable[[Iterable[Node]], Iterator[tuple[Node, Stream]]]


def copy_directory(
    directory: Directory, files: Files, destination: str | os.PathLike[str], notices: Notices
) -> None:
    """Copy a directory of the tree, with all that is below it.

    Hard links within it stay hard links. The files are written in the order in which the layers
    hold them, so that each layer is read once.

    Args:
        directory: what to copy.
        files: goes to the contents of files.
        destination: an absent path, an empty directory or an empty mount point.
        notices: told of what could not be made or set.

    Raises:
        DestinationError: the destination may not be used, or not be written.
        OcirootError: a layer cannot be read.
    """
    with staged(destination) as staging:
        # A tree of its own: the writer asks a directory for its way up to the root.
        root = Directory(None, b"", directory.layer)
        root.describe_as(directory)
        writer = DirectoryWriter(staging.fd, notices)
        try:
            _write(directory, root, files, writer)
            writer.finish(root)
        finally:
            writer.close()
        staging.publish(lambda fd: writer.finish_root(fd, root))


def _write(directory: Directory, root: Directory, files: Files, writer: DirectoryWriter) -> None:
    copies = {directory: root}
    names: dict[Node, list[tuple[Directory, bytes]]] = {}
    for parent, name, node in directory.walk():
        to = copies[parent]
        if isinstance(node, Directory):
            copy = copies[node] = Directory(to, name, node.layer)
            copy.describe_as(node)
            to.entries[name] = copy
            writer.make_directory(copy)
        else:
            to.entries[name] = node
            names.setdefault(node, []).append((to, name))
    for node, places in names.items():
        if node.kind != "file":
            writer.make_other(*places[0], node)
    for node, stream in files(node for node in names if node.kind == "file"):
        writer.make_file(*names[node][0], node, stream)
    for node, places in names.items():
        for parent, name in places[1:]:
            writer.make_link(parent, name, node, places[0])


def copy_file(
    node: Node, files: Files, destination: str, notices: Notices, *, force: bool = False
) -> None:
    """Copy a file of any kind but a directory.

    Args:
        node: what to copy.
        files: goes to the contents of files.
        destination: the path that it is to have.
        notices: told of what could not be made or set.
        force: whether a file that is there is replaced.

    Raises:
        DestinationError: the destination exists, or cannot be written.
        OcirootError: its layer cannot be read.
    """
    with staged_file(destination, force=force) as staging:
        writer = DirectoryWriter(staging.fd, notices)
        root = Directory(None, b"", 0)
        try:
            if node.kind == "file":
                for found, stream in files([node]):
                    writer.make_file(root, staging.name, found, stream)
            else:
                writer.make_other(root, staging.name, node)
        finally:
            writer.close()
        if node.kind != "file" and any(w.code == "devices" for w in notices.warnings()):
            raise DestinationError("devices may not be made here", source=destination)
        staging.publish()
