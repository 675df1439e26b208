"""``ociroot tree``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from .commands import Command
from .common import in_a_line, opened, print_json, progress_bar, share, size
from .options import PATH, image_options

if TYPE_CHECKING:
    from .. import DirectoryUsage, FileUsage, Usage
    from .options import Choice

__all__ = ["tree"]


@click.command(cls=Command)
@click.argument("image", type=PATH)
@image_options
@click.option("--depth", type=click.IntRange(0), default=2, help="Depth of directories (2).")
@click.option("--largest", type=click.IntRange(0), default=10, help="Number of largest files (10).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, sizes in bytes.")
def tree(image: str, depth: int, largest: int, as_json: bool, choice: Choice) -> None:
    """Show the disk usage of IMAGE by directory, by layer, and of the largest files.

    Waste is data that a layer adds and a later one hides, removes or replaces: it is in the image
    but not in containers. Percentages of directories and files are of the file system, those of
    layers of the total of all layers. Items of 0 bytes are omitted.

    The JSON document has `size` (of the file system), `waste`, `directories`, `layers` and
    `largest`, including items of 0 bytes.

    \b
    Examples:
      ociroot tree app.tar
      ociroot tree --depth 1 --json app.tar | jq '.layers[] | select(.waste > 1000000)'
    """  # noqa: D301
    from .. import as_text, printable

    with opened(image, choice) as chosen, progress_bar() as progress:
        usage = chosen.usage(progress=progress)
    show = as_text if as_json else printable
    directories, big = usage.directories(depth, show=show), usage.largest(largest, show=show)
    if as_json:
        document = {"size": usage.size, "waste": usage.waste}
        found = {"directories": directories, "layers": iter(usage.layers), "largest": big}
        print_json({**document, **found})
        return
    for line in _lines(usage, directories, big):
        click.echo(line)


def _lines(
    usage: Usage, directories: Iterable[DirectoryUsage], largest: Iterable[FileUsage]
) -> Iterator[str]:
    """Yield the lines of text, without items of 0 bytes."""
    from .. import Digest

    total, waste = usage.size, usage.waste
    brought = total + waste
    of_all = f"{size(waste)} wasted, {share(waste, brought)} of the layers"
    yield f"{size(total)} in the file system; {of_all if waste else 'nothing wasted'}"
    for number, directory in enumerate(each for each in directories if each.size):
        if not number:
            yield "\nThe file system"
        yield f"{_amount(directory.size, total)}  {'  ' * directory.depth}{directory.path}"
    for number, layer in enumerate(each for each in usage.layers if each.size or each.waste):
        if not number:
            yield "\nBy layer: used, wasted by later layers, created by"
        amounts = f"{_amount(layer.size, brought)} {_amount(layer.waste, brought)}"
        digest = Digest.parse(layer.digest).short
        yield f"{amounts} {layer.layer:3} {digest}  {in_a_line(layer.created_by)}".rstrip()
    for number, file in enumerate(each for each in largest if each.size):
        if not number:
            yield "\nThe largest files"
        yield f"{_amount(file.size, total)}  {file.path} (layer {file.layer})"


def _amount(part: int, whole: int) -> str:
    return f"{share(part, whole):>5} {size(part):>10}" if part else f"{'-':>5} {'-':>10}"
