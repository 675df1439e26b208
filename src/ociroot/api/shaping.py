"""A merged tree on its way to a directory, where not all of it is written, or not as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from .. import linux
from ..errors import DestinationError
from ..layers.reading import Plan
from ..limits import Limits
from ..notices import Notices
from ..outputs.final import FinalOperations
from ..outputs.mtree import record_lines
from ..outputs.override import OVERRIDE_STAT
from ..outputs.shape import Shape, find_subtree
from ..publish.file import StagedFile, staged_file
from ..rootfs.contents import streams
from ..rootfs.filter import pruned
from ..rootfs.nodes import Directory
from ..rootfs.operations import Operations

__all__ = ["Record", "Shaping", "record_path"]

# Bytes of a record that are written at once.
_AT_ONCE = 256 << 10
_REPLACE = "--replace replaces it"


class Shaping(msgspec.Struct, frozen=True):
    """How a tree is shaped on its way to a directory.

    Attributes:
        shape: what is written, and what it becomes.
        record: the path of the record; empty: none is written to a file.
        replace: whether a file that is there may be replaced by the record.
        sync: whether the record is on the disk before it is at its place.
    """

    shape: Shape
    record: str = ""
    replace: bool = False
    sync: bool = False

    def moved(self, path: bytes) -> Shaping:
        """Return the same for a subtree at another path."""
        shape = msgspec.structs.replace(self.shape, filter=self.shape.filter.moved(path))
        return msgspec.structs.replace(self, shape=shape)

    def operations(self, output: Operations, plan: Plan, notices: Notices) -> FinalOperations:
        """Return what stands between the tree and an output."""
        files = partial(streams, plan.layers, (), limits=plan.limits)
        return FinalOperations(output, notices, self.shape, files, plan.limits)

    @contextmanager
    def recording(self, fd: int, notices: Notices) -> Iterator[Record]:
        """Prepare a record, to be published when the tree has been.

        Args:
            fd: the directory that the tree is written to.
            notices: told of what could not be removed.
        """
        if self.shape.record == "xattr":
            _check_override(fd)
        if not self.record:
            yield Record(self.shape, None, self.sync)
            return
        if not self.replace and os.path.lexists(self.record):
            # Before the tree is visible; when it is, nobody can have made one but meanwhile.
            raise DestinationError("it exists", source=self.record, remedy=_REPLACE)
        try:
            with staged_file(self.record, notices, force=self.replace) as staging:
                yield Record(self.shape, staging, self.sync)
        except DestinationError as error:
            if error.remedy == "--force replaces it":
                error.remedy = _REPLACE
            raise


class Record:
    """A record of owners, before it is at its place."""

    def __init__(self, shape: Shape, staging: StagedFile | None, sync: bool) -> None:
        self._shape = shape
        self._sync = sync
        self._staging = staging

    def write(self, root: Directory, limits: Limits) -> None:
        """Write the record of a finished tree.

        Raises:
            DestinationError: it cannot be written.
        """
        staging, shape = self._staging, self._shape
        if staging is None:
            return
        root = pruned(find_subtree(root, shape.filter.subtree, limits), shape.filter)
        for parent, name, node in list(root.walk()):
            if not isinstance(node, Directory) and not shape.policy.writes(node):
                del parent.entries[name]
        try:
            fd = os.open(staging.name, linux.CREATE_FILE, 0o644, dir_fd=staging.fd)
            with os.fdopen(fd, "wb", buffering=_AT_ONCE) as file:
                file.writelines(record_lines(root, shape.policy.final))
                if self._sync:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise DestinationError.from_os(error, "write the record of owners") from error

    def publish(self) -> None:
        """Move it to its place."""
        if self._staging is not None:
            self._staging.publish()


def record_path(destination: str) -> str:
    """Return where the record of a tree is: beside it, with the extension ``mtree``."""
    return destination.rstrip("/") + ".mtree"


def _check_override(fd: int) -> None:
    """Refuse a destination in which nothing can be recorded."""
    try:
        os.setxattr(fd, OVERRIDE_STAT, b"")
        os.removexattr(fd, OVERRIDE_STAT)
    except OSError as error:
        failed = DestinationError.from_os(error, "record owners in extended attributes")
        failed.remedy = "--record-owners mtree writes them to a file"
        raise failed from error
