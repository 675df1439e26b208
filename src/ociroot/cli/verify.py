"""``ociroot verify``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .commands import Command
from .common import counted, opened_source, print_json, progress_bar, warn
from .options import PATH, image_options

if TYPE_CHECKING:
    from .. import Image, OpenedSource
    from .options import Choice

__all__ = ["verify"]


@click.command(cls=Command)
@click.argument("image", type=PATH)
@image_options
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Verify every image of the source, and report unreadable ones.",
)
@click.option(
    "--strict", is_flag=True, help="Refuse an image that violates the specification with a warning."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of the results.")
def verify(image: str, everything: bool, strict: bool, as_json: bool, choice: Choice) -> None:
    """Check everything in IMAGE that extraction would check, without writing anything.

    This includes documents, digests, sizes, diff_ids, the format of every layer, and whether its
    changes can be applied. The exit code is 0, or that of the first failure: 3 malformed, 4
    verification failed, 5 not supported, 6 a limit was exceeded.

    \b
    Examples:
      ociroot verify app.tar
      ociroot verify --all --strict layout/
    """  # noqa: D301
    from .. import OcirootError, printable

    outcomes: list[dict[str, Any]] = []
    code = 0
    with opened_source(image, choice) as source:
        if everything and (choice.ref or choice.digest or source.ref):
            raise click.UsageError("--all verifies every image; it excludes a name or a digest")
        for outcome, load in _chosen(source, everything, strict, choice):
            try:
                chosen = load()
                outcome |= {"digest": str(chosen.digest), "platform": str(chosen.platform)}
                with progress_bar() as progress:
                    merged = chosen.merged(strict=strict, progress=progress)
            except OcirootError as error:
                code = code or error.exit_code
                outcome |= {"ok": False, "error": str(error), "exit_code": error.exit_code}
                click.echo(f"ociroot: {error}", err=True)
            else:
                warn(merged.warnings)
                outcome |= {"layers": merged.layers, "warnings": merged.warnings}
                entries = sum(layer.entries for layer in merged.layers)
                click.echo(
                    f"{printable(image)}: {outcome['platform']} {outcome['digest']}: verified, "
                    f"{counted(len(merged.layers), 'layer')}, "
                    f"{counted(entries, 'entry', 'entries')}",
                    err=as_json,
                )
            outcomes.append(outcome)
    if as_json:
        print_json(outcomes)
    if code:
        raise click.exceptions.Exit(code)


def _chosen(
    source: OpenedSource, everything: bool, strict: bool, choice: Choice
) -> Iterator[tuple[dict[str, Any], Callable[[], Image]]]:
    """Yield for each image to verify its preliminary result, and a function that loads it."""

    def choose() -> Image:
        return source.image(choice.selector, strict=strict)

    listing = source.listing() if everything else None
    if listing is None or not (listing.images or any(o.is_unreadable for o in listing.others)):
        # Without an image, this raises an error that describes the content.
        yield {"digest": choice.digest or None, "ok": True}, choose
        return
    # One image may have several names; it is verified once.
    for found in {(found.digest, found.members): found for found in listing.images}.values():
        yield {"digest": str(found.digest), "ok": True}, partial(source.load, found)
    unreadable = {(o.digest, o.kind): o for o in listing.others if o.is_unreadable}
    for other in unreadable.values():
        yield {"digest": other.digest or None, "ok": True}, partial(source.load, other)
