"""``ociroot extract``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..merge import Progress, ProgressCallback

__all__ = ["extract"]

# Seconds between two drawings of the progress bar.
_REFRESH = 0.1


@click.command()
@click.argument("image", type=click.Path())
@click.argument("rootfs", type=click.Path())
@click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="The platform to choose, as in linux/arm/v7. Default: this machine's; a source with one "
    "image gives that one.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Exchange a directory that holds something for the result, in one step, and remove it.",
)
@click.option(
    "--strict", is_flag=True, help="Refuse an image for a warning that breaches the specification."
)
@click.option("--json", "as_json", is_flag=True, help="Print a report as one JSON document.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only: no progress, no warnings.")
@click.option("--verbose", "-v", is_flag=True, help="Tell of each layer.")
def extract(
    image: str,
    rootfs: str,
    platform: str | None,
    replace: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Extract the root file system of IMAGE to the directory ROOTFS.

    IMAGE is an oci-archive, as `skopeo copy … oci-archive:FILE` writes it; it is read in place.
    ROOTFS is an absent path, an empty directory or an empty mount point. It appears whole, when all
    of the image has been verified, or not at all.

    As root everything is restored; as an ordinary user owners and devices are left out.

    \b
    Examples:
      ociroot extract debian.tar /var/lib/machines/debian
      ociroot extract --platform linux/arm64 --json app.tar rootfs | jq .config
    """  # noqa: D301
    # Here, so that `--help` does not wait for it.
    import msgspec

    from .. import api
    from ..errors import printable

    with api.open(image) as source:
        chosen = source.image(platform, strict=strict)
        progress = nullcontext() if quiet or not sys.stderr.isatty() else _progress()
        with progress as callback:
            report = chosen.extract(rootfs, strict=strict, replace=replace, progress=callback)

    if not quiet:
        for warning in report.warnings:
            times = f" ({warning.count} times)" if warning.count > 1 else ""
            click.echo(f"ociroot: warning: {warning.message}{times}", err=True)
        if verbose:
            for number, layer in enumerate(report.layers, 1):
                sizes = f"{_size(layer.size)} {layer.compression}, {_size(layer.unpacked_size)}"
                click.echo(
                    f"layer {number}/{len(report.layers)} {layer.digest}: "
                    f"{_counted(layer.entries, 'entry', 'entries')}, {sizes} unpacked",
                    err=True,
                )
        entries = sum(layer.entries for layer in report.layers)
        unpacked = sum(layer.unpacked_size for layer in report.layers)
        click.echo(
            f"{report.platform}: {_counted(len(report.layers), 'layer')}, "
            f"{_counted(entries, 'entry', 'entries')}, "
            f"{_size(unpacked)} in {report.seconds:.1f} s → {printable(report.destination)}",
            err=True,
        )
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(report), indent=2))


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


@contextmanager
def _progress() -> Iterator[ProgressCallback]:
    """Draw a progress bar on the terminal while it is in hand."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("layer {task.fields[layer]}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, layer="")
        drawn = 0.0

        def callback(progress: Progress) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= _REFRESH:
                drawn = now
                bar.update(
                    task,
                    total=progress.total,
                    completed=progress.done,
                    layer=f"{progress.layer}/{progress.layers}",
                )
                bar.refresh()

        yield callback
