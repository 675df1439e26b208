"""``ociroot ls``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import PATH, image_options, opened, print_json, progress_bar

if TYPE_CHECKING:
    from ..api import Image
    from ..nodes import Node
    from ..tar.entry import Entry

__all__ = ["ls"]


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@image_options
@click.option("--long", "-l", "long", is_flag=True, help="Show all about each file.")
@click.option("--recursive", "-R", is_flag=True, help="List what is below directories, too.")
@click.option("--all", "-a", "everything", is_flag=True, help="Do not leave out names with a dot.")
@click.option("--directory", "-d", is_flag=True, help="List directories themselves.")
@click.option("--xattrs", is_flag=True, help="Show extended attributes, too.")
@click.option("--layer", type=click.IntRange(1), help="List a layer's own entries instead.")
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

    \b
    Examples:
      ociroot ls app.tar
      ociroot ls -l app.tar '/etc/*.conf'
      ociroot ls --layer 2 app.tar
      ociroot ls -aR --json app.tar | jq '.[] | select(.type == "file" and .mode >= "2000").path'
    """  # noqa: D301
    from ..errors import printable

    with opened(image, **choice) as chosen:
        if layer is not None:
            _list_layer(chosen, layer, long, xattrs, as_json)
            return
        with progress_bar() as progress:
            tree = chosen.merged(verify=False, progress=progress).tree

    from ..looking import described, matches
    from ..nodes import Directory

    missing = False
    sections: list[tuple[str | None, list[tuple[bytes, bytes, Node]]]] = []
    alone: list[tuple[bytes, bytes, Node]] = []
    for path in paths or ("",):
        found = matches(tree, path.encode("utf-8", "surrogateescape"))
        if not found:
            missing = True
            click.echo(f"ociroot: {printable(image)}: there is no {printable(path)}", err=True)
        for each in found:
            # A slash at the end means the directory that a link leads to, as it does to ls.
            place = tree.find(each, follow=path.endswith("/"))
            if place is None:
                continue
            if isinstance(place[2], Directory) and not directory:
                sections += _sections(each, place[2], recursive, everything)
            else:
                alone.append((each, each or b".", place[2]))
    if alone:
        sections.insert(0, (None, alone))
    if as_json:
        print_json([described(full, node) for _, listed in sections for full, _, node in listed])
    else:
        headed = len(sections) > 1 or recursive
        for number, (heading, listed) in enumerate(sections):
            if headed and heading is not None:
                click.echo(("\n" if number else "") + printable(heading) + ":")
            for line in _lines(listed, long, xattrs):
                click.echo(line)
    if missing:
        raise click.exceptions.Exit(1)


def _sections(
    path: bytes, directory: Any, recursive: bool, everything: bool
) -> Iterator[tuple[str, list[tuple[bytes, bytes, Node]]]]:
    """Yield a directory's listing, and those of the directories below it."""
    from ..looking import as_text
    from ..nodes import Directory

    todo = [(path, directory)]
    while todo:
        path, directory = todo.pop()
        listed = [
            (path + b"/" + name if path else name, name, node)
            for name, node in sorted(directory.entries.items())
            if everything or not name.startswith(b".")
        ]
        yield "/" + as_text(path), listed
        if recursive:
            below = [(full, node) for full, _, node in listed if isinstance(node, Directory)]
            todo += below[::-1]


def _lines(listed: list[tuple[bytes, bytes, Node]], long: bool, xattrs: bool) -> Iterator[str]:
    from ..errors import printable
    from ..looking import mode_string, time_string

    rows: list[tuple[list[str], Node]] = []
    for _, name, node in listed:
        size = "{}, {}".format(*node.rdev) if node.kind in ("char", "block") else str(node.size)
        shown = printable(name)
        if node.kind == "symlink" and long:
            shown += f" -> {printable(node.target)}"
        mode = mode_string(node.kind, node.mode)
        owner = (str(node.links), str(node.uid), str(node.gid))
        when = time_string(node.mtime_ns)
        rows.append(([mode, *owner, size, when, f"#{node.layer + 1}", shown], node))
    widths = [max((len(row[column]) for row, _ in rows), default=0) for column in range(7)]
    for row, node in rows:
        aligned = [text.rjust(width) for text, width in zip(row, widths, strict=False)]
        yield " ".join([*aligned, row[-1]]) if long else row[-1]
        if xattrs:
            yield from _xattr_lines(node.xattrs)


def _xattr_lines(xattrs: dict[bytes, bytes] | None) -> Iterator[str]:
    from ..errors import printable

    for name, value in sorted((xattrs or {}).items()):
        yield f"    {printable(name)}={printable(value)}"


def _list_layer(image: Image, number: int, long: bool, xattrs: bool, as_json: bool) -> None:
    """List a layer's own entries in the order of the archive."""
    from ..errors import UsageError, printable
    from ..looking import as_text, mode_string, time_string

    if number > len(image.layers):
        raise UsageError(f"there is no layer {number}, only {len(image.layers)}")
    shown: list[dict[str, Any]] = []
    for entry in image.layers[number - 1].entries():
        what = _whiteout(entry)
        if as_json:
            about = {
                "path": as_text(entry.name),
                "type": entry.kind,
                "mode": f"{entry.mode:04o}",
                "uid": entry.uid,
                "gid": entry.gid,
                "mtime_ns": entry.mtime_ns,
                "size": entry.size,
                "target": as_text(entry.target),
                "whiteout": what or None,
            }
            shown.append(about)
            continue
        line = printable(entry.name)
        if long:
            mode = mode_string(entry.kind, entry.mode)
            when = time_string(entry.mtime_ns)
            line = f"{mode} {entry.uid:5} {entry.gid:5} {entry.size:10} {when} {line}"
            arrow = " -> " if entry.kind == "symlink" else " link to "
            line += f"{arrow}{printable(entry.target)}" if entry.target else ""
        click.echo(line + (f"  ({what})" if what else ""))
        if xattrs:
            for each in _xattr_lines(entry.xattrs):
                click.echo(each)
    if as_json:
        print_json(shown)


def _whiteout(entry: Entry) -> str:
    """Return what an entry hides, in words; nothing when it is no whiteout."""
    from ..errors import MalformedImage, printable
    from ..layer.changeset import changes
    from ..notices import Notices

    try:
        found = list(changes([entry], Notices()))
    except MalformedImage as error:
        return error.problem
    if not found:
        return "ignored"
    action, parent, name, _ = found[0]
    if action == "opaque":
        return f"whiteout of all in /{printable(parent)}"
    if action == "whiteout":
        path = parent + b"/" + name if parent else name
        return f"whiteout of /{printable(path)}"
    return ""
