"""What programs lose of an exported archive: the table of docs/shapes.md, as the tests need it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .needs import need_tools
from .snapshot import Record, Snapshot, differences, snapshot


@dataclass(frozen=True)
class Loss:
    """One thing that a program does not restore."""

    program: str
    #: As docs/shapes.md has it.
    what: str
    attribute: str
    #: Whether a path, with what it should be, is affected.
    concerns: Callable[[bytes, Record], bool]


def _has_other_xattrs(path: bytes, record: Record) -> bool:
    kept = (b"user.", b"security.capability", b"system.posix_acl_")
    return any(not name.startswith(kept) for name in record.xattrs)


def _has_acl(path: bytes, record: Record) -> bool:
    return any(name.startswith(b"system.posix_acl_") for name in record.xattrs)


#: Anything that is not here is kept by GNU tar and by bsdtar.
LOSSES = [
    Loss(
        "GNU tar, with the options of Proxmox VE",
        "extended attributes other than `user.*` and `security.capability`",
        "xattrs",
        _has_other_xattrs,
    ),
    *(
        Loss(
            "GNU tar, with all extended attributes", "ACLs, unless it has `--acls`", what, _has_acl
        )
        for what in ("xattrs", "mode")
    ),
    Loss(
        "bsdtar",
        "the modification time of the root directory",
        "mtime_ns",
        lambda path, record: path == b".",
    ),
    Loss(
        "bsdtar",
        "fractions of a second of times before 1970",
        "mtime_ns",
        lambda path, record: record.mtime_ns < 0 and record.mtime_ns % 10**9 != 0,
    ),
    Loss(
        "podman import",
        "times before 1970, and that of the root directory",
        "mtime_ns",
        lambda path, record: path == b"." or record.mtime_ns < 0,
    ),
]

#: How each program of the table unpacks an archive from its standard input.
UNPACKERS = {
    "GNU tar, with the options of Proxmox VE": (
        *("tar", "-x", "-p", "--sparse", "--numeric-owner", "--acls", "--xattrs"),
        *("--xattrs-include=user.*", "--xattrs-include=security.capability", "-f", "-"),
    ),
    # As `machinectl import-tar` calls it (systemd, src/import/import-common.c, import_fork_tar_x).
    "GNU tar, with all extended attributes": (
        *("tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-f", "-"),
    ),
    "bsdtar": ("bsdtar", "-x", "-p", "--numeric-owner", "--acls", "--xattrs", "-f", "-"),
}


def unpack(program: str, archive: Path, root: Path) -> Snapshot:
    """Unpack an archive into a new directory and return the tree."""
    command = UNPACKERS[program]
    need_tools(command[0])
    root.mkdir()
    with archive.open("rb") as file:
        subprocess.run(
            [*command, "-C", root],
            stdin=file,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            check=True,
            capture_output=True,
        )
    return snapshot(root)


def unexplained(program: str, wanted: Snapshot, found: Snapshot) -> list[str]:
    """Return the differences that are not losses of a program."""

    def excused(path: bytes, attribute: str) -> bool:
        return any(
            loss.program == program
            and loss.attribute == attribute
            and path in wanted
            and loss.concerns(path, wanted[path])
            for loss in LOSSES
        )

    return differences(wanted, found, excused)
