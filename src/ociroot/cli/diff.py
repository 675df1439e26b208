"""``ociroot diff``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from .commands import Command
from .common import opened, opened_source, print_json, progress_bar, size
from .options import PATH, grouped, image_options

if TYPE_CHECKING:
    from .. import Config, ConfigDifference, Difference, Image, Snapshot
    from .options import Choice

__all__ = ["diff"]

_T = TypeVar("_T")

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


class _Other(NamedTuple):
    """The selection of the other image."""

    other_platform: str | None
    other_ref: str | None
    other_digest: str | None

    @property
    def is_named(self) -> bool:
        return any(each is not None for each in self)

    def choice(self, choice: Choice) -> Choice:
        """Return the options for both images, overridden by those for the other one."""
        if self.other_ref is not None or self.other_digest is not None:
            choice = choice._replace(ref=self.other_ref or "", digest=self.other_digest or "")
        return choice._replace(platform=self.other_platform or choice.platform)


class _How(NamedTuple):
    """Options of the comparison."""

    layers: str | None
    mtime: bool
    name_only: bool
    as_json: bool


class _Side(NamedTuple):
    """An image that is compared."""

    files: Snapshot
    config: Config


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("other", type=PATH, required=False)
@image_options
@grouped("others", _Other)
@grouped("how", _How)
@click.option("--other-platform", metavar="[OS/]ARCH[/VARIANT]", help="The platform of OTHER.")
@click.option("--other-ref", metavar="NAME", help="The name of the other image.")
@click.option("--other-digest", metavar="DIGEST", help="The digest of the other image.")
@click.option(
    "--layers",
    metavar="M..N",
    help="Compare IMAGE after layer M with itself after layer N; 0 is before the first.",
)
@click.option("--mtime", is_flag=True, help="Compare modification times, too.")
@click.option("--name-only", is_flag=True, help="Print only the paths.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def diff(image: str, other: str | None, choice: Choice, others: _Other, how: _How) -> None:
    """Show the differences between two images, IMAGE and OTHER.

    The output has a line for each path: + added, - removed, ~ changed (type, content, mode, owner,
    size, target, device, xattrs), with the sizes of files. Then, below `Configuration`, a line for
    each setting: user, environment, entrypoint, command, platform … The exit code is 1 if there is
    a difference, as with diff(1), even if only the configuration differs.

    The options that select an image apply to both, unless --other-ref, --other-digest or
    --other-platform override them; with one of these OTHER may be omitted: it is another image of
    IMAGE. A name or a digest of the other image overrides both --ref and --digest for it.

    The JSON document has `files`, an array of the paths, and `config`, one of the settings, with
    `before` and `after` (null: not set).

    \b
    Examples:
      ociroot diff app-1.tar app-2.tar
      ociroot diff --ref app:1 --other-ref app:2 apps.tar
      ociroot diff --layers 1..2 app.tar
    """  # noqa: D301
    from .. import as_text, compare_configs, printable

    if how.layers is not None:
        if other is not None or others.is_named:
            raise click.UsageError("--layers compares IMAGE with itself: there is no other image")
        with opened(image, choice) as chosen, progress_bar() as progress:
            numbers = _range(how.layers, len(chosen.layers))
            sides = [_Side(e, chosen.config) for e in chosen.snapshots(*numbers, progress=progress)]
    else:
        if other is None and not others.is_named:
            raise click.UsageError("give a second image, or --layers M..N of one")
        sides = list(_both(image, other, choice, others.choice(choice)))

    found = 0

    def counting(differences: Iterator[_T]) -> Iterator[_T]:
        nonlocal found
        for each in differences:
            found += 1
            yield each

    before, after = sides
    show = as_text if how.as_json else printable
    files = counting(before.files.compare(after.files, mtime=how.mtime, show=show))
    config = counting(compare_configs(before.config, after.config))
    if how.as_json:
        print_json({"files": files, "config": config})
    elif how.name_only:
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

    from .. import printable

    heading = "\nConfiguration" if after_files else "Configuration"
    for each in differences:
        if heading:
            click.echo(heading)
            heading = ""
        name = f"{each.field} {each.name}".rstrip()
        # The object of a volume or a port is always empty.
        values = [v for v in (each.before, each.after) if v is not None and not isinstance(v, dict)]
        shown = " → ".join(json.dumps(value, ensure_ascii=False) for value in values)
        click.echo(printable(f"{_SIGNS[each.change]} {name}{': ' if shown else ''}{shown}"))


def _both(image: str, other: str | None, choice: Choice, second: Choice) -> Iterator[_Side]:
    """Read the two images sequentially."""
    if other is not None:
        for name, wanted in ((image, choice), (other, second)):
            with opened(name, wanted) as chosen:
                yield _side(chosen)
    else:
        # Opened once, because it may be standard input.
        with opened_source(image, choice) as source:
            for wanted in (choice, second):
                yield _side(source.image(wanted.selector))


def _side(image: Image) -> _Side:
    with progress_bar() as progress:
        return _Side(image.snapshot(progress=progress), image.config)


def _range(text: str, count: int) -> tuple[int, int]:
    """Parse ``M..N``."""
    match = re.fullmatch(r"(\d{1,6})\.\.(\d{1,6})", text)
    if match is None or not all(int(number) <= count for number in match.groups()):
        raise click.UsageError(f"--layers is M..N, with numbers from 0 to {count}")
    return int(match[1]), int(match[2])
