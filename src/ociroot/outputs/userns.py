"""A user namespace in which an ordinary user can give files to their subordinate ids.

The process stays the same one: it moves into a new user namespace, and newuidmap(1) and
newgidmap(1), which may do that for an ordinary user, write its maps from outside. In it the user is
root, 0, and the subordinate ids follow from 1 on; to the kernel the process is still the user, so
that everything that was theirs before still is, and terminal, signals, standard input and exit code
are as they were.
"""

from __future__ import annotations

import errno
import os
import shutil

from .. import linux
from ..errors import DestinationError, UsageError, printable
from .ids import IdMap, IdRange, OwnerMap
from .subids import SUBGID, SUBUID, subordinate_map

__all__ = ["enter_user_namespace", "subordinate_owners"]

_TOOLS = ("newuidmap", "newgidmap")
_SETTINGS = "see kernel.unprivileged_userns_clone and user.max_user_namespaces"
_THREADS = "a process with other threads cannot change its user namespace"
# Waits for a line, and then becomes the program: it is started outside, where it has its rights.
_WAIT = 'read -r _ && exec "$@"'


def subordinate_owners(*, own: bool = False, squash: tuple[int, int] | None = None) -> OwnerMap:
    """Return the map of an image's owners to the subordinate ids of the user who runs this.

    Args:
        own: whether the user's own ids are the first ones, so that what is root's in the image is
            the user's, as with ``podman unshare``; otherwise root's is the first subordinate id's,
            as with LXC.
        squash: the host's owner and group for ids that are not covered; None: they are refused.

    Raises:
        UsageError: the user has no subordinate ids, or is root and has no own ones to give.
    """
    uid, gid = os.geteuid(), os.getegid()
    if own:
        _check_ordinary()
    return OwnerMap(
        subordinate_map(SUBUID, first=IdRange(0, uid, 1) if own else None),
        subordinate_map(SUBGID, first=IdRange(0, gid, 1) if own else None),
        squash,
    )


def enter_user_namespace(owners: OwnerMap) -> OwnerMap:
    """Put this process for good into a user namespace with all of the user's subordinate ids.

    It must have no other threads. In the namespace it is root, and may give files to these ids.

    Args:
        owners: what becomes of an image's owners, as the ids of the host that they will have; see
            :func:`subordinate_owners`.

    Returns:
        The same owners, as this process calls them from now on.

    Raises:
        UsageError: the user has no subordinate ids, or not those of ``owners``.
        DestinationError: there may be no such namespace here.
    """
    _check_ordinary()
    paths = [shutil.which(tool) for tool in _TOOLS]
    if None in paths:
        raise UsageError(f"there is no {_TOOLS[paths.index(None)]}: Debian has it in uidmap")
    inside = subordinate_owners(own=True)
    for wanted, covered, path in (
        (owners.uids, inside.uids, SUBUID),
        (owners.gids, inside.gids, SUBGID),
    ):
        if not wanted.is_within(covered):
            raise UsageError(f"the map {wanted} has ids that {path} does not give to this user")
    made = owners.then(inside.uids.inverse(), inside.gids.inverse())
    _enter([str(path) for path in paths], (inside.uids, inside.gids))
    return made


def _check_ordinary() -> None:
    if os.geteuid() == 0:
        raise UsageError("a user namespace is for ordinary users: root can give files away")


def _enter(tools: list[str], maps: tuple[IdMap, IdMap]) -> None:
    import subprocess

    pid = str(os.getpid())
    helpers = []
    try:
        for tool, used in zip(tools, maps, strict=True):
            numbers = [str(number) for each in used.ranges for number in each]
            helpers.append(
                subprocess.Popen(  # noqa: S603 - numbers, and programs of the PATH
                    ["/bin/sh", "-c", _WAIT, "sh", tool, pid, *numbers],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
        try:
            linux.unshare_user()
        except OSError as error:
            failed = DestinationError.from_os(error, "make a user namespace")
            failed.remedy = _THREADS if error.errno == errno.EINVAL else _SETTINGS
            raise failed from error
        for helper, tool in zip(helpers, _TOOLS, strict=True):
            _, said = helper.communicate(b"\n")
            if helper.returncode:
                text = printable(b" ".join(said.split())[:500])
                raise DestinationError(f"{tool} failed with {helper.returncode}: {text}")
    finally:
        for helper in helpers:
            with helper:
                pass
