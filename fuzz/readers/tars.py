"""Read a tar archive with GNU tar and bsdtar."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ociroot.errors import OcirootError

from . import seen
from .seen import Seen, named

__all__ = ["by_bsdtar", "by_gnu_tar", "contents_by_gnu_tar"]

_ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC0"}
_SECONDS = 10
_MOST = 16 << 20
_KINDS = {
    "-": "file",
    "C": "file",
    "d": "dir",
    "l": "symlink",
    "h": "link",
    "c": "char",
    "b": "block",
    "p": "fifo",
}
_TEXT = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    r"block \d+: (?P<kind>.)(?P<mode>.{9})\S* (?P<uid>-?\d+)/(?P<gid>-?\d+) +"
    r"(?P<size>-?\d+(?:,-?\d+)?) (?P<date>-?\d+(?:-\d\d-\d\d \d\d:\d\d:\d\d)?(?:\.\d+)?) +"
    rf"(?P<name>{_TEXT})(?: (?:->|link to) (?P<target>{_TEXT}))?(?P<more>.*)"
)


def _run(command: list[str], tar: Path) -> bytes | None:
    """Run a program on an archive; return its output, or None if it refuses the archive.

    A program that runs too long or writes too much counts as one that refuses it.
    """
    with (
        tar.open("rb") as archive,
        subprocess.Popen(
            command,
            stdin=archive,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd=tar.parent,
        ) as process,
    ):
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        output = process.stdout.read(_MOST) if process.stdout is not None else b""
        if len(output) == _MOST:
            process.kill()
        status = process.wait()
    return None if status else output


def by_gnu_tar(tar: Path) -> list[Seen] | None:
    """List an archive with GNU tar; None if it refuses the archive."""
    listed = _run(
        ["tar", "-tvR", "--numeric-owner", "--full-time", "--quoting-style=c", "-f", "-"], tar
    )
    if listed is None:
        return None
    found = []
    for line in listed.decode("ascii", "backslashreplace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            if line.endswith(("** Block of NULs **", "** End of File **")):
                continue
            raise ValueError(f"a line of tar -t: {line!r}")
        if match["kind"] in "VMN":
            continue  # volume labels and the like
        kind = _KINDS.get(match["kind"], "unknown " + match["kind"])
        device = kind in ("char", "block")
        major, _, minor = match["size"].partition(",")
        found.append(
            Seen(
                kind,
                named(_unquoted(match["name"])),
                _mode(match["mode"]),
                int(match["uid"]),
                int(match["gid"]),
                _nanoseconds(match["date"]),
                int(match["size"]) if kind == "file" else 0,
                _unquoted(match["target"]) if match["target"] else b"",
                (int(major), int(minor)) if device else None,
            )
        )
    return found


def contents_by_gnu_tar(tar: Path) -> str | None:
    """Return the digest of the concatenated file contents; None if GNU tar refuses the archive."""
    content = _run(["tar", "-xO", "-f", "-"], tar)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _unquoted(text: str) -> bytes:
    return text[1:-1].encode("latin-1").decode("unicode_escape").encode("latin-1")


def _mode(text: str) -> int:
    mode = 0
    for place, letter in enumerate(text):
        bit = 0o400 >> place
        if letter in "rwxst":
            mode |= bit
        if letter in "sStT" and place % 3 == 2:
            mode |= 0o4000 >> place // 3
    return mode


def _nanoseconds(date: str) -> int | None:
    whole, _, fraction = date.partition(".")
    if " " not in whole:
        return None  # a time outside the calendar
    year, rest = whole.split("-", 1) if not whole.startswith("-") else ("0", "")
    if not 1000 <= int(year) <= 9999:
        return None
    moment = datetime.strptime(f"{year}-{rest}+0000", "%Y-%m-%d %H:%M:%S%z")
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * 10**9 + int((fraction + "0" * 9)[:9])


def by_bsdtar(tar: Path) -> list[Seen] | None:
    """Convert an archive to plain pax with bsdtar and read that; None if it refuses the archive."""
    # -P: from 3.7 on it would strip a leading slash.
    written = _run(["bsdtar", "-cPf", "-", "--format=pax", "@-"], tar)
    if written is None:
        return None
    try:
        # Plain pax as libarchive writes it, whatever the format was before.
        return [each._replace(sparse=None, head=b"") for each in seen.ours(written)]
    except OcirootError:
        return None
