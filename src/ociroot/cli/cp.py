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

# Replaces `-:` while click parses the arguments: no argument can contain a NUL.
_STDIN = "\0:"


class _Copy(Command):
    """Accepts `-:PATH` as an argument, which click would parse as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :class:`click.Command`."""
        hidden = [_STDIN + arg[2:] if arg.startswith("-:") else arg for arg in args]
        rest = super().parse_args(ctx, hidden)
        for name, value in ctx.params.items():
            if isinstance(value, str) and value.startswith(_STDIN):
                ctx.params[name] = "-:" + value[len(_STDIN) :]
        return rest


class _How(NamedTuple):
    """Options of the copy."""

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
    help="Copy files of this layer, even if a later one removes them.",
)
@click.option("--follow", "-L", is_flag=True, help="Follow PATH if it is a symbolic link.")
@click.option(
    "--force", "-f", is_flag=True, help="Replace an existing file; write binary data to a terminal."
)
@click.option(
    "--preserve",
    type=click.Choice(["mode"]),
    help="mode: keep set-id bits and capabilities that would be dropped.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Read only headers and the copied files of plain layers in an archive, unverified.",
)
def cp(source: str, destination: str, choice: Choice, how: _How) -> None:
    """Copy a file of an image, or a directory with its content, to DEST.

    The argument is split at the last colon that follows an existing image; `-:PATH` reads the image
    from standard input.

    DEST has the same meaning as for `cp -R`. If it is a directory, the copy is created in it with
    the name of PATH; otherwise DEST is the copy. For `/`, and for a PATH that ends in `/.`, the
    content of the directory is copied into DEST. A link with a trailing `/` is the directory that
    it points to. Existing files are not changed: a file is replaced only with --force, and a
    directory must be empty. `-` writes a file to stdout.

    The copy appears in one step or not at all, and only when all layers have been verified. With
    --layer only the files of that layer exist, at the paths in its archive.

    Times and permissions are kept; as root also owners, devices and extended attributes. A single
    file loses set-id bits and capabilities, because they would grant the rights of another user. In
    a directory they are kept as with `cp -a`: by root, who keeps the owners; as an ordinary user
    set-id bits, capabilities, owners and devices are dropped.

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
        # Output to stdout cannot be undone: it is kept until everything has been verified.
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
        # The image may change meanwhile, so the data is verified again when it is copied.
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
    """Return the node at a path of the image."""
    from .. import OcirootError, printable

    # As in the kernel, `link/` and `link/.` are the target of the link, which must be a directory.
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
    """Return the path of the copy, as for `cp -R`; refuse an existing one."""
    from .. import DestinationError

    name = os.path.basename(path.rstrip("/"))
    inside = os.path.isdir(destination) and name not in ("", ".", "..")
    target = os.path.join(destination, name) if inside else destination
    if node.kind == "dir":
        return target  # checked to be empty when it is locked
    if not inside and destination.endswith("/"):
        raise DestinationError("there is no such directory", source=destination)
    if os.path.isdir(target) and not os.path.islink(target):
        raise DestinationError("it is a directory", source=target)
    if os.path.lexists(target) and not force:
        raise DestinationError("it exists", source=target, remedy="--force replaces it")
    return target


def _split(source: str) -> tuple[str, str]:
    """Split IMAGE:PATH at the last colon that follows an existing path; both may have colons."""
    from .. import image_exists, printable

    at = len(source)
    while (at := source.rfind(":", 0, at)) > 0:
        if image_exists(source[:at]):
            return source[:at], source[at + 1 :]
    # None of them exists: opening the image reports which file is missing.
    image, colon, path = source.rpartition(":")
    if not colon or not image:
        raise click.UsageError(f"{printable(source)} is not IMAGE:PATH")
    return image, path
