"""Subordinate ids: which ids of the host are a user's to give to containers (subuid(5))."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator

from ..errors import UsageError
from .ids import IdMap, IdRange

__all__ = ["SUBGID", "SUBUID", "subordinate_map"]

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"

# Bytes of such a file that are read: enough for a hundred thousand users.
_MOST = 4 << 20
_NUMBERS = re.compile(r"([0-9]{1,10}):([0-9]{1,10})", re.ASCII)


def subordinate_map(path: str, *, uid: int | None = None, first: IdRange | None = None) -> IdMap:
    """Return the map of all of a user's subordinate ids, one range after the other, from 0 on.

    Container id 0 is the first subordinate id, as with LXC and ``unshare --map-auto``, and not the
    user's own id: a container's root that is the user could change all of the user's files.

    Args:
        path: ``/etc/subuid`` or ``/etc/subgid``.
        uid: the user; None: the one that this process runs as.
        first: a range for the beginning, behind which the subordinate ids follow.

    Raises:
        UsageError: the file cannot be read, or has no range for the user.
    """
    uid = os.geteuid() if uid is None else uid
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    ranges = [first] if first is not None else []
    start = at = first.container + first.size if first is not None else 0
    for host, size in _ranges(path, {name, str(uid)}):
        ranges.append(IdRange(at, host, size))
        at += size
    if at == start:
        raise UsageError(f"{path} has no ids for the user {name}; usermod(8) adds some")
    return IdMap(ranges)


def _ranges(path: str, owners: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a user: subuid(5) has the name or the number in the first field."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    if len(text) > _MOST:
        raise UsageError(f"{path} has more than {_MOST} bytes")
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        owner, _, numbers = line.partition(":")
        # newuidmap(1) passes over lines that it does not understand, too.
        found = _NUMBERS.fullmatch(numbers) if owner in owners else None
        if found is not None and int(found[2]):
            yield int(found[1]), int(found[2])
