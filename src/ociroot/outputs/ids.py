"""Maps of user and group ids: of a container to those of the host, as user namespaces have them.

What is written for an unprivileged container belongs to the host's ids that its user namespace maps
to its own. Ids are in four places: the owner, the group, the named entries of POSIX ACLs, and the
root user that ``security.capability`` of revision 3 is for. They are mapped as the kernel maps them
for a process in such a namespace (user_namespaces(7), capabilities(7)).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import Unsupported, UsageError, quoted
from ..layers.xattrs import CAPABILITY
from ..tar import acl

__all__ = [
    "MAX_ID",
    "IdMap",
    "IdRange",
    "OwnerMap",
    "parse_map",
    "parse_owner",
]

#: The highest id: 2^32-1 is "no id" for chown(2).
MAX_ID = (1 << 32) - 2
# Lines that the kernel takes in /proc/PID/uid_map (user_namespaces(7)), since Linux 4.15.
_MAX_RANGES = 340
# Ranges that a message shows.
_SHOWN = 10
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)

# linux/capability.h: what the first 32 bits of a value say, besides flags in the lowest byte.
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
# Bytes of a value of revision 2, to which revision 3 adds the id of a root user.
_CAPABILITY_2 = 20


class IdRange(NamedTuple):
    """Ids that follow each other.

    Attributes:
        container: the first of them in the container.
        host: the first of them on the host.
        size: how many there are.
    """

    container: int
    host: int
    size: int

    def __str__(self) -> str:
        return f"{self.container}:{self.host}:{self.size}"


class IdMap:
    """Ranges of ids, each in the container and on the host.

    Attributes:
        ranges: the ranges, by their place in the container.
    """

    def __init__(self, ranges: Iterable[IdRange]) -> None:
        """Take ranges.

        Args:
            ranges: in any order.

        Raises:
            UsageError: there is none, or too many, or one is out of range, or two overlap.
        """
        self.ranges = tuple(sorted(ranges))
        if not self.ranges:
            raise UsageError("a map of ids without a range")
        if len(self.ranges) > _MAX_RANGES:
            raise UsageError(f"a map of more than {_MAX_RANGES} ranges of ids")
        for each in self.ranges:
            if each.size < 1:
                raise UsageError(f"the range of ids {each} is empty")
            if min(each) < 0 or max(each.container, each.host) + each.size - 1 > MAX_ID:
                raise UsageError(f"the range of ids {each} is not within 0 to {MAX_ID}")
        self._check_overlaps(self.ranges, 0, "in the container")
        self._check_overlaps(sorted(self.ranges, key=lambda each: each.host), 1, "on the host")
        self._starts = [each.container for each in self.ranges]

    @staticmethod
    def _check_overlaps(ranges: Iterable[IdRange], side: int, where: str) -> None:
        before: IdRange | None = None
        for each in ranges:
            if before is not None and before[side] + before.size > each[side]:
                raise UsageError(f"the ranges of ids {before} and {each} overlap {where}")
            before = each

    def __str__(self) -> str:
        text = ",".join(map(str, self.ranges[:_SHOWN]))
        return text + ",…" if len(self.ranges) > _SHOWN else text

    def __repr__(self) -> str:
        return f"IdMap({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def to_host(self, number: int) -> int | None:
        """Return what an id of the container is on the host; None: the map does not cover it."""
        at = bisect_right(self._starts, number) - 1
        if at < 0:
            return None
        start, host, size = self.ranges[at]
        return host + number - start if number < start + size else None

    @property
    def size(self) -> int:
        """How many ids it covers."""
        return sum(each.size for each in self.ranges)

    def is_within(self, other: IdMap) -> bool:
        """Say whether another map has all ids of the host that this one has."""
        return sum(_shared(one, two) for one in self.ranges for two in other.ranges) == self.size

    def inverse(self) -> IdMap:
        """Return the map from the host to the container."""
        return IdMap(IdRange(host, start, size) for start, host, size in self.ranges)

    def then(self, further: IdMap) -> IdMap:
        """Return the map that has the same effect as this one and then another one.

        Args:
            further: maps the host's ids; what it does not cover, the result does not, either.

        Raises:
            UsageError: nothing is left, or more ranges than a map may have.
        """
        made = []
        for start, host, size in self.ranges:
            for from_, to, width in further.ranges:
                first, last = max(host, from_), min(host + size, from_ + width)
                if first < last:
                    made.append(IdRange(start + first - host, to + first - from_, last - first))
        return IdMap(made)


def _root_of(value: bytes) -> int | None:
    """Return the root user that a file's capabilities are for; None: the value has no such user."""
    if len(value) < _CAPABILITY_2:
        return None
    revision = int.from_bytes(value[:4], "little") & _REVISION
    if revision == _REVISION_3:
        return int.from_bytes(value[_CAPABILITY_2:], "little")
    return 0 if revision == _REVISION_2 else None


