"""``ociroot ls``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .commands import Command
from .common import opened, print_json, progress_bar
from .entries import LayerListing, xattr_lines
from .options import PATH, grouped, image_options

if TYPE_CHECKING:
    from .. import Directory, DirectoryListing, Image, Merged, Node
    from .options import Choice

__all__ = ["ls"]


class _How(NamedTuple):
    """Options of the listing."""

    long: bool
    recursive: bool
    everything: bool
    directory: bool
    xattrs: bool
    layer: int | None
    as_json: bool


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@image_options
@grouped("how", _How)
@click.option("--long", "-l", "long", is_flag=True, help="Show all attributes of each file.")
@click.option("--recursive", "-R", is_flag=True, help="List directories recursively.")
@click.option(
    "--all", "-a", "everything", is_flag=True, help="Include names that begin with a dot."
)
@click.option("--directory", "-d", is_flag=True, help="List directories instead of their entries.")
@click.option("--xattrs", is_flag=True, help="Show extended attributes.")
@click.option(
    "--layer",
    type=click.IntRange(1),
    metavar="N",
    help="List the entries of this layer instead, as in its archive.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the entries.")
def ls(image: str, paths: tuple[str, ...], choice: Choice, how: _How) -> None:
    """List files of IMAGE after all its layers have been applied.

    PATH is a path from the root or a pattern with `*`, `?` and `[…]`; by default the root. Owners
    are numbers, times are UTC, and the layer is the one that added the file, counted from 1.

    Compressed layers are verified; of plain ones in an archive only the headers are read.

    With --layer, the entries of this layer are listed in the order of its archive, even if a later
    layer removes them, including its whiteouts and what they remove; with PATH, those that match
    and everything below them. The layer is verified first.

    \b
    Examples:
      ociroot ls app.tar
      ociroot ls -l app.tar '/etc/*.conf'
      ociroot ls --layer 2 app.tar
      ociroot ls -aR --json app.tar | jq '.[] | select(.type == "file" and .mode >= "2000").path'
    """  # noqa: D301
    with opened(image, choice) as chosen:
        if how.layer is not None:
            listing = LayerListing(paths, how.long, how.xattrs)
            _list_layer(chosen, how.layer, listing, how.as_json)
            return
        with progress_bar() as progress:
            merged = chosen.merged(verify=False, progress=progress)

    found = _find(image, paths or ("",), merged, how.directory)
    if how.as_json:
        print_json(_described(merged, found, how))
    else:
        for line in _lines(merged, found, how):
            click.echo(line)
    if found.missing:
        raise click.exceptions.Exit(1)


class _Found(NamedTuple):
    """The files that the paths match.

    Attributes:
        alone: the files that are listed themselves.
        directories: the directories whose entries are listed.
        missing: whether a path matches nothing.
    """

    alone: list[tuple[bytes, Node]]
    directories: list[tuple[bytes, Directory]]
    missing: bool


def _find(image: str, paths: tuple[str, ...], merged: Merged, directory: bool) -> _Found:
    from .. import Directory, printable

    missing = False
    alone: list[tuple[bytes, Node]] = []
    directories: list[tuple[bytes, Directory]] = []
    for path in paths:
        # A slash at the end means the directory that a link leads to, as it does to ls.
        found = merged.glob(path, follow=path.endswith("/"))
        if not found:
            missing = True
            click.echo(f"ociroot: {printable(image)}: there is no {printable(path)}", err=True)
        for each, (_, _, node) in found:
            if isinstance(node, Directory) and not directory:
                directories.append((each, node))
            else:
                alone.append((each, node))
    return _Found(alone, directories, missing)


def _described(merged: Merged, found: _Found, how: _How) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each entry."""
    from .. import as_text
    from .describe import described

    for path, node in found.alone:
        yield described("/" + as_text(path), node)
    for directory in _walk(merged, found, how):
        for text, node in directory.paths():
            yield described(text, node)


def _walk(merged: Merged, found: _Found, how: _How) -> Iterator[DirectoryListing]:
    from .. import as_text, printable

    show = as_text if how.as_json else printable
    return merged.walk(found.directories, recursive=how.recursive, hidden=how.everything, show=show)


def _lines(merged: Merged, found: _Found, how: _How) -> Iterator[str]:
    """Yield the lines of text, with a heading for each directory if there are several."""
    yield from _table([(path or b".", node) for path, node in found.alone], how)
    headed = len(found.directories) + bool(found.alone) > 1 or how.recursive
    between = "\n" if found.alone else ""
    for directory in _walk(merged, found, how):
        if headed:
            yield f"{between}{directory.path}:"
        yield from _table(directory.entries, how)
        between = "\n"


def _table(listed: list[tuple[bytes, Node]], how: _How) -> Iterator[str]:
    """Yield a line for each entry, the columns aligned."""
    from .. import printable

    widths = [0] * 7
    for _, node in listed if how.long else ():
        widths = [*map(max, widths, map(len, _columns(node)))]
    for name, node in listed:
        shown = printable(name)
        if how.long:
            aligned = map(str.rjust, _columns(node), widths)
            target = f" -> {printable(node.target)}" if node.kind == "symlink" else ""
            shown = " ".join([*aligned, shown + target])
        yield shown
        if how.xattrs:
            yield from xattr_lines(node.xattrs)


def _columns(node: Node) -> list[str]:
    from .describe import mode_string, time_string

    size = "{}, {}".format(*node.rdev) if node.kind in ("char", "block") else str(node.size)
    owner = [str(node.links), str(node.uid), str(node.gid)]
    return [mode_string(node), *owner, size, time_string(node.mtime_ns), f"#{node.layer}"]


def _list_layer(image: Image, number: int, listing: LayerListing, as_json: bool) -> None:
    """List the entries of a layer after it was verified."""
    from .. import printable

    changes = image.verified_layer(number).changes()
    if as_json:
        listing.print_json(changes)
    else:
        for line in listing.show(changes):
            click.echo(line)
    for path in listing.missing.values():
        click.echo(f"ociroot: layer {number} has no {printable(path)}", err=True)
    if listing.missing:
        raise click.exceptions.Exit(1)
