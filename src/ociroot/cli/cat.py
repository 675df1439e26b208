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

# The maximum size in bytes of a file in a JSON document, which is built in memory.
_JSON_LIMIT = 64 << 20


class _How(NamedTuple):
    """Options of reading and output."""

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
    help="Read the files of this layer, even if a later one removes them.",
)
@click.option("--force", "-f", is_flag=True, help="Write binary data to a terminal, too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with contents in base64.")
def cat(image: str, paths: tuple[str, ...], choice: Choice, how: _How) -> None:
    """Write the contents of files of IMAGE to stdout.

    PATH is a path from the root, as a container would see it: symbolic links are followed inside
    the root. With --layer only the files of that layer exist, at the paths in its archive, without
    hard links to files of lower layers.

    Not everything is verified: of plain layers in an archive only the headers and the files
    themselves are read, so the layer's digest is not checked; data that is read again from a
    compressed layer is written before the end of the layer is verified. `verify` reads everything,
    and `cp IMAGE:PATH -` writes only verified data.

    Binary data is not written to a terminal, which might interpret it.

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
            # They are read in the order of the layers, not in the requested order.
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
                remedy="omit --json",
            )


def _content(merged: Merged, node: Node) -> dict[str, str]:
    return {"content": base64.b64encode(b"".join(merged.read(node))).decode("ascii")}
