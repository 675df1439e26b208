"""``ociroot cat``."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar

if TYPE_CHECKING:
    from ..api import Merged
    from ..contents import Keeping
    from ..nodes import Node

__all__ = ["cat"]

# Bytes of a file that a JSON document may hold: it is made in memory.
_JSON_LIMIT = 64 << 20


@click.command(cls=Command)
@click.argument("image", type=PATH)
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
    from ..looking import as_text, described

    failed = False
    raw = [path.encode("utf-8", "surrogateescape") for path in paths]
    keepings: list[Keeping] = []

    def keep() -> Keeping:
        names = [path.rstrip(b"/").rpartition(b"/")[2] for path in raw]
        keepings.append(Keeping(names, choice["tmpdir"]))
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
        missing = {node for _, node in wanted if node not in kept}
        if len(missing) > 1:
            # They come in the order of the layers, and not as they are wanted.
            for node, stream in merged.files(missing):
                kept.keep(node, stream)
        if as_json:
            print_json(
                described("/" + as_text(path), node) | _content(merged, kept, node)
                for path, node in wanted
            )
        else:
            for _, node in wanted:
                for piece in kept.read(node) if node in kept else merged.read(node):
                    sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    if failed:
        raise click.exceptions.Exit(1)


def _content(merged: Merged, kept: Keeping, node: Node) -> dict[str, str]:
    from ..errors import LimitExceeded

    if node.size > _JSON_LIMIT:
        raise LimitExceeded(
            f"a file of {node.size} bytes (with --json at most {_JSON_LIMIT})",
            remedy="leave out --json",
        )
    content = b"".join(kept.read(node) if node in kept else merged.read(node))
    return {"content": base64.b64encode(content).decode("ascii")}
