"""``ociroot diff``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .commands import Command
from .common import PATH, image_options, opened, opened_source, print_json, progress_bar, size

if TYPE_CHECKING:
    from ..api.image import Image
    from ..api.layer import Layer
    from ..rootfs.compare import ConfigDifference, Difference, Hashing, Side
    from ..rootfs.tree import Tree
    from ..spec.config import Config

__all__ = ["diff"]

_T = TypeVar("_T")

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("other", type=PATH, required=False)
@image_options
@click.option("--other-platform", metavar="[OS/]ARCH[/VARIANT]", help="The platform of OTHER.")
@click.option("--other-ref", metavar="NAME", help="The name of the other image.")
@click.option("--other-digest", metavar="DIGEST", help="The digest of the other image.")
@click.option(
    "--layers",
    metavar="M..N",
    help="Compare IMAGE after its layer M with itself after layer N; 0 is before the first.",
)
@click.option("--mtime", is_flag=True, help="Another modification time is a difference, too.")
@click.option("--name-only", is_flag=True, help="Print the paths alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def diff(
    image: str,
    other: str | None,
    other_platform: str | None,
    other_ref: str | None,
    other_digest: str | None,
    layers: str | None,
    mtime: bool,
    name_only: bool,
    as_json: bool,
    **choice: Any,
) -> None:
    """Show how two images, IMAGE and OTHER, differ.

    A line for each path: + added, - removed, ~ changed (type, content, mode, owner, size, target,
    device, xattrs), with the sizes of files. Then, below `Configuration`, a line for each setting
    that a container starts with: user, environment, entrypoint, command, platform … Exits with 1
    when there is a difference, as diff(1) does, also when only the configuration differs.

    The options that choose an image are for both, but where --other-ref, --other-digest or
    --other-platform say otherwise; with one of these OTHER may be left out: it is another image of
    IMAGE. A name or a digest of the other image replaces both --ref and --digest for it.

    The JSON document has `files`, an array of the paths, and `config`, one of the settings, with
    `before` and `after` (null: not set).

    \b
    Examples:
      ociroot diff app-1.tar app-2.tar
      ociroot diff --ref app:1 --other-ref app:2 apps.tar
      ociroot diff --layers 1..2 app.tar
    """  # noqa: D301
    from ..errors import printable
    from ..rootfs.compare import compare, compare_configs
    from ..rootfs.describe import as_text

    others = (other_platform, other_ref, other_digest)
    if layers is not None:
        if other is not None or any(each is not None for each in others):
            raise click.UsageError("--layers compares IMAGE with itself: there is no other image")
        with opened(image, **choice) as chosen:
            before, after = _after_layers(chosen, *_range(layers, len(chosen.layers)))
            configs = (chosen.config, chosen.config)
    else:
        if other is None and all(each is None for each in others):
            raise click.UsageError("give a second image, or --layers M..N of one")
        before, after, configs = _both(image, other, others, choice)

    found = 0

    def counting(differences: Iterator[_T]) -> Iterator[_T]:
        nonlocal found
        for each in differences:
            found += 1
            yield each

    show = as_text if as_json else printable
    files = counting(compare(before, after, mtime=mtime, show=show, limits=choice["limits"]))
    config = counting(compare_configs(*configs))
    if as_json:
        print_json({"files": files, "config": config})
    elif name_only:
        for file in files:
            click.echo(file.path)
        for _ in config:
            pass
    else:
        for file in files:
            click.echo(_file_line(file))
        _show_settings(config, after_files=bool(found))
    if found:
        raise click.exceptions.Exit(1)


def _file_line(difference: Difference) -> str:
    what = f"  ({', '.join(difference.what)})" if difference.what else ""
    sizes = ""
    if difference.size_before != difference.size_after:
        sizes = f"  {size(difference.size_before)} → {size(difference.size_after)}"
    return f"{_SIGNS[difference.change]} {difference.path}{what}{sizes}"


def _show_settings(differences: Iterator[ConfigDifference], *, after_files: bool) -> None:
    import json

    from ..errors import printable

    heading = "\nConfiguration" if after_files else "Configuration"
    for each in differences:
        if heading:
            click.echo(heading)
            heading = ""
        name = f"{each.field} {each.name}".rstrip()
        # An object says nothing beside its key: a volume, a port.
        values = [v for v in (each.before, each.after) if v is not None and not isinstance(v, dict)]
        shown = " → ".join(json.dumps(value, ensure_ascii=False) for value in values)
        click.echo(printable(f"{_SIGNS[each.change]} {name}{': ' if shown else ''}{shown}"))


def _both(
    image: str, other: str | None, others: tuple[str | None, ...], choice: dict[str, Any]
) -> tuple[Side, Side, tuple[Config, Config]]:
    """Read the two images, one after the other."""
    platform, ref, digest = others
    second = {**choice, "platform": platform or choice["platform"]}
    if ref is not None or digest is not None:
        second |= {"ref": ref or "", "digest": digest or ""}
    sides: list[Side] = []
    configs: list[Config] = []

    def read(chosen: Image) -> None:
        sides.append(_after_layers(chosen, len(chosen.layers))[0])
        configs.append(chosen.config)

    if other is not None:
        for name, options in ((image, choice), (other, second)):
            with opened(name, **options) as chosen:
                read(chosen)
    else:
        # Once: it may be standard input.
        sources = {name: choice[name] for name in ("shared_blob_dir", "tmpdir", "limits")}
        with opened_source(image, **sources) as source:
            for options in (choice, second):
                wanted = {name: options[name] for name in ("platform", "ref", "digest")}
                read(source.image(**wanted))
    return sides[0], sides[1], (configs[0], configs[1])


def _range(text: str, count: int) -> tuple[int, int]:
    """Read ``M..N``."""
    match = re.fullmatch(r"(\d{1,6})\.\.(\d{1,6})", text)
    if match is None or not all(int(number) <= count for number in match.groups()):
        raise click.UsageError(f"--layers is M..N, with numbers from 0 to {count}")
    return int(match[1]), int(match[2])


def _after_layers(image: Image, *numbers: int) -> list[Side]:
    """Return what is there after each of these layers, in one pass over all of them."""
    from ..rootfs.compare import Hashing, Side
    from ..rootfs.nodes import Directory

    hashings: list[Hashing] = []
    found: dict[int, Side] = {}
    applied = 0

    def start() -> Hashing:
        nonlocal applied
        applied = 0
        found.clear()
        found[0] = Side(Directory(None, b"", 0), {})
        hashings.append(Hashing())
        return hashings[-1]

    def look(tree: Tree, layer: Layer) -> None:
        nonlocal applied
        applied += 1
        if applied in numbers:
            # Further layers would change it.
            hashing, last = hashings[-1], applied == len(image.layers)
            found[applied] = Side(tree.root, hashing.digests) if last else hashing.side(tree.root)

    with progress_bar() as progress:
        image.merged(operations=start, after_layer=look, progress=progress)
    return [found[number] for number in numbers]
