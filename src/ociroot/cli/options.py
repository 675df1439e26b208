"""The options that say which image is meant, and how a command gets several as one argument."""

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

# Whether it is there and can be read is for whoever opens it to say, and not a matter of usage.
PATH = click.Path(readable=False)

_OPTIONS = (
    click.option(
        "--platform",
        metavar="[OS/]ARCH[/VARIANT]",
        help="The platform to choose, as in linux/arm/v7 or arm64. Default: this machine's; where "
        "there is one image, that one.",
    ),
    click.option("--ref", default="", metavar="NAME", help="The name of the image, full or short."),
    click.option(
        "--digest",
        default="",
        metavar="DIGEST",
        help="The manifest's digest or the image ID, or the beginning of one.",
    ),
    click.option(
        "--shared-blob-dir",
        type=PATH,
        help="Where the blobs of a layout directory lie, when several share them.",
    ),
    click.option("--tmpdir", type=PATH, help="Where a compressed archive is decompressed to."),
)


class Choice(NamedTuple):
    """Which image is meant, and how its source is opened: what :func:`image_options` gives."""

    platform: str | None
    ref: str
    digest: str
    shared_blob_dir: str | None
    tmpdir: str | None
    limits: Limits

    @property
    def is_named(self) -> bool:
        """Whether an option says which image is meant."""
        return bool(self.platform or self.ref or self.digest)

    @property
    def selector(self) -> ImageSelector:
        """Which image is meant."""
        from .. import ImageSelector

        return ImageSelector(platform=self.platform, ref=self.ref, digest=self.digest)

    @property
    def source(self) -> SourceOptions:
        """How its source is opened."""
        from .. import SourceOptions

        return SourceOptions(
            limits=self.limits, tmpdir=self.tmpdir, shared_blobs=self.shared_blob_dir
        )


def grouped(argument: str, record: Any) -> Callable[[_Command], _Command]:
    """Have a command get several options as one argument.

    Args:
        argument: the name of the argument.
        record: a named tuple; its fields are the options.
    """

    def group(command: _Command) -> _Command:
        @functools.wraps(command)
        def grouping(**arguments: Any) -> Any:
            values = {name: arguments.pop(name) for name in record._fields}
            return command(**{argument: record(**values)}, **arguments)

        return grouping  # type: ignore[return-value]

    return group


def image_options(command: _Command) -> _Command:
    """Give a command the options that say which image is meant, as the argument ``choice``."""
    command = limit_options(grouped("choice", Choice)(command))
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