def _shared(one: IdRange, other: IdRange) -> int:
    """Return how many ids of the host two ranges have in common."""
    end = min(one.host + one.size, other.host + other.size)
    return max(0, end - max(one.host, other.host))


def parse_map(text: str) -> IdMap:
    """Read a map.

    Args:
        text: ``CONTAINER:HOST:SIZE``, and more of them after commas.

    Raises:
        UsageError: it is none.
    """
    ranges = []
    for part in text.split(",", _MAX_RANGES):
        numbers = part.split(":", 3)
        if len(numbers) != 3 or not all(map(_NUMBER.fullmatch, numbers)):
            raise UsageError(f"{quoted(part[:100])} is not CONTAINER:HOST:SIZE, in numbers")
        ranges.append(IdRange(*map(int, numbers)))
    return IdMap(ranges)


def parse_owner(text: str) -> tuple[int, int]:
    """Read an owner and a group.

    Args:
        text: ``UID:GID``.

    Raises:
        UsageError: it is none.
    """
    numbers = text.split(":", 2)
    if len(numbers) != 2 or not all(map(_NUMBER.fullmatch, numbers)):
        raise UsageError(f"{quoted(text[:100])} is not UID:GID, in numbers")
    uid, gid = map(int, numbers)
    if max(uid, gid) > MAX_ID:
        raise UsageError(f"the owner {uid}:{gid} is not within 0 to {MAX_ID}")
    return uid, gid


