"""``ociroot cp``."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, progress_bar, warn

if TYPE_CHECKING:
    from ..api.image import Image
    from ..api.merged import Merged
    from ..rootfs.contents import ContentCache
    from ..rootfs.nodes import Node

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


@click.command(cls=_Copy)
@click.argument("source", metavar="IMAGE:PATH")
@click.argument("destination", metavar="DEST", type=PATH)
@image_options
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
def cp(
    source: str,
    destination: str,
    layer: int | None,
    follow: bool,
    force: bool,
    preserve: str | None,
    no_verify: bool,
    **choice: Any,
) -> None:
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
    from ..api.copying import copy_directory, copy_file
    from ..errors import UsageError, printable
    from ..notices import Notices
    from ..rootfs.nodes import Directory
    from .contents import BinaryData, write_content

    image, path = _split(source)
    notices = Notices()
    with opened(image, **choice) as chosen:
        merged, kept = _merged(
            chosen, path if destination == "-" else None, layer, not no_verify, choice["tmpdir"]
        )
        # The image may change while it is read: what is copied is verified when it is copied.
        files = functools.partial(merged.files, verify=not no_verify)
        node = _node(merged, image, path, layer, follow)
        if destination == "-":
            if node.kind != "file":
                raise UsageError(f"{printable(path)} is a {node.kind}: only files go to stdout")
            for found, stream in files([node] if node not in kept else []):
                kept.keep(found, stream)
            try:
                write_content(kept.read(node), force=force)
            except BinaryData as error:
                raise error.locate(source=image, member=path) from None
            return
        target = _target(destination, path, node, force)
        kept_bits, spare = preserve == "mode", choice["limits"].size is None
        if isinstance(node, Directory):
            copy_directory(node, files, target, notices, keep_set_id=kept_bits, spare=spare)
        else:
            copy_file(
                node,
                files,
                target,
                notices,
                force=force,
                keep_set_id=kept_bits,
                spare=spare,
            )
        warn(merged.warnings)
    warn(notices.warnings())


def _merged(
    image: Image, to_stdout: str | None, layer: int | None, verify: bool, tmpdir: str | None
) -> tuple[Merged, ContentCache]:
    """Merge the layers; keep what goes to stdout, where nothing can be taken back."""
    from ..rootfs.contents import ContentCache

    kept: list[ContentCache] = []

    def keep() -> ContentCache:
        names = [] if to_stdout is None else [os.path.basename(to_stdout.rstrip("/"))]
        kept.append(ContentCache(map(os.fsencode, names), tmpdir))
        return kept[-1]

    with progress_bar() as progress:
        merged = image.merged(verify=verify, layer=layer, operations=keep, progress=progress)
    return merged, kept[-1]


def _node(merged: Merged, image: str, path: str, layer: int | None, follow: bool) -> Node:
    """Return what is at a path of the image."""
    from ..errors import OcirootError, printable

    # As to the kernel, `link/` and `link/.` are what the link leads to, and must be directories.
    as_directory = path.rpartition("/")[2] in ("", ".")
    place = merged.tree.find(os.fsencode(path), follow=follow or as_directory)
    if place is None:
        warn(merged.warnings if layer else ())
        within = f" in layer {layer}" if layer else ""
        raise OcirootError(f"there is no {printable(path)}{within}", source=image)
    if as_directory and place[2].kind != "dir":
        raise OcirootError(f"{printable(path)} is a {place[2].kind}, not a dir", source=image)
    return place[2]


def _target(destination: str, path: str, node: Node, force: bool) -> str:
    """Return the path that the copy is to have, as `cp -R` has it; refuse one that is taken."""
    from ..errors import DestinationError

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
    from ..errors import printable
    from ..sources.transports import exists

    at = len(source)
    while (at := source.rfind(":", 0, at)) > 0:
        if exists(source[:at]):
            return source[:at], source[at + 1 :]
    # None of them is there: which file is missing is for whoever opens it to say.
    image, colon, path = source.rpartition(":")
    if not colon or not image:
        raise click.UsageError(f"{printable(source)} is not IMAGE:PATH")
    return image, path
