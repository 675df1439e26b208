"""The options that select an image, and grouping of options into one argument."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from .limits import limit_options

if TYPE_CHECKING:
    from .. import ImageSelector, Limits, SourceOptions

__all__ = ["PATH", "Choice", "grouped", "image_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Existence and permissions are checked when the file is opened, and are not usage errors.
PATH = click.Path(readable=False)

_OPTIONS = (
    click.option(
        "--platform",
        metavar="[OS/]ARCH[/VARIANT]",
        help="The platform to select, such as linux/arm/v7 or arm64. Default: this machine's, or "
        "that of the only image.",
    ),
    click.option("--ref", default="", metavar="NAME", help="The name of the image, full or short."),
    click.option(
        "--digest",
        default="",
        metavar="DIGEST",
        help="The digest of the manifest or the image ID, or a prefix of either.",
    ),
    click.option(
        "--shared-blob-dir",
        type=PATH,
        help="The directory of the blobs, if several layout directories share it.",
    ),
    click.option("--tmpdir", type=PATH, help="The directory for decompressed archives."),
)


class Choice(NamedTuple):
    """The selection of an image, and how its source is opened; see :func:`image_options`."""

    platform: str | None
    ref: str
    digest: str
    shared_blob_dir: str | None
    tmpdir: str | None
    limits: Limits

    @property
    def is_named(self) -> bool:
        """Whether an option selects an image."""
        return bool(self.platform or self.ref or self.digest)

    @property
    def selector(self) -> ImageSelector:
        """The selection of the image."""
        from .. import ImageSelector

        return ImageSelector(platform=self.platform, ref=self.ref, digest=self.digest)

    @property
    def source(self) -> SourceOptions:
        """The options for opening its source."""
        from .. import SourceOptions

        return SourceOptions(
            limits=self.limits, tmpdir=self.tmpdir, shared_blobs=self.shared_blob_dir
        )


def grouped(argument: str, record: Any) -> Callable[[_Command], _Command]:
    """Pass several options to a command as one argument.

    Args:
        argument: the name of the argument.
        record: a named tuple whose fields are the options.
    """

    def group(command: _Command) -> _Command:
        @functools.wraps(command)
        def grouping(**arguments: Any) -> Any:
            values = {name: arguments.pop(name) for name in record._fields}
            return command(**{argument: record(**values)}, **arguments)

        return grouping  # type: ignore[return-value]

    return group


def image_options(command: _Command) -> _Command:
    """Add the options that select an image to a command, as the argument ``choice``."""
    command = limit_options(grouped("choice", Choice)(command))
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
