"""``ociroot find-layer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar

if TYPE_CHECKING:
    from ..api import Layer
    from ..nodes import Node
    from ..tree import Tree

__all__ = ["find_layer"]


@click.command("find-layer", cls=Command)
@click.argument("image", type=PATH)
@click.argument("path")
@image_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the events.")
def find_layer(image: str, path: str, as_json: bool, **choice: Any) -> None:
    """Tell which layers of IMAGE brought, changed and removed PATH, and what made them.

    A symbolic link at the end of PATH is not followed: it is what is asked about. The command that
    made a layer is what the image's history says of it.

    \b
    Examples:
      ociroot find-layer app.tar /etc/passwd
      ociroot find-layer --json app.tar /usr/bin/python3 | jq -r .[].created_by
    """  # noqa: D301
    from ..errors import printable
    from ..looking import history_of_layers

    wanted = path.encode("utf-8", "surrogateescape")
    events: list[dict[str, Any]] = []
    before: tuple[Node, tuple[Any, ...]] | None = None
    seen = 0

    def look(tree: Tree, layer: Layer) -> None:
        nonlocal before, seen
        seen += 1
        place = tree.find(wanted, follow=False)
        # A directory's node lives on when a layer gives it other attributes.
        now = None if place is None else (place[2], _attributes(place[2]))
        what = _what_happened(before, now)
        if what:
            made = made_by.get(str(layer.diff_id))
            events.append(
                {
                    "layer": seen,
                    "digest": str(layer.digest or layer.diff_id),
                    "event": what,
                    "created_by": made,
                }
            )
        before = now

    def start() -> None:
        nonlocal before, seen
        before, seen = None, 0
        events.clear()

    with opened(image, **choice) as chosen, progress_bar() as progress:
        diff_ids = chosen.config.rootfs.diff_ids
        items = history_of_layers(chosen.config)
        made_by = {diff_ids[n - 1]: item.created_by for item, n in items if n is not None}
        chosen.merged(verify=False, after_layer=look, before_merge=start, progress=progress)

    if as_json:
        print_json(events)
    for event in events if not as_json else ():
        click.echo(f"layer {event['layer']} {event['digest']}: {event['event']}")
        if event["created_by"]:
            click.echo(f"    {printable(event['created_by'])}")
    if not events:
        click.echo(f"ociroot: {printable(image)}: no layer has {printable(path)}", err=True)
        raise click.exceptions.Exit(1)


def _attributes(node: Node) -> tuple[Any, ...]:
    return (node.mode, node.uid, node.gid, node.mtime_ns, dict(node.xattrs or {}))


def _what_happened(
    before: tuple[Node, tuple[Any, ...]] | None, now: tuple[Node, tuple[Any, ...]] | None
) -> str:
    """Return what a layer did to a path, in a word or two; nothing when it did nothing."""
    if before is None or now is None:
        return "" if before is now else "added" if before is None else "removed"
    old, new = before[0], now[0]
    if old.kind != new.kind:
        return f"replaced by a {new.kind}"
    if old is not new:
        return "replaced"
    return "attributes changed" if before[1] != now[1] else ""
