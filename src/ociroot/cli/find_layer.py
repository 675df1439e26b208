"""``ociroot find-layer``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import click

from .commands import Command
from .common import PATH, image_options, in_a_line, opened, print_json, progress_bar

if TYPE_CHECKING:
    from ..api.layer import Layer
    from ..limits import Limits
    from ..rootfs.events import LayerEvents, Name
    from ..rootfs.nodes import Node
    from ..rootfs.operations import NoOperations
    from ..rootfs.tree import Tree
    from ..rootfs.walking import CurrentPath

__all__ = ["find_layer"]

_SIGNS = {"added": "+", "removed": "-"}


@click.command("find-layer", cls=Command)
@click.argument("image", type=PATH)
@click.argument("path", required=False)
@image_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the events.")
def find_layer(image: str, path: str | None, as_json: bool, **choice: Any) -> None:
    """Tell which layers of IMAGE brought, changed and removed PATH, and what made them.

    PATH is a path from the root, or a pattern with `*`, `?` and `[…]`: then there is a line for
    each path that it means, + added, - removed, ~ replaced. Without PATH all are listed that each
    layer adds, removes and replaces. Where a layer changes nothing but the attributes of a
    directory is told of a single path alone.

    Links on the way to PATH are followed, those in a pattern before its first `*`, `?` or `[`. A
    link at the end is what is asked about. What made a layer is what the image's history says.

    \b
    Examples:
      ociroot find-layer app.tar /etc/passwd
      ociroot find-layer app.tar '/usr/lib/*/libssl*'
      ociroot find-layer --json app.tar | jq -r '.[] | select(.event == "removed").path'
    """  # noqa: D301
    from ..errors import printable
    from ..rootfs.describe import as_text, created_by
    from ..rootfs.glob import is_glob
    from ..rootfs.walking import CurrentPath

    raw = path.encode("utf-8", "surrogateescape") if path is not None else None
    single = raw is not None and not is_glob(raw)
    search: _Search = _One(raw or b"") if single else _Many(raw, choice["limits"])
    with opened(image, **choice) as chosen, progress_bar() as progress:
        merged = chosen.merged(
            verify=False, operations=search.start, after_layer=search.look, progress=progress
        )
    made_by = created_by(chosen.config)
    current = CurrentPath(as_text if as_json else printable, choice["limits"])
    found = 0

    def events() -> Iterator[dict[str, Any]]:
        nonlocal found
        for layer in merged.layers:
            number = layer.layer
            about = {"layer": number, "digest": layer.digest or layer.diff_id}
            for event in search.events(number, current):
                found += 1
                made = {"created_by": made_by.get(number), "path": current.text()}
                yield {**about, "event": event, **made}

    if as_json:
        print_json(events())
    else:
        for line in _one_lines(events()) if single else _many_lines(events()):
            click.echo(line)
    if path is not None and not found:
        click.echo(f"ociroot: {printable(image)}: no layer has {printable(path)}", err=True)
        raise click.exceptions.Exit(1)


def _one_lines(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    from ..errors import printable

    for event in events:
        yield f"layer {event['layer']} {event['digest']}: {event['event']}"
        if event["created_by"]:
            yield f"    {printable(event['created_by'])}"


def _many_lines(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    layer = 0
    for event in events:
        if event["layer"] != layer:
            layer = event["layer"]
            yield f"layer {layer} {event['digest']}"
            if event["created_by"]:
                yield f"    {in_a_line(event['created_by'])}"
        what = event["event"]
        more = f"  ({what})" if what not in _SIGNS else ""
        yield f"{_SIGNS.get(what, '~')} {event['path']}{more}"


class _Search(Protocol):
    """What is gathered while the layers are applied, and what it comes to."""

    def start(self) -> NoOperations:
        """Begin, and again when the work starts over; return what is told what the tree does."""

    def look(self, tree: Tree, layer: Layer) -> None:
        """See the tree as a layer has left it."""

    def events(self, number: int, current: CurrentPath) -> Iterator[str]:
        """Yield what a layer has done to each path, which is moved to."""


class _One:
    """Searches for one path."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._events: list[str] = []
        self._before: tuple[Node | None, tuple[Any, ...]] = (None, ())

    def start(self) -> NoOperations:
        from ..rootfs.operations import NoOperations

        self._events.clear()
        self._before = (None, ())
        return NoOperations()

    def look(self, tree: Tree, layer: Layer) -> None:
        from ..rootfs.events import happened

        place = tree.find(self._path, follow=False)
        node = place[2] if place is not None else None
        # A directory's node lives on when a layer gives it other attributes.
        now = (node, _attributes(node) if node is not None else ())
        what = happened(self._before[0], node)
        if not what and self._before != now:
            what = "attributes changed"
        self._events.append(what)
        self._before = now

    def events(self, number: int, current: CurrentPath) -> Iterator[str]:
        from ..tar.names import clean

        if self._events[number - 1]:
            current.start(clean(self._path))
            yield self._events[number - 1]


def _attributes(node: Node) -> tuple[Any, ...]:
    return (node.mode, node.uid, node.gid, node.mtime_ns, dict(node.xattrs or {}))


class _Many:
    """Searches for the paths that a pattern means, or for all."""

    def __init__(self, pattern: bytes | None, limits: Limits) -> None:
        """Begin.

        Args:
            pattern: the pattern; None: all.
            limits: on the memory that what is found may take.
        """
        from ..rootfs.glob import is_glob

        parts = (pattern or b"").split(b"/")
        first = next((n for n, part in enumerate(parts) if is_glob(part)), 0)
        self._all = pattern is None
        self._limits = limits
        self._begin, self._rest = b"/".join(parts[:first]), b"/".join(parts[first:])
        self._gathering: LayerEvents | None = None
        # Of each layer, what it does, and the directories in which the pattern begins.
        self._layers: list[tuple[Name, list[list[bytes]]]] = []
        self._under: list[list[bytes]] = []

    def start(self) -> NoOperations:
        from ..rootfs.events import LayerEvents

        self._layers.clear()
        self._under = []
        self._gathering = LayerEvents(self._limits)
        return self._gathering

    def look(self, tree: Tree, layer: Layer) -> None:
        from ..rootfs.nodes import Directory

        assert self._gathering is not None  # noqa: S101
        place = tree.find(self._begin)
        before, self._under = self._under, []
        if place is not None and isinstance(place[2], Directory):
            self._under = [[name for name in place[2].path().split(b"/") if name]]
        both = before + [each for each in self._under if each not in before]
        self._layers.append((self._gathering.take(), both))

    def events(self, number: int, current: CurrentPath) -> Iterator[str]:
        from ..rootfs.glob import PathPattern

        top, under = self._layers[number - 1]
        if self._all:
            yield from top.events(current)
            return
        patterns = [PathPattern(self._rest, under=each) for each in under]
        yield from top.events(
            current, lambda names: any(each.matches_names(names) for each in patterns)
        )
