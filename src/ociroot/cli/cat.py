"""``ociroot cat``."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import click

from .common import image_options, opened, print_json, progress_bar

if TYPE_CHECKING:
    from ..nodes import Node

__all__ = ["cat"]


@click.command()
@click.argument("image", type=click.Path())
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@image_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with contents in base64.")
def cat(image: str, paths: tuple[str, ...], as_json: bool, **choice: Any) -> None:
    """Write the contents of files of IMAGE to stdout.

    PATH is a path from the root, as a container would see it: symbolic links are followed inside
    the root.

    \b
    Examples:
      ociroot cat app.tar /etc/os-release
      ociroot cat --platform linux/arm64 app.tar /usr/bin/app | file -
    """  # noqa: D301
    from ..contents import Keeping
    from ..errors import printable
    from ..looking import described

    failed = False
    raw = [path.encode("utf-8", "surrogateescape") for path in paths]
    keepings: list[Keeping] = []

    def keep() -> Keeping:
        keepings.append(Keeping(path.rstrip(b"/").rpartition(b"/")[2] for path in raw))
        return keepings[-1]

    with opened(image, **choice) as chosen:
        with progress_bar() as progress:
            merged = chosen.merged(verify=False, operations=keep, progress=progress)
        kept = keepings[-1]
        wanted: list[tuple[bytes, Node]] = []
        for path in paths:
            place = merged.tree.find(path.encode("utf-8", "surrogateescape"))
            if place is None:
                problem = "there is no such file"
            elif place[2].kind != "file":
                problem = f"it is a {place[2].kind}, not a file"
            else:
                parent, name, node = place
                wanted.append((parent.path_of(name), node))
                continue
            failed = True
            click.echo(f"ociroot: {printable(image)}, {printable(path)}: {problem}", err=True)
        for node, stream in merged.files({node for _, node in wanted if node not in kept}):
            kept.keep(node, stream)
        if as_json:
            print_json(
                [
                    described(path, node)
                    | {"content": base64.b64encode(b"".join(kept.read(node))).decode("ascii")}
                    for path, node in wanted
                ]
            )
        else:
            for _, node in wanted:
                for piece in kept.read(node):
                    sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    if failed:
        raise click.exceptions.Exit(1)
