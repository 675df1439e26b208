"""``ociroot extract``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from .commands import Command
from .common import counted, opened, print_json, progress_bar, size, warn
from .options import PATH, grouped, image_options
from .shape import shape_options

if TYPE_CHECKING:
    from .. import OutputPolicy, Report
    from .options import Choice
    from .shape import ShapeChoice

__all__ = ["extract"]


class _How(NamedTuple):
    """Options of the destination; the fields are those of ``ExtractOptions``."""

    replace: bool
    replace_anything: bool
    discard_volumes: bool
    parents: bool
    sync: bool
    strict: bool


class _Owners(NamedTuple):
    """Who else the files may be given to than by root, who can."""

    userns: bool
    record: Literal["", "mtree", "xattr"]


class _Output(NamedTuple):
    """Options of the output."""

    as_json: bool
    quiet: bool
    verbose: bool


@click.command(cls=Command)
@click.argument("image", type=PATH)
@click.argument("rootfs", type=PATH)
@image_options
@grouped("how", _How)
@grouped("owners", _Owners)
@grouped("output", _Output)
@shape_options
@click.option(
    "--userns",
    is_flag=True,
    help="As an ordinary user, give files to your subordinate ids. What is root's is yours; with "
    "--map-auto it is your first subordinate id's.",
)
@click.option(
    "--record-owners",
    "record",
    type=click.Choice(["mtree", "xattr"]),
    help="Set no owners, and record them: mtree: in ROOTFS.mtree, for apply-owners and bsdtar; "
    "xattr: in extended attributes, for fuse-overlayfs.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Replace an existing root file system in one step, and remove it.",
)
@click.option("--replace-anything", is_flag=True, help="Replace any other directory, too.")
@click.option(
    "--discard-volumes",
    is_flag=True,
    help="Replace it even if it has files in the image's volumes (Volumes of its config).",
)
@click.option("--parents", is_flag=True, help="Create missing parent directories, with mode 0755.")
@click.option(
    "--strict", is_flag=True, help="Refuse an image that violates the specification with a warning."
)
@click.option("--sync", is_flag=True, help="Flush the result to disk before it becomes visible.")
@click.option("--json", "as_json", is_flag=True, help="Print a report as one JSON document.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only: no progress, no warnings.")
@click.option("--verbose", "-v", is_flag=True, help="Print a line for each layer.")
def extract(
    image: str,
    rootfs: str,
    choice: Choice,
    how: _How,
    owners: _Owners,
    output: _Output,
    shape: ShapeChoice,
) -> None:
    """Extract the root file system of IMAGE to the directory ROOTFS.

    IMAGE is an oci-archive, a docker-archive or an OCI layout directory; `-` reads standard input,
    and names such as oci:DIR:NAME are those of skopeo (ociroot --help lists them). Archives are
    read in place; a compressed one is decompressed once, beside ROOTFS by default.

    ROOTFS is a new path, an empty directory or an empty mount point. The result appears in one
    step, when the whole image has been verified, or not at all.

    As root everything is restored; as an ordinary user owners and devices are not, unless
    --userns gives files to subordinate ids, or --record-owners records them for later.

    \b
    Examples:
      ociroot extract debian.tar /var/lib/machines/debian
      docker save app | ociroot extract - rootfs
      ociroot extract --map 0:100000:65536 app.tar /var/lib/lxc/app/rootfs
      ociroot extract --platform linux/arm64 --json app.tar rootfs | jq .config
    """  # noqa: D301
    from .. import ExtractOptions, tmpdir_for

    if output.quiet and output.verbose:
        raise click.UsageError("--quiet and --verbose are mutually exclusive")
    if rootfs == "-":
        raise click.UsageError("a directory cannot go to stdout; ./- is a directory of that name")
    options = ExtractOptions(
        **how._asdict(),
        writer_process=True,
        policy=_policy(owners, shape),
        filter=shape.filter,
        record=owners.record or "",
    )
    choice = choice._replace(tmpdir=choice.tmpdir or tmpdir_for(rootfs))
    with (
        opened(image, choice, strict=how.strict, quiet=output.quiet) as chosen,
        progress_bar(output.quiet) as callback,
    ):
        report = chosen.extract(rootfs, options, progress=callback)
    if not output.quiet:
        _show(report, output.verbose)
    if output.as_json:
        print_json(report)


def _policy(owners: _Owners, shape: ShapeChoice) -> OutputPolicy:
    """Return what is made of owners; enter a user namespace, where that is wanted."""
    if owners.userns and (owners.record or shape.no_owner):
        raise click.UsageError("--userns sets owners: --record-owners and --no-owner do not")
    used = shape.owners(own=owners.userns)
    if used is not None and owners.userns:
        from .. import enter_user_namespace

        used = enter_user_namespace(used)
    return shape.policy(used, (os.geteuid(), os.getegid()))


def _show(report: Report, verbose: bool) -> None:
    """Print the warnings, a line for each layer if verbose, and a summary."""
    from .. import printable

    warn(report.warnings)
    for layer in report.layers if verbose else ():
        click.echo(
            f"layer {layer.layer}/{len(report.layers)} {layer.digest or layer.diff_id}: "
            f"{counted(layer.entries, 'entry', 'entries')}, "
            f"{size(layer.size)} {layer.compression}, {size(layer.unpacked_size)} unpacked",
            err=True,
        )
    entries = sum(layer.entries for layer in report.layers)
    unpacked = sum(layer.unpacked_size for layer in report.layers)
    click.echo(
        f"{report.platform}: {counted(len(report.layers), 'layer')}, "
        f"{counted(entries, 'entry', 'entries')}, "
        f"{size(unpacked)} in {report.seconds:.1f} s → {printable(report.destination)}",
        err=True,
    )
