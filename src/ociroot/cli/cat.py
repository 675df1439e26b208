"""``ociroot cat``."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar, warn

if TYPE_CHECKING:
    from ..api.merged import Merged
    from ..rootfs.contents import ContentCache
    from ..rootfs.nodes import Node

__all__ = ["cat"]

# Bytes of a file that a JSON document may hold: it is made in memory.
_JSON_LIMIT = 64 << 20


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@image_options
@click.option(
    "--layer",
    type=click.IntRange(1),
    metavar="N",
    help="Read what this layer brought, also where a later one removes it.",
)
@click.option("--force", "-f", is_flag=True, help="Write binary data to a terminal, too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with contents in base64.")
def cat(
    image: str,
    paths: tuple[str, ...],
    layer: int | None,
    force: bool,
    as_json: bool,
    **choice: Any,
) -> None:
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
    from ..errors import printable
    from ..rootfs.contents import ContentCache
    from ..rootfs.describe import as_text, described
    from .contents import BinaryData, write_content

    raw = [path.encode("utf-8", "surrogateescape") for path in paths]
    keepings: list[ContentCache] = []

    def keep() -> ContentCache:
        names = [path.rstrip(b"/").rpartition(b"/")[2] for path in raw]
        keepings.append(ContentCache(names, choice["tmpdir"]))
        return keepings[-1]

    failed = False

    def fail(path: str, problem: str) -> None:
        nonlocal failed
        failed = True
        click.echo(f"ociroot: {printable(image)}, {printable(path)}: {problem}", err=True)

    with opened(image, **choice) as chosen:
        with progress_bar() as progress:
            merged = chosen.merged(verify=False, layer=layer, operations=keep, progress=progress)
        kept = keepings[-1]
        wanted: list[tuple[str, Node]] = []
        for path in paths:
            place = merged.tree.find(path.encode("utf-8", "surrogateescape"))
            if place is None:
                fail(path, "there is no such file" + (f" in layer {layer}" if layer else ""))
            elif place[2].kind != "file":
                fail(path, f"it is a {place[2].kind}, not a file")
            else:
                parent, name, node = place
                wanted.append(("/" + as_text(parent.path_of(name)), node))
        if failed and layer:
            warn(merged.warnings)
        missing = {node for _, node in wanted if node not in kept}
        if len(missing) > 1:
            # They come in the order of the layers, and not as they are wanted.
            for node, stream in merged.files(missing):
                kept.keep(node, stream)
        if as_json:
            _check_sizes(node for _, node in wanted)
            print_json(
                described(path, node) | _content(merged, kept, node) for path, node in wanted
            )
        else:
            for path, node in wanted:
                pieces = kept.read(node) if node in kept else merged.read(node)
                try:
                    write_content(pieces, force=force)
                except BinaryData as error:
                    fail(path, str(error))
    if failed:
        raise click.exceptions.Exit(1)


def _check_sizes(nodes: Iterable[Node]) -> None:
    from ..errors import LimitExceeded

    for node in nodes:
        if node.size > _JSON_LIMIT:
            raise LimitExceeded(
                f"a file of {node.size} bytes exceeds the limit of {_JSON_LIMIT} with --json",
                remedy="leave out --json",
            )


def _content(merged: Merged, kept: ContentCache, node: Node) -> dict[str, str]:
    content = b"".join(kept.read(node) if node in kept else merged.read(node))
    return {"content": base64.b64encode(content).decode("ascii")}
