"""The options that say what is written of an image, and to whom it belongs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import click

from .options import grouped

if TYPE_CHECKING:
    from .. import OutputPolicy, OwnerMap, PathFilter

__all__ = ["ShapeChoice", "shape_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_RANGES = "CONTAINER:HOST:SIZE[,…]"
_OPTIONS = (
    click.option(
        "--map",
        "both",
        metavar=_RANGES,
        help="Give the files to the owners that a user namespace with this map has, as in "
        "0:100000:65536.",
    ),
    click.option("--map-uids", metavar=_RANGES, help="The map of users alone."),
    click.option("--map-gids", metavar=_RANGES, help="The map of groups alone."),
    click.option(
        "--map-auto",
        is_flag=True,
        help="Map to your ranges in /etc/subuid and /etc/subgid; as root those of root.",
    ),
    click.option(
        "--squash-unmapped",
        metavar="UID:GID",
        help="The owner on the host of what the map does not cover, which is refused otherwise.",
    ),
    click.option(
        "--no-owner",
        is_flag=True,
        help="Keep no owner: everything is the one's who runs this, and root's in an archive.",
    ),
    click.option(
        "--devices",
        type=click.Choice(["create", "skip", "error"]),
        help="create: fail where devices may not be made; skip: make none; error: refuse an image "
        "that has one. Default: made where that is allowed.",
    ),
    click.option(
        "--xattrs",
        multiple=True,
        metavar="PATTERN",
        help="Keep extended attributes that match, as in 'user.*', and no others. Repeatable.",
    ),
    click.option("--no-xattrs", is_flag=True, help="Keep no extended attributes."),
    click.option(
        "--subtree", default="", metavar="PATH", help="Write what is in this directory alone."
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Skip what matches a pattern as in .gitignore, and what is below it. Repeatable.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="Write what matches, what is below it and the directories above it, and nothing else; "
        "--exclude has precedence. Repeatable.",
    ),
)


class ShapeChoice(NamedTuple):
    """What :func:`shape_options` gives."""

    both: str | None
    map_uids: str | None
    map_gids: str | None
    map_auto: bool
    squash_unmapped: str | None
    no_owner: bool
    devices: Literal["create", "skip", "error"] | None
    xattrs: tuple[str, ...]
    no_xattrs: bool
    subtree: str
    exclude: tuple[str, ...]
    include: tuple[str, ...]

    @property
    def has_map(self) -> bool:
        """Whether owners are mapped."""
        return bool(self.both or self.map_uids or self.map_gids or self.map_auto)

    def owners(self, *, own: bool = False) -> OwnerMap | None:
        """Return the map of owners.

        Args:
            own: whether there is one in any case: to the user's own ids, then the subordinate ones.
        """
        ways = [bool(self.both), bool(self.map_uids or self.map_gids), self.map_auto, self.no_owner]
        if sum(ways) > 1:
            raise click.UsageError(
                "--map, --map-uids with --map-gids, --map-auto and --no-owner exclude each other"
            )
        if bool(self.map_uids) != bool(self.map_gids):
            raise click.UsageError("--map-uids and --map-gids go together; --map is for both")
        if self.squash_unmapped and not (self.has_map or own):
            raise click.UsageError("--squash-unmapped is about a map, and there is none")
        if not (self.has_map or own):
            return None
        from .. import OwnerMap, subordinate_owners

        uids, gids = self.both or self.map_uids, self.both or self.map_gids
        if uids and gids:
            return OwnerMap.parse(uids, gids, self.squash_unmapped)
        squash = OwnerMap.parse_owner(self.squash_unmapped) if self.squash_unmapped else None
        return subordinate_owners(own=not self.map_auto, squash=squash)

    def policy(self, owners: OwnerMap | None, owner: tuple[int, int]) -> OutputPolicy:
        """Return what is made of owners, devices and extended attributes.

        Args:
            owners: the map of owners.
            owner: the owner that everything has with ``--no-owner``.
        """
        from .. import OutputPolicy

        if self.xattrs and self.no_xattrs:
            raise click.UsageError("--xattrs and --no-xattrs exclude each other")
        chosen: dict[str, Any] = {}
        if self.xattrs or self.no_xattrs:
            chosen["xattrs"] = tuple(map(os.fsencode, self.xattrs))
        return OutputPolicy(
            owners=owners,
            owner=owner if self.no_owner else None,
            devices=self.devices or "try",
            **chosen,
        )

    @property
    def filter(self) -> PathFilter:
        """Which paths are written."""
        from .. import PathFilter

        return PathFilter(
            subtree=os.fsencode(self.subtree),
            excludes=map(os.fsencode, self.exclude),
            includes=map(os.fsencode, self.include),
        )


def shape_options(command: _Command) -> _Command:
    """Give a command the options that say what is written, as the argument ``shape``."""
    command = grouped("shape", ShapeChoice)(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
