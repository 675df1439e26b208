"""Options for opening a source and for extracting or exporting an image."""

from __future__ import annotations

import os
from typing import Literal, TypeVar

import msgspec

from ..limits import DEFAULTS, Limits
from ..outputs.policy import OutputPolicy
from ..rootfs.filter import PathFilter

__all__ = ["ExportOptions", "ExtractOptions", "SourceOptions", "options_or_default"]


_Options = TypeVar("_Options", bound=msgspec.Struct)


def options_or_default(options: _Options | None, kind: type[_Options]) -> _Options:
    """Return options, or the default ones.

    Args:
        options: what the caller gave.
        kind: their class.

    Raises:
        TypeError: they are of another class.
    """
    if options is None:
        return kind()
    _check("the options", options, kind)
    return options


def _check(what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        given = type(value).__name__
        raise TypeError(f"{what} must be an ociroot.{kind.__name__}, not {given}")


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is opened, and the limits on its images.

    Attributes:
        limits: the limits on an image, for all operations.
        tmpdir: the directory for temporary files, such as decompressed archives; None: the system's
            default.
        shared_blobs: the directory of the blobs, if several layout directories share it.
    """

    limits: Limits = DEFAULTS
    tmpdir: str | os.PathLike[str] | None = None
    shared_blobs: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _check("the limits", self.limits, Limits)


class ExtractOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an image is extracted.

    Attributes:
        replace: whether a root file system that is there is exchanged for the result, in one step.
        replace_anything: whether any other directory is, too.
        discard_volumes: whether files in volumes of the image's config, such as a database, are
            removed with what is replaced.
        parents: whether missing parent directories are made, with mode 0755.
        sync: whether the result is on the disk before it becomes visible, and its name after.
        strict: whether a warning that is a breach of the specification is an error.
        writer_process: whether a forked process may make the small files, while this one reads, as
            the command has it; there is none where it does not pay, or where this process has other
            threads.
        policy: what is made of owners, devices and extended attributes.
        filter: which paths are written.
        record: where owners are recorded, which are not set then: ``mtree`` is a file beside the
            destination, for :func:`~ociroot.apply_owners`; ``xattr`` are extended attributes, for
            fuse-overlayfs.
    """

    replace: bool = False
    replace_anything: bool = False
    discard_volumes: bool = False
    parents: bool = False
    sync: bool = False
    strict: bool = False
    writer_process: bool = False
    policy: OutputPolicy = OutputPolicy()
    filter: PathFilter = PathFilter()
    record: Literal["", "mtree", "xattr"] = ""


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How an image is exported.

    Attributes:
        format: ``tar``, ``cpio``, ``squashfs``, or for an image again ``oci-archive``, ``oci`` (a
            directory) or ``docker-archive``; None: by the name of the file.
        compress: ``gzip``, ``zstd`` or ``xz``, with a level after a colon, or ``none``; None: by
            the name of the file, and for squashfs ``zstd:3``.
        tool: what writes squashfs: ``tar2sqfs``, ``sqfstar`` or ``mksquashfs``; None: tar2sqfs.
        tool_options: further options for it.
        squash: whether an image gets one layer with the merged tree.
        recompress: how the layers of an image are compressed anew: ``gzip`` or ``zstd``, with a
            level after a colon, or ``none``; None: they stay as they are, and the layer of
            ``squash`` is compressed with ``gzip:6``.
        annotations: those that are added to the manifest of an image.
        order: ``tree`` writes each directory with what is in it, for which compressed layers are
            decompressed into a temporary file. ``layers`` writes directories first and files as the
            layers hold them: the layers are read twice, and nothing is kept.
        newest: seconds since 1970; later modification times are replaced by this one.
        force: whether a file that is there is replaced.
        sync: whether the result is on the disk before it becomes visible, and its name after.
        strict: whether a warning that is a breach of the specification is an error.
        tmpdir: where compressed layers are decompressed to; None: where the source was opened with,
            or the system's place.
        policy: what is made of owners, devices and extended attributes.
        filter: which paths are written.
    """

    format: str | None = None
    compress: str | None = None
    tool: str | None = None
    tool_options: tuple[str, ...] = ()
    squash: bool = False
    recompress: str | None = None
    annotations: dict[str, str] = {}
    order: Literal["tree", "layers"] = "tree"
    newest: int | None = None
    force: bool = False
    sync: bool = False
    strict: bool = False
    tmpdir: str | os.PathLike[str] | None = None
    policy: OutputPolicy = OutputPolicy()
    filter: PathFilter = PathFilter()
