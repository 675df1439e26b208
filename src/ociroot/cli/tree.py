"""``ociroot tree``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, in_a_line, opened, print_json, progress_bar, share, size

if TYPE_CHECKING:
    from ..rootfs.nodes import Directory, Node
    from ..rootfs.walking import CurrentPath

__all__ = ["tree"]

# A directory, a name in it, and what it is the name of.
_Place = tuple["Directory", bytes, "Node"]


@click.command(cls=Command)
@click.argument("image", type=PATH)
@image_options
@click.option("--depth", type=click.IntRange(0), default=2, help="Levels of directories (2).")
@click.option("--largest", type=click.IntRange(0), default=10, help="Largest files to show (10).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, sizes in bytes.")
def tree(image: str, depth: int, largest: int, as_json: bool, **choice: Any) -> None:
    """Show where the space of IMAGE goes: by directory, by layer, and the largest files.

    Waste is what a layer brings and a later one hides, removes or replaces: it is in the image and
    in no container. Percentages of directories and files are of the file system, those of layers
    of all that the layers bring. What has 0 bytes is left out.

    The JSON document has `size` (of the file system), `waste`, `directories`, `layers` and
    `largest`; there what has 0 bytes is listed, too.

    \b
    Examples:
      ociroot tree app.tar
      ociroot tree --depth 1 --json app.tar | jq '.layers[] | select(.waste > 1000000)'
    """  # noqa: D301
    from ..errors import printable
    from ..rootfs.describe import as_text, created_by
    from ..rootfs.usage import Waste, sizes
    from ..rootfs.walking import CurrentPath

    wastes: list[Waste] = []

    def watch() -> Waste:
        wastes.append(Waste())
        return wastes[-1]

    with opened(image, **choice) as chosen, progress_bar() as progress:
        merged = chosen.merged(verify=False, operations=watch, progress=progress)
    root = merged.tree.root
    totals = sizes(root)
    made_by = created_by(chosen.config)
    kept: Counter[int] = Counter()
    for _, _, node in _files(root):
        kept[node.layer] += node.size
    layers = [
        {
            "layer": layer.layer,
            "digest": layer.digest or layer.diff_id,
            "size": kept[layer.layer],
            "waste": wastes[-1].by_layer.get(layer.layer, 0),
            "created_by": made_by.get(layer.layer, ""),
        }
        for layer in merged.layers
    ]
    waste = sum(wastes[-1].by_layer.values())
    paths = CurrentPath(as_text if as_json else printable, choice["limits"])
    directories = _directories(root, totals, depth, paths)
    big = _largest(root, largest, paths)
    if as_json:
        document: dict[str, Any] = {"size": totals[root], "waste": waste}
        print_json(document | {"directories": directories, "layers": layers, "largest": big})
        return
    for line in _lines(totals[root], waste, directories, layers, big):
        click.echo(line)


def _lines(
    total: int,
    waste: int,
    directories: Iterable[dict[str, Any]],
    layers: list[dict[str, Any]],
    largest: Iterable[dict[str, Any]],
) -> Iterator[str]:
    """Yield the lines for people; nothing in them has 0 bytes."""
    from ..spec.digest import Digest

    brought = total + waste
    of_all = f"{size(waste)} wasted, {share(waste, brought)} of what the layers bring"
    yield f"{size(total)} in the file system; {of_all if waste else 'nothing wasted'}"
    for number, each in enumerate(each for each in directories if each["size"]):
        if not number:
            yield "\nThe file system"
        yield f"{_amount(each['size'], total)}  {'  ' * each['depth']}{each['path']}"
    for number, each in enumerate(each for each in layers if each["size"] or each["waste"]):
        if not number:
            yield "\nBy layer: what is left of it, what later layers waste of it, what made it"
        amounts = f"{_amount(each['size'], brought)} {_amount(each['waste'], brought)}"
        digest = Digest.parse(each["digest"]).short
        made_by = in_a_line(each["created_by"])
        yield f"{amounts} {each['layer']:3} {digest}  {made_by}".rstrip()
    for number, each in enumerate(each for each in largest if each["size"]):
        if not number:
            yield "\nThe largest files"
        yield f"{_amount(each['size'], total)}  {each['path']} (layer {each['layer']})"


def _amount(part: int, whole: int) -> str:
    return f"{share(part, whole):>5} {size(part):>10}" if part else f"{'-':>5} {'-':>10}"


def _files(root: Directory) -> Iterator[_Place]:
    """Yield the regular files, each once, with one of their places."""
    from ..rootfs.usage import once

    return (place for place in once(root) if place[2].kind == "file")


def _largest(root: Directory, count: int, paths: CurrentPath) -> Iterator[dict[str, Any]]:
    """Yield the largest files, those of one size by path."""
    import functools
    import heapq

    found = heapq.nlargest(count, _files(root), key=lambda file: file[2].size)
    # A path is long, and rarely needed to tell two files apart.
    for parent, name, node in sorted(found, key=functools.cmp_to_key(_order)):
        paths.start(parent.path_of(name))
        yield {"path": paths.text(), "size": node.size, "layer": node.layer}


def _order(one: _Place, other: _Place) -> int:
    if one[2].size != other[2].size:
        return other[2].size - one[2].size
    return -1 if one[0].path_of(one[1]) < other[0].path_of(other[1]) else 1


def _directories(
    root: Directory, totals: dict[Directory, int], depth: int, paths: CurrentPath
) -> Iterator[dict[str, Any]]:
    """Yield the directories, each before those in it, the largest first."""
    from ..rootfs.nodes import Directory

    todo = [root]
    while todo:
        directory = todo.pop()
        if directory.depth:
            paths.move(directory.depth - 1, directory.name)
        yield {"path": paths.text(), "size": totals[directory], "depth": directory.depth}
        if directory.depth < depth:
            below = [each for each in directory.entries.values() if isinstance(each, Directory)]
            todo += sorted(below, key=lambda each: (-totals[each], each.name))[::-1]
