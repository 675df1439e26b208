"""``ociroot cat``."""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from .common import image_options, opened, print_json, progress_bar

if TYPE_CHECKING:
    from ..api import Merged
    from ..nodes import Node

__all__ = ["cat"]

# Bytes of contents that are kept in memory when they come in another order than they are wanted.
_KEPT = 1 << 20


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
    from ..errors import printable
    from ..looking import described

    failed = False
    with opened(image, **choice) as chosen:
        with progress_bar() as progress:
            merged = chosen.merged(verify=False, progress=progress)
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
        if as_json:
            print_json(
                [
                    described(path, node)
                    | {"content": base64.b64encode(b"".join(pieces)).decode("ascii")}
                    for (path, node), pieces in zip(wanted, contents(merged, wanted), strict=True)
                ]
            )
        else:
            for pieces in contents(merged, wanted):
                for piece in pieces:
                    sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    if failed:
        raise click.exceptions.Exit(1)


def contents(
    merged: Merged, wanted: list[tuple[bytes, Node]]
) -> Iterator[Iterator[bytes | memoryview]]:
    """Yield each file's content in the order wanted, reading each layer once.

    Args:
        merged: the merged image.
        wanted: files of it, by path.
    """
    from ..contents import pieces

    nodes = [node for _, node in wanted]
    if len(set(nodes)) < 2:
        # The usual case: nothing is kept.
        for node in nodes:
            yield merged.read(node)
        return
    with tempfile.SpooledTemporaryFile(max_size=_KEPT) as kept:
        places: dict[Node, tuple[int, int]] = {}
        for node, stream in merged.files(set(nodes)):
            begin = kept.tell()
            for piece in pieces(node, stream):
                kept.write(piece)
            places[node] = (begin, kept.tell())
        for node in nodes:
            yield _part(kept, *places[node])


def _part(file: BinaryIO | Any, begin: int, end: int) -> Iterator[bytes]:
    file.seek(begin)
    while begin < end and (data := file.read(min(end - begin, 1 << 18))):
        begin += len(data)
        yield data
