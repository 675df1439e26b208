"""Shared code of the commands: opening images, and output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .. import Image, ImageWarning, OpenedSource, Progress, ProgressCallback
    from .options import Choice

__all__ = [
    "counted",
    "in_a_line",
    "opened",
    "opened_source",
    "print_json",
    "progress_bar",
    "share",
    "size",
    "warn",
]

# The maximum number of characters of a command that are shown, and that are processed for it.
_LINE = 150
_LINE_READ = 10_000

# The number of characters of JSON that are buffered.
_AT_ONCE = 16 << 10

# Seconds between two drawings of the progress bar.
_REFRESH = 0.1


@contextmanager
def opened_source(image: str, choice: Choice, *, quiet: bool = False) -> Iterator[OpenedSource]:
    """Open the source that IMAGE names."""
    # Here, so that `--help` does not wait for it.
    from .. import open as open_source

    with progress_bar(quiet) as callback:
        source = open_source(image, choice.source, progress=callback)
    with source:
        yield source


@contextmanager
def opened(
    image: str, choice: Choice, *, strict: bool = False, quiet: bool = False
) -> Iterator[Image]:
    """Open the source that IMAGE names, and select the image by the options."""
    with opened_source(image, choice, quiet=quiet) as source:
        yield source.image(choice.selector, strict=strict)


def print_json(value: Any) -> None:
    """Print a value of structs and plain types as one JSON document.

    An iterator, as the value or inside it, is printed as an array element by element, so that
    arrays whose length the image determines are not kept in memory.
    """
    pieces: list[str] = []
    length = 0
    for piece in _json_pieces(value, "\n"):
        pieces.append(piece)
        length += len(piece)
        if length > _AT_ONCE:
            click.echo("".join(pieces), nl=False)
            pieces.clear()
            length = 0
    click.echo("".join(pieces))


def _json_pieces(value: Any, newline: str) -> Iterator[str]:
    """Yield the text of a value, indented.

    `json.dumps(value, indent=2)` creates reference cycles in each call, which keep the value in
    memory because the command disables the garbage collector.
    """
    import json

    import msgspec

    deeper = newline + "  "
    if not isinstance(value, dict | list | Iterator):
        value = msgspec.to_builtins(value, enc_hook=str)
    if isinstance(value, dict) and value:
        before = "{"
        for name, each in value.items():
            yield f"{before}{deeper}{json.dumps(name)}: "
            yield from _json_pieces(each, deeper)
            before = ","
        yield newline + "}"
    elif isinstance(value, list | Iterator):
        before = "["
        for each in value:
            yield before + deeper
            yield from _json_pieces(each, deeper)
            before = ","
        yield "[]" if before == "[" else newline + "]"
    else:
        yield json.dumps(value)


def warn(warnings: tuple[ImageWarning, ...]) -> None:
    """Print warnings on stderr."""
    for warning in warnings:
        times = f" ({warning.count} times)" if warning.count > 1 else ""
        click.echo(f"ociroot: warning: {warning.message}{times}", err=True)


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun in the singular or plural."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def size(size: float) -> str:
    """Return a human-readable size in bytes."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def share(part: int, whole: int) -> str:
    """Return a human-readable percentage."""
    percent = 100 * part / whole if whole else 0
    return f"{percent:.0f} %" if percent >= 1 or not part else "<1 %"


def in_a_line(words: str) -> str:
    """Return text of an image, such as the command that created a layer, as one short line."""
    from .. import printable

    return printable(" ".join(words[:_LINE_READ].split()))[:_LINE]


def progress_bar(quiet: bool = False) -> AbstractContextManager[ProgressCallback | None]:
    """Return a context manager of a progress callback: None without a terminal, or if quiet."""
    return nullcontext() if quiet or not sys.stderr.isatty() else _bar()


@contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.fields[what]}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, what="")
        drawn = 0.0

        def draw(progress: Progress) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= _REFRESH:
                drawn = now
                what = {"source": "decompressing", "export": "writing"}.get(progress.stage)
                what = what or f"layer {progress.layer}/{progress.layers}"
                total = progress.total or None
                bar.update(task, total=total, completed=progress.done, what=what)
                bar.refresh()

        yield draw
