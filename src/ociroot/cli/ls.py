"""``ociroot ls``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar
from .entries import LayerListing, xattr_lines

if TYPE_CHECKING:
    from ..api.image import Image
    from ..rootfs.lookup import Lookup
    from ..rootfs.nodes import Directory, Node
    from ..rootfs.tree import Tree
    from ..rootfs.walking import CurrentPath

__all__ = ["ls"]

# Steps on the way to paths that an entry counts that is listed again: that is as much work.
_AGAIN = 20


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@image_options
@click.option("--long", "-l", "long", is_flag=True, help="Show all about each file.")
@click.option("--recursive", "-R", is_flag=True, help="List what is below directories, too.")
@click.option("--all", "-a", "everything", is_flag=True, help="Do not leave out names with a dot.")
@click.option("--directory", "-d", is_flag=True, help="List directories themselves.")
@click.option("--xattrs", is_flag=True, help="Show extended attributes, too.")
@click.option(
    "--layer",
    type=click.IntRange(1),
    metavar="N",
    help="List the layer's own entries instead, as its archive has them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the entries.")
def ls(
    image: str,
    paths: tuple[str, ...],
    long: bool,
    recursive: bool,
    everything: bool,
    directory: bool,
    xattrs: bool,
    layer: int | None,
    as_json: bool,
    **choice: Any,
) -> None:
    """List files of IMAGE, as they are when all its layers are applied.

    PATH is a path from the root or a pattern with `*`, `?` and `[…]`; by default the root. Owners
    are numbers, times are UTC, and the layer is the one that brought the file, counted from 1.

    Compressed layers are verified; of plain ones in an archive only the headers are read.

    With --layer, what this layer brought is listed, also where a later one removes it, and its
    whiteouts with what they hide: all its entries in their order, or those that PATH means with
    all below. The layer is verified first.

    \b
    Examples:
      ociroot ls app.tar
      ociroot ls -l app.tar '/etc/*.conf'
      ociroot ls --layer 2 app.tar
      ociroot ls -aR --json app.tar | jq '.[] | select(.type == "file" and .mode >= "2000").path'
    """  # noqa: D301
    with opened(image, **choice) as chosen:
        if layer is not None:
            _list_layer(chosen, layer, LayerListing(paths, long, xattrs), as_json)
            return
        with progress_bar() as progress:
            tree = chosen.merged(verify=False, progress=progress).tree

    alone, directories, missing = _found(image, paths or ("",), tree, directory)
    rows = _Rows(tree.lookup, long, xattrs, everything, recursive)
    if as_json:
        print_json(rows.described(alone, directories))
    else:
        for line in rows.lines(alone, directories):
            click.echo(line)
    if missing:
        raise click.exceptions.Exit(1)


def _found(
    image: str, paths: tuple[str, ...], tree: Tree, directory: bool
) -> tuple[list[tuple[bytes, Node]], list[tuple[bytes, Directory]], bool]:
    """Return what the paths mean: what is listed itself, and the directories to be listed.

    Returns:
        The two, and whether a path means nothing.
    """
    from ..errors import printable
    from ..rootfs.glob import glob
    from ..rootfs.nodes import Directory

    missing = False
    alone: list[tuple[bytes, Node]] = []
    directories: list[tuple[bytes, Directory]] = []
    for path in paths:
        # A slash at the end means the directory that a link leads to, as it does to ls.
        raw = path.encode("utf-8", "surrogateescape")
        found = glob(tree, raw, follow=path.endswith("/"))
        if not found:
            missing = True
            click.echo(f"ociroot: {printable(image)}: there is no {printable(path)}", err=True)
        for each, (_, _, node) in found:
            if isinstance(node, Directory) and not directory:
                directories.append((each, node))
            else:
                alone.append((each, node))
    return alone, directories, missing


class _Rows:
    """Lists files and directories, one after the other: a listing is never held whole."""

    def __init__(
        self, lookup: Lookup, long: bool, xattrs: bool, everything: bool, recursive: bool
    ) -> None:
        self._lookup = lookup
        # A pattern may lead to one directory by many links.
        self._listed: set[Directory] = set()
        self._long = long
        self._xattrs = xattrs
        self._everything = everything
        self._recursive = recursive

    def described(
        self, alone: list[tuple[bytes, Node]], directories: list[tuple[bytes, Directory]]
    ) -> Iterator[dict[str, Any]]:
        """Yield what programs want to know of each entry."""
        from ..rootfs.describe import as_text, described
        from ..rootfs.walking import CurrentPath

        current = CurrentPath(as_text, self._lookup.limits)
        for path, node in alone:
            current.start(path)
            yield described(current.text(), node)
        for path, directory in directories:
            for depth, listed in self._walk(current, path, directory):
                for name, node in listed:
                    current.move(depth, name)
                    yield described(current.text(), node)

    def lines(
        self, alone: list[tuple[bytes, Node]], directories: list[tuple[bytes, Directory]]
    ) -> Iterator[str]:
        """Yield the lines for people: a heading for each directory, where there are several."""
        from ..errors import printable
        from ..rootfs.walking import CurrentPath

        current = CurrentPath(printable, self._lookup.limits)
        yield from self._table([(path or b".", node) for path, node in alone])
        headed = len(directories) + bool(alone) > 1 or self._recursive
        between = "\n" if alone else ""
        for path, directory in directories:
            for _, listed in self._walk(current, path, directory):
                if headed:
                    yield f"{between}{current.text()}:"
                yield from self._table(listed)
                between = "\n"

    def _walk(
        self, current: CurrentPath, path: bytes, directory: Directory
    ) -> Iterator[tuple[int, list[tuple[bytes, Node]]]]:
        """Go to a directory, and to those below it; yield the depth of its entries, and them."""
        from ..rootfs.nodes import Directory

        depth = current.start(path)
        todo = [(depth, b"", directory)]
        while todo:
            depth, name, directory = todo.pop()
            if name:
                current.move(depth - 1, name)
            if directory in self._listed:
                self._lookup.spend(_AGAIN * len(directory.entries))
            self._listed.add(directory)
            listed = [
                each
                for each in sorted(directory.entries.items())
                if self._everything or not each[0].startswith(b".")
            ]
            yield depth, listed
            if self._recursive:
                todo += [
                    (depth + 1, name, node)
                    for name, node in reversed(listed)
                    if isinstance(node, Directory)
                ]

    def _table(self, listed: list[tuple[bytes, Node]]) -> Iterator[str]:
        """Yield a line for each entry, the columns aligned."""
        from ..errors import printable

        widths = [0] * 7
        for _, node in listed if self._long else ():
            widths = [*map(max, widths, map(len, _columns(node)))]
        for name, node in listed:
            shown = printable(name)
            if self._long:
                aligned = map(str.rjust, _columns(node), widths)
                target = f" -> {printable(node.target)}" if node.kind == "symlink" else ""
                shown = " ".join([*aligned, shown + target])
            yield shown
            if self._xattrs:
                yield from xattr_lines(node.xattrs)


def _columns(node: Node) -> list[str]:
    from ..rootfs.describe import mode_string, time_string

    size = "{}, {}".format(*node.rdev) if node.kind in ("char", "block") else str(node.size)
    owner = [str(node.links), str(node.uid), str(node.gid)]
    when = time_string(node.mtime_ns)
    return [mode_string(node.kind, node.mode), *owner, size, when, f"#{node.layer}"]


def _list_layer(image: Image, number: int, listing: LayerListing, as_json: bool) -> None:
    """List a layer's own entries, once it has been verified."""
    from ..errors import printable

    entries = image.verified_layer(number).entries()
    if as_json:
        listing.print_json(entries)
    else:
        for line in listing.show(entries):
            click.echo(line)
    for path in listing.missing.values():
        click.echo(f"ociroot: layer {number} has no {printable(path)}", err=True)
    if listing.missing:
        raise click.exceptions.Exit(1)
