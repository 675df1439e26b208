"""``ociroot cp``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .commands import Command
from .common import PATH, image_options, opened, progress_bar, warn

__all__ = ["cp"]


@click.command(cls=Command)
@click.argument("source", metavar="IMAGE:PATH")
@click.argument("destination", metavar="DEST", type=PATH)
@image_options
@click.option("--follow", "-L", is_flag=True, help="Follow a symbolic link at the end of PATH.")
@click.option("--force", "-f", is_flag=True, help="Replace a file that is there.")
def cp(source: str, destination: str, follow: bool, force: bool, **choice: Any) -> None:
    """Copy a file of an image, or a directory with all that is in it, to DEST.

    IMAGE and PATH are parted by the last colon with a file or a directory before it. Where
    DEST is a directory that holds something, what is copied keeps its name in it; `-` writes a
    file to stdout. What is copied appears whole or not at all. As an ordinary user owners and
    devices are left out.

    \b
    Examples:
      ociroot cp app.tar:/etc/nginx ./nginx
      ociroot cp -L app.tar:/bin/sh .
    """  # noqa: D301
    from ..copying import copy_directory, copy_file
    from ..errors import OcirootError, UsageError, printable
    from ..nodes import Directory
    from ..notices import Notices

    image, path = _split(source)
    notices = Notices()
    with opened(image, **choice) as chosen:
        with progress_bar() as progress:
            merged = chosen.merged(verify=False, progress=progress)
        place = merged.tree.find(path.encode("utf-8", "surrogateescape"), follow=follow)
        if place is None:
            raise OcirootError(f"there is no {printable(path)}", source=image)
        _, name, node = place
        if destination == "-":
            if node.kind != "file":
                raise UsageError(f"{printable(path)} is a {node.kind}: only files go to stdout")
            for piece in merged.read(node):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        # An empty directory is filled, as `extract` does it, unless a single file goes into it.
        into = os.path.isdir(destination) and name
        if into and (not isinstance(node, Directory) or os.listdir(destination)):
            # By the name that was asked for, also where a link led to another.
            asked = os.path.basename(path.rstrip("/"))
            kept = asked if asked not in ("", ".", "..") else os.fsdecode(name)
            destination = os.path.join(destination, kept)
        if isinstance(node, Directory):
            copy_directory(node, merged.files, destination, notices)
        else:
            copy_file(node, merged.files, destination, notices, force=force)
        warn(merged.warnings)
    warn(notices.warnings())


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
