"""What formats other than tar hold of a tree, and how programs unpack them.

The tables of docs/shapes.md, as the tests need them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .mounts import mounted
from .needs import need_tools
from .snapshot import Record, Snapshot, differences, snapshot

_BILLION = 10**9
_LATEST = 2**32 - 1
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")


@dataclass(frozen=True)
class Loss:
    """One thing that a format does not hold."""

    format: str
    #: As docs/shapes.md has it.
    what: str
    #: The code of the warning that counts it.
    warning: str
    #: What a name's record becomes.
    change: Callable[[Record], Record]


@dataclass(frozen=True)
class ProgramLoss:
    """One thing that a program does not restore, though the format holds it."""

    program: str
    what: str
    #: Whether a path's attribute may differ.
    concerns: Callable[[bytes, str, Record], bool]


def _whole_seconds(record: Record) -> Record:
    return replace(record, mtime_ns=record.mtime_ns // _BILLION * _BILLION)


def _bounded(record: Record) -> Record:
    return replace(record, mtime_ns=min(max(record.mtime_ns, 0), _LATEST * _BILLION))


def _without_acls(record: Record) -> Record:
    return replace(record, xattrs={n: v for n, v in record.xattrs.items() if n not in _ACLS})


def _known_xattrs(record: Record) -> Record:
    known = (b"user.", b"trusted.", b"security.", *_ACLS)
    return replace(record, xattrs={n: v for n, v in record.xattrs.items() if n.startswith(known)})


def _only_acls(record: Record) -> Record:
    return replace(record, xattrs={n: v for n, v in record.xattrs.items() if n in _ACLS})


LOSSES = [
    Loss("cpio", "extended attributes", "xattrs-unsupported", _only_acls),
    Loss("cpio", "ACLs", "acls", _without_acls),
    Loss("cpio", "times before 1970 and after 2106: the nearest is stored", "times", _bounded),
    Loss("cpio", "fractions of a second", "nanoseconds", _whole_seconds),
    Loss(
        "squashfs",
        "extended attributes other than `user.*`, `trusted.*` and `security.*`",
        "xattrs-unsupported",
        _known_xattrs,
    ),
    Loss("squashfs", "ACLs", "acls", _without_acls),
    Loss("squashfs", "times before 1970 and after 2106: the nearest is stored", "times", _bounded),
    Loss("squashfs", "fractions of a second", "nanoseconds", _whole_seconds),
]

PROGRAM_LOSSES = [
    ProgramLoss(
        "bsdcpio",
        "the modification time of the root directory",
        lambda path, what, record: path == b"." and what == "mtime_ns",
    ),
    ProgramLoss(
        "GNU cpio",
        "owner and mode of the root directory",
        lambda path, what, record: path == b"." and what in ("mode", "uid", "gid"),
    ),
    ProgramLoss(
        "GNU cpio",
        "the modification times of directories and symbolic links",
        lambda path, what, record: record.kind in ("dir", "symlink") and what == "mtime_ns",
    ),
    ProgramLoss(
        "GNU cpio",
        "that symbolic links are hard links to each other",
        lambda path, what, record: record.kind == "symlink" and what == "links",
    ),
]

#: The program, its format, and its arguments before the file; None: the file is its input.
UNPACKERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bsdcpio": ("cpio", ("bsdcpio", "-i", "-d", "-m", "--quiet")),
    "GNU cpio": (
        "cpio",
        (
            "cpio",
            "--extract",
            "--make-directories",
            "--preserve-modification-time",
            "-u",
            "--quiet",
        ),
    ),
    "unsquashfs": ("squashfs", ("unsquashfs", "-quiet", "-no-progress", "-force", "-dest", ".")),
}


def unpack(program: str, archive: Path, root: Path) -> Snapshot:
    """Unpack an archive into a new directory and return the tree."""
    name, command = UNPACKERS[program]
    need_tools(command[0])
    root.mkdir()
    with archive.open("rb") as file:
        done = subprocess.run(
            [*command, archive] if name == "squashfs" else command,
            stdin=file,
            cwd=root,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
            capture_output=True,
        )
    assert done.returncode == 0, done.stderr
    return snapshot(root)


def mounted_squashfs(image: Path, place: Path) -> Snapshot:
    """Mount an image and return the tree; the test is skipped where that cannot be."""
    with mounted(place, "-o", "loop,ro", "-t", "squashfs", image) as root:
        return snapshot(root)


def held(format_: str, tree: Snapshot) -> tuple[Snapshot, set[str]]:
    """Return what a format holds of a tree, and the warnings that count the losses."""
    warnings: set[str] = set()
    for loss in LOSSES:
        if loss.format == format_:
            kept = {path: loss.change(record) for path, record in tree.items()}
            if kept != tree:
                warnings.add(loss.warning)
            tree = kept
    return tree, warnings


def unexplained(program: str, wanted: Snapshot, found: Snapshot) -> list[str]:
    """Return the differences that are not losses of a program."""

    def excused(path: bytes, attribute: str) -> bool:
        return path in wanted and any(
            loss.program == program and loss.concerns(path, attribute, wanted[path])
            for loss in PROGRAM_LOSSES
        )

    return differences(wanted, found, excused)