class OwnerMap:
    """What becomes of the owners of an image's files.

    Attributes:
        uids: maps users.
        gids: maps groups.
        squash: the host's owner and group for ids that are not covered; None: they are refused.
    """

    def __init__(self, uids: IdMap, gids: IdMap, squash: tuple[int, int] | None = None) -> None:
        self.uids = uids
        self.gids = gids
        self.squash = squash
        # What messages call them: as the user has given them.
        self._shown = uids, gids
        self._known: dict[tuple[int, int], tuple[int, int]] = {}

    @classmethod
    def parse(cls, uids: str, gids: str, squash: str | None = None) -> OwnerMap:
        """Read a map of owners.

        Args:
            uids: ``CONTAINER:HOST:SIZE`` for users, and more of them after commas.
            gids: the same for groups.
            squash: ``UID:GID`` on the host for ids that are not covered; None: they are refused.

        Raises:
            UsageError: one of them is none.
        """
        owner = parse_owner(squash) if squash is not None else None
        return cls(parse_map(uids), parse_map(gids), owner)

    parse_owner = staticmethod(parse_owner)

    def __repr__(self) -> str:
        return f"OwnerMap({self.uids!r}, {self.gids!r}, squash={self.squash})"

    def then(self, uids: IdMap, gids: IdMap) -> OwnerMap:
        """Return the owners as they are called where the host's ids have other numbers.

        Raises:
            UsageError: nothing is left, or ``squash`` is not covered.
        """
        squash = None
        if self.squash is not None:
            uid, gid = uids.to_host(self.squash[0]), gids.to_host(self.squash[1])
            if uid is None or gid is None:
                raise UsageError("the owner for what the map does not cover is not covered, either")
            squash = uid, gid
        made = OwnerMap(self.uids.then(uids), self.gids.then(gids), squash)
        made._shown = self._shown
        return made

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner and the group that a file gets.

        Raises:
            Unsupported: the map does not cover one of them.
        """
        known = self._known.get((uid, gid))
        if known is None:
            known = self._uid(uid, "the owner"), self._gid(gid, "the group")
            # Images have few owners; those made up to fill memory are not kept.
            if len(self._known) < 1000:
                self._known[uid, gid] = known
        return known

    def covers(self, uid: int, gid: int) -> bool:
        """Say whether the map covers an owner and a group, and nothing is squashed."""
        return self.uids.to_host(uid) is not None and self.gids.to_host(gid) is not None

    def xattrs(self, xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return extended attributes with the ids in them mapped.

        Args:
            xattrs: as :func:`~ociroot.layers.xattrs.check_xattrs` passes them.

        Raises:
            Unsupported: the map does not cover one of the ids.
        """
        made = dict(xattrs)
        for name in acl.KEYWORDS.values():
            if name in made:
                made[name] = self.acl(made[name])
        if CAPABILITY in made:
            made[CAPABILITY] = self.capability(made[CAPABILITY])
        return made

    def acl(self, value: bytes) -> bytes:
        """Return a POSIX ACL with the ids of its named entries mapped.

        Entries that come to name the same id keep the first one's permissions, which are those
        that the kernel goes by; acl(5) has one entry for each.

        Args:
            value: of ``system.posix_acl_access`` or ``…_default``, as the kernel takes it.

        Raises:
            Unsupported: the map does not cover one of them.
        """
        entries = acl.decode(value)
        if entries is None:
            return value  # empty, or of a version that Linux does not have
        made: list[acl.AclEntry] = []
        named = set()
        for tag, permissions, number in entries:
            if tag in (acl.USER, acl.GROUP):
                what = "an ACL's user" if tag == acl.USER else "an ACL's group"
                number = self._uid(number, what) if tag == acl.USER else self._gid(number, what)
                if (tag, number) in named:
                    continue
                named.add((tag, number))
            made.append((tag, permissions, number))
        return acl.encode(made)

    def capability(self, value: bytes) -> bytes:
        """Return a file's capabilities as a user namespace with this map gives them.

        capabilities(7), "File capability versioning": a process in a user namespace that sets
        revision 2 gets revision 3, with the user that is root in the namespace. Revision 2 would
        be effective outside, too.

        Args:
            value: of ``security.capability``, as the kernel takes it.

        Raises:
            Unsupported: the map does not cover its root user.
        """
        root = _root_of(value)
        if root is None:
            return value
        root = self._uid(root, "the root user of security.capability")
        magic = _REVISION_3 | (int.from_bytes(value[:4], "little") & ~_REVISION)
        return magic.to_bytes(4, "little") + value[4:_CAPABILITY_2] + root.to_bytes(4, "little")

    def covers_root_of(self, value: bytes) -> bool:
        """Say whether the map covers the root user that a file's capabilities are for.

        Args:
            value: of ``security.capability``, as the kernel takes it.
        """
        root = _root_of(value)
        return root is None or self.uids.to_host(root) is not None

    def _uid(self, number: int, what: str) -> int:
        mapped = self.uids.to_host(number)
        if mapped is None and self.squash is not None:
            mapped = self.squash[0]
        return mapped if mapped is not None else self._refuse(number, what, self._shown[0])

    def _gid(self, number: int, what: str) -> int:
        mapped = self.gids.to_host(number)
        if mapped is None and self.squash is not None:
            mapped = self.squash[1]
        return mapped if mapped is not None else self._refuse(number, what, self._shown[1])

    def _refuse(self, number: int, what: str, used: IdMap) -> int:
        raise Unsupported(
            f"{what} is {number}, which the map {used} does not cover",
            remedy="--squash-unmapped UID:GID gives it to another owner",
        )
