"""``ociroot cat``."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import click

from .commands import Command
from .common import opened, print_json, progress_bar, warn
from .options import PATH, grouped, image_options

if TYPE_CHECKING:
    from .. import Merged, Node
    from .options import Choice

__all__ = ["cat"]

# Bytes of a file that a JSON document may hold: it is made in memory.
_JSON_LIMIT = 64 << 20


class _How(NamedTuple):
    """What is read, and how it is written."""

    layer: int | None
    force: bool
    as_json: bool


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@image_options
@grouped("how", _How)
@click.option(
    "--layer",
    type=click.IntRange(1),
    metavar="N",
    help="Read what this layer brought, also where a later one removes it.",
)
@click.option("--force", "-f", is_flag=True, help="Write binary data to a terminal, too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with contents in base64.")
def cat(image: str, paths: tuple[str, ...], choice: Choice, how: _How) -> None:
    """Write the contents of files of IMAGE to stdout.

    PATH is a path from the root, as a container would see it: symbolic links are followed inside
    the root. With --layer there is nothing but what that layer brought, at the paths that its
    archive has; a file that it has as a hard link to one of a lower layer is not among it.

    What is read is not all verified: of plain layers in an archive only the headers are read, and
    the files themselves, without the digest that is of all the layer; what has to be read again
    from a compressed one is written before the layer's end is verified. `verify` reads everything,
    and `cp IMAGE:PATH -` writes nothing that it has not verified.

    Binary data is not written to a terminal, which might obey it.

    \b
    Examples:
      ociroot cat app.tar /etc/os-release
      ociroot cat --platform linux/arm64 app.tar /usr/bin/app | file -
      ociroot cat --layer 2 app.tar /etc/removed-by-layer-3
    """  # noqa: D301
    from .. import as_text, printable
    from .contents import BinaryData, write_content
    from .describe import described

    failed = False

    def fail(path: str, problem: str) -> None:
        nonlocal failed
        failed = True
        click.echo(f"ociroot: {printable(image)}, {printable(path)}: {problem}", err=True)

    with opened(image, choice) as chosen:
        with progress_bar() as progress:
            merged = chosen.merged(verify=False, layer=how.layer, keep=paths, progress=progress)
        wanted: list[tuple[str, Node]] = []
        for path in paths:
            place = merged.tree.find(path)
            if place is None:
                within = f" in layer {how.layer}" if how.layer else ""
                fail(path, f"there is no such file{within}")
            elif place.node.kind != "file":
                fail(path, f"it is a {place.node.kind}, not a file")
            else:
                wanted.append(("/" + as_text(place.path), place.node))
        if failed and how.layer:
            warn(merged.warnings)
        missing = {node for _, node in wanted if not merged.is_kept(node)}
        if len(missing) > 1:
            # They come in the order of the layers, and not as they are wanted.
            merged.keep(missing)
        if how.as_json:
            _check_sizes(node for _, node in wanted)
            print_json(described(path, node) | _content(merged, node) for path, node in wanted)
        else:
            for path, node in wanted:
                try:
                    write_content(merged.read(node), force=how.force)
                except BinaryData as error:
                    fail(path, str(error))
    if failed:
        raise click.exceptions.Exit(1)


def _check_sizes(nodes: Iterable[Node]) -> None:
    from .. import LimitExceeded

    for node in nodes:
        if node.size > _JSON_LIMIT:
            raise LimitExceeded(
                f"a file of {node.size} bytes exceeds the limit of {_JSON_LIMIT} with --json",
                remedy="leave out --json",
            )


def _content(merged: Merged, node: Node) -> dict[str, str]:
    return {"content": base64.b64encode(b"".join(merged.read(node))).decode("ascii")}
