"""``ociroot find-layer``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .commands import Command
from .common import in_a_line, opened, print_json, progress_bar
from .options import PATH, image_options

if TYPE_CHECKING:
    from .. import LayerEvent
    from .options import Choice

__all__ = ["find_layer"]

_SIGNS = {"added": "+", "removed": "-"}


@click.command("find-layer", cls=Command)
@click.argument("image", type=PATH)
@click.argument("path", required=False)
@image_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the events.")
def find_layer(image: str, path: str | None, as_json: bool, choice: Choice) -> None:
    """Show which layers of IMAGE added, changed and removed PATH, and what created them.

    PATH is a path from the root, or a pattern with `*`, `?` and `[…]`: then the output has a line
    for each path that it matches, + added, - removed, ~ replaced. Without PATH, all paths that each
    layer adds, removes and replaces are listed. Changes of only the attributes of a directory are
    shown only for a single path.

    Links in the parents of PATH are followed, in a pattern only before its first `*`, `?` or `[`; a
    link in the final component is not. What created a layer is from the image's history.

    \b
    Examples:
      ociroot find-layer app.tar /etc/passwd
      ociroot find-layer app.tar '/usr/lib/*/libssl*'
      ociroot find-layer --json app.tar | jq -r '.[] | select(.event == "removed").path'
    """  # noqa: D301
    from .. import as_text, is_glob, printable

    show = as_text if as_json else printable
    with opened(image, choice) as chosen, progress_bar() as progress:
        events = chosen.layer_events(path, show=show, progress=progress)
    found = 0

    def counting() -> Iterator[LayerEvent]:
        nonlocal found
        for event in events:
            found += 1
            yield event

    if as_json:
        print_json(counting())
    else:
        single = path is not None and not is_glob(path)
        for line in _one_lines(counting()) if single else _many_lines(counting()):
            click.echo(line)
    if path is not None and not found:
        click.echo(f"ociroot: {printable(image)}: no layer has {printable(path)}", err=True)
        raise click.exceptions.Exit(1)


def _one_lines(events: Iterator[LayerEvent]) -> Iterator[str]:
    from .. import printable

    for event in events:
        yield f"layer {event.layer} {event.digest}: {event.event}"
        if event.created_by:
            yield f"    {printable(event.created_by)}"


def _many_lines(events: Iterator[LayerEvent]) -> Iterator[str]:
    layer = 0
    for event in events:
        if event.layer != layer:
            layer = event.layer
            yield f"layer {layer} {event.digest}"
            if event.created_by:
                yield f"    {in_a_line(event.created_by)}"
        what = event.event
        more = f"  ({what})" if what not in _SIGNS else ""
        yield f"{_SIGNS.get(what, '~')} {event.path}{more}"
