"""``ociroot cp``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import click

from .commands import Command
from .common import opened, progress_bar, warn
from .options import PATH, grouped, image_options

if TYPE_CHECKING:
    from .. import Merged, Node
    from .options import Choice

__all__ = ["cp"]

# What stands for `-:` while click reads the arguments: no argument can hold it.
_STDIN = "\0:"


class _Copy(Command):
    """Takes `-:PATH` for an argument, which to click looks like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :class:`click.Command`."""
        hidden = [_STDIN + arg[2:] if arg.startswith("-:") else arg for arg in args]
        rest = super().parse_args(ctx, hidden)
        for name, value in ctx.params.items():
            if isinstance(value, str) and value.startswith(_STDIN):
                ctx.params[name] = "-:" + value[len(_STDIN) :]
        return rest


class _How(NamedTuple):
    """What is copied, and how."""

    layer: int | None
    follow: bool
    force: bool
    preserve: str | None
    no_verify: bool


@click.command(cls=_Copy)
@click.argument("source", metavar="IMAGE:PATH")
@click.argument("destination", metavar="DEST", type=PATH)
@image_options
@grouped("how", _How)
@click.option(
    "--layer",
    type=click.IntRange(1),
    metavar="N",
    help="Copy what this layer brought, also where a later one removes it.",
)
@click.option("--follow", "-L", is_flag=True, help="Follow a symbolic link at the end of PATH.")
@click.option(
    "--force", "-f", is_flag=True, help="Replace a file that is there; binary data to a terminal."
)
@click.option(
    "--preserve",
    type=click.Choice(["mode"]),
    help="mode: keep the set-id bits, and a file's capabilities, where they are dropped.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Of plain layers in an archive read only headers and what is copied, and verify neither.",
)
def cp(source: str, destination: str, choice: Choice, how: _How) -> None:
    """Copy a file of an image, or a directory with all that is in it, to DEST.

    IMAGE and PATH are parted by the last colon with an image before it; `-:PATH` is in an image on
    standard input.

    DEST means what it means to `cp -R`. Where it is a directory, the copy is made in it, under the
    name that PATH has; otherwise DEST is the copy. Of `/`, and of a PATH that ends in `/.`, what is
    in it goes into DEST. A link with `/` behind it is the directory that it leads to. What is there
    is not touched: a file is replaced with --force alone, and a directory must be empty. `-` writes
    a file to stdout.

    What is copied appears whole or not at all, and only when all layers have been verified. With
    --layer there is nothing but what that layer brought, at the paths that its archive has.

    Times and permissions are kept; as root owners, devices and extended attributes are, too. A
    single file loses the set-id bits and capabilities that would lend the rights of its owner to
    whoever runs it. In a directory they are kept as `cp -a` does it: by root, who keeps the owners;
    as an ordinary user set-id bits, owners and devices are left out.

    \b
    Examples:
      ociroot cp app.tar:/etc/nginx ./nginx
      ociroot cp -L app.tar:/bin/sh .
      docker save app | ociroot cp -:/srv/app/. ./app
      ociroot cp --layer 2 app.tar:/etc/removed-by-layer-3 .
    """  # noqa: D301
    from .. import UsageError, printable
    from .contents import BinaryData, write_content

    image, path = _split(source)
    verify = not how.no_verify
    with opened(image, choice) as chosen:
        # What goes to stdout cannot be taken back: it is kept until all has been verified.
        keep = [path] if destination == "-" else []
        with progress_bar() as progress:
            merged = chosen.merged(verify=verify, layer=how.layer, keep=keep, progress=progress)
        node = _node(merged, image, path, how)
        if destination == "-":
            if node.kind != "file":
                raise UsageError(f"{printable(path)} is a {node.kind}: only files go to stdout")
            merged.keep([node], verify=verify)
            try:
                write_content(merged.read(node), force=how.force)
            except BinaryData as error:
                raise error.locate(source=image, member=path) from None
            return
        # The image may change while it is read: what is copied is verified when it is copied.
        warnings = merged.copy(
            node,
            _target(destination, path, node, how.force),
            force=how.force,
            keep_set_id=how.preserve == "mode",
            verify=verify,
        )
        warn(merged.warnings)
    warn(warnings)


def _node(merged: Merged, image: str, path: str, how: _How) -> Node:
    """Return what is at a path of the image."""
    from .. import OcirootError, printable

    # As to the kernel, `link/` and `link/.` are what the link leads to, and must be directories.
    as_directory = path.rpartition("/")[2] in ("", ".")
    place = merged.tree.find(path, follow=how.follow or as_directory)
    if place is None:
        warn(merged.warnings if how.layer else ())
        within = f" in layer {how.layer}" if how.layer else ""
        raise OcirootError(f"there is no {printable(path)}{within}", source=image)
    if as_directory and place.node.kind != "dir":
        raise OcirootError(f"{printable(path)} is a {place.node.kind}, not a dir", source=image)
    return place.node


def _target(destination: str, path: str, node: Node, force: bool) -> str:
    """Return the path that the copy is to have, as `cp -R` has it; refuse one that is taken."""
    from .. import DestinationError

    name = os.path.basename(path.rstrip("/"))
    inside = os.path.isdir(destination) and name not in ("", ".", "..")
    target = os.path.join(destination, name) if inside else destination
    if node.kind == "dir":
        return target  # whether it is empty is seen when it is locked
    if not inside and destination.endswith("/"):
        raise DestinationError("there is no such directory", source=destination)
    if os.path.isdir(target) and not os.path.islink(target):
        raise DestinationError("it is a directory", source=target)
    if os.path.lexists(target) and not force:
        raise DestinationError("it exists", source=target, remedy="--force replaces it")
    return target


def _split(source: str) -> tuple[str, str]:
    """Part IMAGE:PATH; either may have colons in it."""
    from .. import image_exists, printable

    at = len(source)
    while (at := source.rfind(":", 0, at)) > 0:
        if image_exists(source[:at]):
            return source[:at], source[at + 1 :]
    # None of them is there: which file is missing is for whoever opens it to say.
    image, colon, path = source.rpartition(":")
    if not colon or not image:
        raise click.UsageError(f"{printable(source)} is not IMAGE:PATH")
    return image, path
