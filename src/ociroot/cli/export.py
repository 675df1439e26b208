"""``ociroot export``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from .commands import Command
from .common import counted, opened, print_json, progress_bar, size, warn
from .options import PATH, grouped, image_options
from .shape import shape_options

if TYPE_CHECKING:
    from .. import ExportReport
    from .options import Choice
    from .shape import ShapeChoice

__all__ = ["export"]


class _How(NamedTuple):
    """What may be done; the fields are those of ``ExportOptions``, but for the last two."""

    format: str | None
    compress: str | None
    tool: str | None
    tool_options: tuple[str, ...]
    squash: bool
    recompress: str | None
    order: str
    force: bool
    sync: bool
    strict: bool
    annotate: tuple[str, ...]
    clamp_mtime: bool


class _Output(NamedTuple):
    """What is told of it."""

    as_json: bool
    quiet: bool


class _Export(Command):
    """Takes options for a program behind a literal ``--`` alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :class:`click.Command`."""
        behind = args[args.index("--") + 1 :] if "--" in args else []
        rest = super().parse_args(ctx, args)
        options: tuple[str, ...] = ctx.params.get("tool_options") or ()
        if len(options) > len(behind) and not ctx.resilient_parsing:
            raise click.UsageError(f"unexpected argument: {options[0]}", ctx)
        return rest


@click.command(cls=_Export)
@click.argument("image", type=PATH)
@click.argument("out", type=PATH)
@click.argument("tool_options", nargs=-1, metavar="[-- TOOL_OPTIONS]")
@image_options
@grouped("how", _How)
@grouped("output", _Output)
@shape_options
@click.option(
    "--format",
    metavar="FORMAT",
    help="tar, cpio or squashfs; oci-archive, oci (a directory) or docker-archive for an image "
    "again. Default: by the name of OUT; for `-`, tar.",
)
@click.option(
    "--compress",
    metavar="METHOD[:LEVEL]",
    help="gzip (1 to 9, default 6), zstd (1 to 22, default 3), xz (0 to 9, default 6) or none. "
    "Default: by the name of OUT; for squashfs zstd:3.",
)
@click.option(
    "--tool",
    metavar="PROGRAM",
    help="What writes squashfs: tar2sqfs (the default), sqfstar or mksquashfs.",
)
@click.option("--squash", is_flag=True, help="Give the image one layer, with the merged tree.")
@click.option(
    "--recompress",
    metavar="METHOD[:LEVEL]",
    help="Compress the layers of the image anew: gzip, zstd or none. Default: they stay as they "
    "are; the layer of --squash gets gzip:6.",
)
@click.option(
    "--annotate",
    metavar="KEY=VALUE",
    multiple=True,
    help="Add an annotation to the manifest; can be given several times.",
)
@click.option(
    "--order",
    type=click.Choice(["tree", "layers"]),
    default="tree",
    show_default=True,
    help="layers: read compressed layers twice instead of keeping them in a temporary file; GNU "
    "tar then loses the times of directories.",
)
@click.option(
    "--clamp-mtime",
    is_flag=True,
    help="Replace modification times after SOURCE_DATE_EPOCH, of the environment, by it.",
)
@click.option("--force", "-f", is_flag=True, help="Replace a file that is there.")
@click.option("--sync", is_flag=True, help="Have all of it on the disk before it becomes visible.")
@click.option(
    "--strict", is_flag=True, help="Refuse an image for a warning that breaches the specification."
)
@click.option("--json", "as_json", is_flag=True, help="Print a report as one JSON document.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only: no progress, no warnings.")
def export(
    image: str, out: str, choice: Choice, how: _How, output: _Output, shape: ShapeChoice
) -> None:
    """Write the root file system of IMAGE as one archive, OUT, or IMAGE as an image again.

    The name of OUT tells the format: .tar, .cpio, or .squashfs (.sqfs, .sfs); the first two with
    .gz, .zst or .xz are compressed. `-` writes to stdout. The layers are merged as `ociroot
    extract` does it, and no root is needed: a tar archive has all owners, devices, extended
    attributes and ACLs; what cpio and squashfs cannot hold is counted in a warning. The same image
    gives the same bytes, whoever runs it and however its layers are compressed.

    squashfs is written by a program, which is given what follows `--` as options. The formats of an
    image keep its layers as they are, unless --squash or --recompress says otherwise: one platform
    is taken out of an image for many, or a docker-archive becomes a layout, or the reverse.

    A file appears whole, when all of the image has been verified, or not at all; nothing is written
    to stdout before that. Compressed layers are decompressed once, into a temporary file beside OUT
    (--tmpdir).

    \b
    Examples:
      ociroot export debian.tar rootfs.tar.zst
      docker save app | ociroot export - - | ssh host tar -xpC /srv/app
      ociroot export --map 0:100000:65536 --exclude /usr/share/doc app.tar app.tar.zst
      SOURCE_DATE_EPOCH=0 ociroot export --clamp-mtime app.tar app.tar.xz
      ociroot export debian.tar debian.squashfs --compress zstd:19 -- --num-jobs 4
      ociroot export --format oci-archive --recompress zstd:19 app.tar app.oci.tar
    """  # noqa: D301
    from .. import ExportOptions, tmpdir_for

    to_stdout = out == "-"
    if to_stdout and output.as_json:
        raise click.UsageError("--json writes to stdout, and so does OUT when it is -")
    if to_stdout and sys.stdout.isatty():
        raise click.UsageError("an archive is not written to a terminal: redirect stdout")
    fields = how._asdict()
    fields["annotations"] = _annotations(fields.pop("annotate"))
    if fields.pop("clamp_mtime"):
        fields["newest"] = _source_date_epoch()
    if not to_stdout:
        choice = choice._replace(tmpdir=choice.tmpdir or tmpdir_for(out))
    # Without owners everything is root's, as the archive is the same whoever writes it.
    policy = shape.policy(shape.owners(), (0, 0))
    options = ExportOptions(**fields, policy=policy, filter=shape.filter)
    with (
        opened(image, choice, strict=how.strict, quiet=output.quiet) as chosen,
        progress_bar(output.quiet) as callback,
    ):
        destination = sys.stdout.buffer if to_stdout else out
        report = chosen.export(destination, options, progress=callback)
        if to_stdout:
            sys.stdout.flush()
    if not output.quiet:
        _show(report)
    if output.as_json:
        print_json(report)


def _annotations(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the annotations of the command line."""
    annotations: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"{text!r} is no annotation: KEY=VALUE")
        annotations[key] = value
    return annotations


def _source_date_epoch() -> int:
    """Return the time that the environment gives, in seconds since 1970."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise click.UsageError(
            "--clamp-mtime needs SOURCE_DATE_EPOCH in the environment, seconds since 1970"
        )
    return int(text)


def _show(report: ExportReport) -> None:
    """Print the warnings and a summary."""
    from .. import printable

    warn(report.warnings)
    compressed = f" {report.compression}" if report.compression is not None else ""
    destination = printable(report.destination) if report.destination is not None else "stdout"
    click.echo(
        f"{report.platform}: {counted(len(report.layers or report.written), 'layer')}, "
        f"{report.format}{compressed}, {size(report.size)} in {report.seconds:.1f} s "
        f"→ {destination}",
        err=True,
    )
