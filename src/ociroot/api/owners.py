"""Owners that an ordinary user could not set, set by root later."""

from __future__ import annotations

import os
import stat
from functools import partial

import msgspec

from ..errors import DestinationError, OcirootError, located
from ..limits import DEFAULTS, Limits
from ..notices import ImageWarning, Notices
from ..outputs.apply import apply_record, opened_tree
from ..outputs.mtree import MAX_LINE, read_record
from ..rootfs.nodes import Directory
from .shaping import record_path

__all__ = ["AppliedOwners", "apply_owners"]


class AppliedOwners(msgspec.Struct, frozen=True):
    """What was set.

    Attributes:
        rootfs: the tree.
        record: where its owners were recorded.
        changed: how many files and directories got their attributes.
        devices: how many devices were made.
        warnings: what could not be set, and what the record does not have.
    """

    rootfs: str
    record: str
    changed: int
    devices: int
    warnings: tuple[ImageWarning, ...]


def apply_owners(
    rootfs: str | os.PathLike[str],
    record: str | os.PathLike[str] | None = None,
    *,
    limits: Limits = DEFAULTS,
) -> AppliedOwners:
    """Set owners, modes, devices and extended attributes that were recorded, as root.

    No symbolic link is followed, and nothing outside the tree changes, whatever the tree's owner
    does meanwhile. Set-id files and devices are made as the record says: who wrote it gets them, if
    they can reach the tree.

    Args:
        rootfs: the tree that an ordinary user has extracted with ``record="mtree"``.
        record: the file with its owners; None: the one beside it.
        limits: on what the record may ask for.

    Raises:
        OcirootError: the record cannot be read, or is none.
        DestinationError: the tree is not as the record says, or cannot be changed.
    """
    given = os.fspath(rootfs)
    path = os.fspath(record) if record is not None else record_path(given)
    if os.geteuid() != 0:
        raise DestinationError("only root can give files away", source=given)
    notices = Notices()
    with opened_tree(given) as fd:
        with located(source=path):
            root = _read(path, limits)
        with located(source=given):
            counts = apply_record(fd, root, notices)
    return AppliedOwners(given, path, counts.changed, counts.made, notices.warnings())


def _read(path: str, limits: Limits) -> Directory:
    """Read a record, which must be a regular file: anything else could make us wait."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OcirootError("it is no regular file")
            return read_record(iter(partial(file.readline, MAX_LINE + 1), b""), limits)
    except OSError as error:
        raise OcirootError(f"cannot read it: {os.strerror(error.errno or 0)}") from error
