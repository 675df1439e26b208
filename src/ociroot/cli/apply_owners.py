"""``ociroot apply-owners``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .commands import Command
from .common import counted, print_json, warn
from .limits import limit_options
from .options import PATH

if TYPE_CHECKING:
    from .. import Limits

__all__ = ["apply_owners"]


@click.command("apply-owners", cls=Command)
@click.argument("rootfs", type=PATH)
@limit_options
@click.option(
    "--record", type=PATH, metavar="FILE", help="The record of owners. Default: ROOTFS.mtree."
)
@click.option("--json", "as_json", is_flag=True, help="Print a report as one JSON document.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only, and no warnings.")
def apply_owners(
    rootfs: str, record: str | None, as_json: bool, quiet: bool, limits: Limits
) -> None:
    """Set as root what an ordinary user could only record: owners, modes, devices, attributes.

    ROOTFS is what `ociroot extract --record-owners mtree` has made. Its owner may change it
    meanwhile: no symbolic link is followed, on the way to it either, and a file that has a name
    outside of it is refused. When it fails, what was begun is closed to all but root, and the same
    command does the rest.

    The record decides which files are set-user-ID and which devices there are. So keep the tree
    where its former owner cannot reach it, as below a directory of mode 0700.

    \b
    Example:
      ociroot extract --record-owners mtree app.tar rootfs
      sudo ociroot apply-owners rootfs
    """  # noqa: D301
    from .. import apply_owners as apply
    from .. import printable

    report = apply(rootfs, record, limits=limits)
    if not quiet:
        warn(report.warnings)
        click.echo(
            f"{counted(report.changed, 'file or directory', 'files and directories')}, "
            f"{counted(report.devices, 'device')} → {printable(report.rootfs)}",
            err=True,
        )
    if as_json:
        print_json(report)
