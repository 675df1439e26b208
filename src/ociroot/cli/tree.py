"""``ociroot tree``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar, size

if TYPE_CHECKING:
    from ..nodes import Directory, Node

__all__ = ["tree"]


@click.command(cls=Command)
@click.argument("image", type=PATH)
@image_options
@click.option("--depth", type=click.IntRange(0), default=2, help="Levels of directories (2).")
@click.option("--largest", type=click.IntRange(0), default=10, help="Largest files to show (10).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, sizes in bytes.")
def tree(image: str, depth: int, largest: int, as_json: bool, **choice: Any) -> None:
    """Show where the space of IMAGE goes: by directory, by layer, and the largest files.

    Waste is what a layer brings and a later one hides, removes or replaces: it is in the image and
    in no container.

    \b
    Examples:
      ociroot tree app.tar
      ociroot tree --depth 1 --json app.tar | jq '.layers[] | select(.waste > 1000000)'
    """  # noqa: D301
    from ..errors import printable
    from ..looking import Waste, as_text, sizes

    wastes: list[Waste] = []

    def watch() -> Waste:
        wastes.append(Waste())
        return wastes[-1]

    with opened(image, **choice) as chosen, progress_bar() as progress:
        merged = chosen.merged(verify=False, operations=watch, progress=progress)
    root = merged.tree.root
    totals = sizes(root)
    files = _files(root)
    layers = [
        {
            "layer": number,
            "digest": layer.digest or layer.diff_id,
            "size": sum(node.size for node, _ in files if node.layer == number - 1),
            "waste": wastes[-1].by_layer.get(number - 1, 0),
        }
        for number, layer in enumerate(merged.layers, 1)
    ]
    directories = [
        {"path": "/" + as_text(each.path()), "size": total, "depth": each.depth}
        for each, total in totals.items()
        if each.depth <= depth
    ]
    # Each below the one it is in, the largest first.
    order = {each: index for index, each in enumerate(_by_size(root, totals, depth))}
    directories.sort(key=lambda about: order[str(about["path"])])
    top = sorted(files, key=lambda file: (-file[0].size, file[1]))[:largest]
    big = [{"path": "/" + as_text(p), "size": n.size, "layer": n.layer + 1} for n, p in top]
    if as_json:
        print_json({"directories": directories, "layers": layers, "largest": big})
        return
    for each in directories:
        indent = "  " * int(str(each["depth"]))
        click.echo(f"{size(float(str(each['size']))):>10}  {indent}{printable(str(each['path']))}")
    click.echo("\nBy layer: what is left of it, and what later layers waste")
    for each in layers:
        kept, waste = size(float(str(each["size"]))), size(float(str(each["waste"])))
        click.echo(f"{kept:>10}  {waste:>10}  {each['layer']} {each['digest']}")
    if big:
        click.echo("\nThe largest files")
    for each in big:
        shown = size(float(str(each["size"])))
        click.echo(f"{shown:>10}  {printable(str(each['path']))} (layer {each['layer']})")


def _files(root: Directory) -> list[tuple[Node, bytes]]:
    """Return the regular files, each once, with one of their paths."""
    found: dict[Node, bytes] = {}
    for parent, name, node in root.walk():
        if node.kind == "file" and node not in found:
            found[node] = parent.path_of(name)
    return list(found.items())


def _by_size(root: Directory, totals: dict[Directory, int], depth: int) -> list[str]:
    """Return the paths of the directories, each before those in it, the largest first."""
    from ..looking import as_text
    from ..nodes import Directory

    paths: list[str] = []
    todo = [root]
    while todo:
        directory = todo.pop()
        paths.append("/" + as_text(directory.path()))
        if directory.depth < depth:
            below = [each for each in directory.entries.values() if isinstance(each, Directory)]
            todo += sorted(below, key=lambda each: (-totals[each], each.name))[::-1]
    return paths
