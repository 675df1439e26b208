"""Atomic copies of parts of a merged tree to disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..errors import DestinationError
from ..notices import Notices
from ..outputs.directory.writer import DirectoryWriter
from ..outputs.policy import OutputPolicy
from ..outputs.sink import Files, feed
from ..publish.directory import PublishOptions, Staging, staged
from ..publish.file import staged_file
from ..rootfs.nodes import Directory, Node

__all__ = ["copy_directory", "copy_file", "staged_directory"]


def copy_directory(
    directory: Directory,
    files: Files,
    destination: str | os.PathLike[str],
    notices: Notices,
    *,
    keep_set_id: bool = True,
    spare: bool = False,
) -> None:
    """Copy a directory of the tree, with everything below it.

    Hard links within it are kept. The files are written in the order of the layers, so that each
    layer is read once.

    Args:
        directory: the directory to copy.
        files: yields the contents of files.
        destination: a new path, an empty directory or an empty mount point.
        notices: collects warnings about what could not be created or set.
        keep_set_id: whether files keep set-id bits and capabilities even if their owners are not
            kept, which grants the rights of another user.
        spare: whether to keep a reserve of the file system free.

    Raises:
        DestinationError: the destination cannot be used or written.
        OcirootError: a layer cannot be read.
    """
    with staged_directory(destination, notices) as staging:
        policy = OutputPolicy(set_id=keep_set_id or os.geteuid() == 0)
        writer = DirectoryWriter(staging.fd, notices, policy, spare=spare)
        try:
            root = feed(directory, writer, files)
        finally:
            writer.close()
        staging.publish(lambda fd: writer.finish_root(fd, root))


@contextmanager
def staged_directory(
    destination: str | os.PathLike[str],
    notices: Notices,
    options: PublishOptions = PublishOptions(),  # noqa: B008  # it is frozen
) -> Iterator[Staging]:
    """Create a staging directory; its errors do not name options that only extraction has."""
    with ExitStack() as stack:
        try:
            staging = stack.enter_context(staged(destination, notices, options))
        except DestinationError as error:
            if (error.remedy or "").startswith("--"):
                error.remedy = None
            raise
        yield staging


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
    """Copy a file of any type except a directory.

    Args:
        node: the file to copy.
        files: yields the contents of files.
        destination: the path of the copy.
        notices: collects warnings about what could not be created or set.
        force: whether an existing file is replaced.
        keep_set_id: whether a regular file keeps set-id bits and capabilities.
        spare: whether to keep a reserve of the file system free.

    Raises:
        DestinationError: the destination exists, or cannot be written.
        OcirootError: its layer cannot be read.
    """
    with staged_file(destination, notices, force=force) as staging:
        # What a single file loses is no warning: the documentation of the copy says so.
        policy = OutputPolicy(set_id=keep_set_id)
        writer = DirectoryWriter(staging.fd, notices, OutputPolicy(devices="create"), spare=spare)
        root = Directory(None, b"", 0)
        try:
            if node.kind == "file":
                for found, stream in files([node]):
                    writer.make_file(root, staging.name, policy.final(found), stream)
            else:
                writer.make_other(root, staging.name, node)
        finally:
            writer.close()
        staging.publish()
