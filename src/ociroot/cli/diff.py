"""``ociroot diff``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar, size

if TYPE_CHECKING:
    from ..api import Image, Layer
    from ..comparison import Hashing, Side
    from ..tree import Tree

__all__ = ["diff"]

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("other", type=PATH, required=False)
@image_options
@click.option(
    "--layers",
    metavar="M..N",
    help="Compare IMAGE after its layer M with itself after layer N; 0 is before the first.",
)
@click.option("--mtime", is_flag=True, help="Another modification time is a difference, too.")
@click.option("--name-only", is_flag=True, help="Print the paths alone.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the differences.")
def diff(
    image: str,
    other: str | None,
    layers: str | None,
    mtime: bool,
    name_only: bool,
    as_json: bool,
    **choice: Any,
) -> None:
    """Show how the file systems of two images, IMAGE and OTHER, differ.

    A line for each path: + added, - removed, ~ changed (type, content, mode, owner, size, target,
    device, xattrs), with the sizes of files. The options that choose an image are for both. Exits
    with 1 when there is a difference, as diff(1) does.

    \b
    Examples:
      ociroot diff app-1.tar app-2.tar
      ociroot diff --layers 1..2 app.tar
    """  # noqa: D301
    from ..comparison import compare
    from ..errors import printable

    if (other is None) == (layers is None):
        raise click.UsageError("give a second image, or --layers M..N of one")
    if layers is not None:
        with opened(image, **choice) as chosen:
            before, after = _after_layers(chosen, *_range(layers, len(chosen.layers)))
    else:
        sides: list[Side] = []
        for each in (image, other or ""):
            with opened(each, **choice) as chosen:
                sides.append(_after_layers(chosen, len(chosen.layers))[0])
        before, after = sides

    differences = list(compare(before, after, mtime=mtime))
    if as_json:
        print_json(differences)
    for found in differences if not as_json else ():
        path = printable(found.path)
        if name_only:
            click.echo(path)
            continue
        what = f"  ({', '.join(found.what)})" if found.what else ""
        sizes = ""
        if found.size_before != found.size_after:
            sizes = f"  {size(found.size_before)} → {size(found.size_after)}"
        click.echo(f"{_SIGNS[found.change]} {path}{what}{sizes}")
    if differences:
        raise click.exceptions.Exit(1)


def _range(text: str, count: int) -> tuple[int, int]:
    """Read ``M..N``."""
    match = re.fullmatch(r"(\d{1,6})\.\.(\d{1,6})", text)
    if match is None or not all(int(number) <= count for number in match.groups()):
        raise click.UsageError(f"--layers is M..N, with numbers from 0 to {count}")
    return int(match[1]), int(match[2])


def _after_layers(image: Image, *numbers: int) -> list[Side]:
    """Return what is there after each of these layers, in one pass over all of them."""
    from ..comparison import Hashing, Side, copied
    from ..nodes import Directory

    hashings: list[Hashing] = []
    found: dict[int, Side] = {}
    applied = 0

    def start() -> Hashing:
        nonlocal applied
        applied = 0
        found.clear()
        found[0] = Side(Directory(None, b"", -1), {})
        hashings.append(Hashing())
        return hashings[-1]

    def look(tree: Tree, layer: Layer) -> None:
        nonlocal applied
        applied += 1
        if applied in numbers:
            found[applied] = Side(copied(tree.root), hashings[-1].digests)

    with progress_bar() as progress:
        image.merged(operations=start, after_layer=look, progress=progress)
    return [found[number] for number in numbers]
