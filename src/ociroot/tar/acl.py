"""POSIX ACLs in both of the forms that archives use: the kernel's value, and text.

The kernel's form (``linux/posix_acl_xattr.h``) is the value of ``system.posix_acl_access`` and
``system.posix_acl_default``: a version, and tag, permissions and ID of each entry. The text form is
the value of ``SCHILY.acl.access`` and ``SCHILY.acl.default`` as star, GNU tar and bsdtar write
them: entries of acl(5), separated by commas or newlines. star and bsdtar append the numeric ID as a
fourth field (``user:lisa:rw-:502``); GNU tar writes only names, and reads a second field of digits
as an ID.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from ..errors import MalformedImage, printable
from ..limits import Limits

__all__ = [
    "ACCESS",
    "DEFAULT",
    "GROUP",
    "GROUP_OBJ",
    "KEYWORDS",
    "MASK",
    "NO_ID",
    "OTHER",
    "USER",
    "USER_OBJ",
    "AclEntry",
    "decode",
    "encode",
    "from_text",
    "mode_without_acl",
    "mode_without_text",
    "to_text",
]

#: The tags of entries, in the order that acl(5) requires.
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
#: The ID in entries without a user or group.
NO_ID = 0xFFFFFFFF

#: The extended attributes of a file's own ACL, and of the one that a directory hands on.
ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

#: The pax keywords of the text form, each with the extended attribute that it describes.
KEYWORDS = {b"SCHILY.acl.access": ACCESS, b"SCHILY.acl.default": DEFAULT}

#: Tag, permissions and ID.
AclEntry = tuple[int, int, int]

_VERSION = b"\x02\0\0\0"
_ENTRY = struct.Struct("<HHI")
_NAMES = {USER_OBJ: b"user", USER: b"user", GROUP_OBJ: b"group", GROUP: b"group"}
_NAMES |= {MASK: b"mask", OTHER: b"other"}
# The tag without a name in the second field, and with one.
_TAGS = {b"user": (USER_OBJ, USER), b"group": (GROUP_OBJ, GROUP)}
_TAGS |= {b"mask": (MASK, 0), b"other": (OTHER, 0)}
_TEXT = re.compile(rb"([a-z]+):([^:]*):([r-][w-][x-])(?::([0-9]{1,10}))?")
# The entries that the group bits of a mode stand for.
_GROUP_CLASS = re.compile(rb"(group|mask)::([r-][w-][x-])")
# The digits of the largest ID.
_DIGITS = 10


def decode(value: bytes) -> list[AclEntry] | None:
    """Read the kernel's form; None if it has another version or is cut off."""
    if value[:4] != _VERSION or len(value) % _ENTRY.size != 4:
        return None
    return list(_ENTRY.iter_unpack(value[4:]))


def encode(entries: Iterable[AclEntry]) -> bytes:
    """Write the kernel's form."""
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def mode_without_acl(mode: int, value: bytes) -> int:
    """Return the mode of a file that loses its ACL.

    acl(5), "Correspondence between ACL entries and file permission bits": with a mask the group
    bits of the mode are the mask. Without the ACL they would be the owning group's permissions, of
    which it perhaps has fewer.

    Args:
        mode: the mode.
        value: the ACL in the kernel's form.
    """
    entries = decode(value)
    if not entries:
        return mode
    permissions = {tag: bits for tag, bits, _ in entries}
    group = permissions.get(GROUP_OBJ, 7) & permissions.get(MASK, 7)
    return mode & ~0o070 | group << 3


def mode_without_text(mode: int, text: bytes) -> int:
    """Return the mode of a file that loses the ACL of a text, as :func:`mode_without_acl` does."""
    permissions = dict(_GROUP_CLASS.findall(text))
    group = _bits(permissions.get(b"group", b"rwx")) & _bits(permissions.get(b"mask", b"rwx"))
    return mode & ~0o070 | group << 3


def to_text(value: bytes) -> bytes | None:
    """Convert the kernel's form to text, with numeric IDs as names.

    Returns:
        The text, which GNU tar, star and bsdtar read alike. None if the value has no entries or
        cannot be converted.
    """
    entries = decode(value)
    if not entries or any(tag not in _NAMES or perm > 7 for tag, perm, _ in entries):
        return None
    lines = []
    for tag, perm, who in entries:
        name = b"%d" % who if tag in (USER, GROUP) else b""
        lines.append(b"%b:%b:%b" % (_NAMES[tag], name, _permissions(perm)))
    return b",".join(lines)


def _bits(permissions: bytes) -> int:
    return sum(bit for bit, char in zip((4, 2, 1), permissions, strict=True) if char != 45)


def _permissions(perm: int) -> bytes:
    return bytes(char if perm & bit else 45 for bit, char in zip((4, 2, 1), b"rwx", strict=True))


def from_text(text: bytes, limits: Limits) -> bytes | None:
    """Read the text form.

    Args:
        text: the value of the pax record.
        limits: on the bytes of the kernel's form.

    Returns:
        The kernel's form; empty if the text has no entries. None if an entry has a name without an
        ID: only the system that wrote the archive can map the name.

    Raises:
        MalformedImage: the text is not an ACL.
        LimitExceeded: it has too many entries.
    """
    found: list[AclEntry] = []
    named = False
    for item in re.split(rb"[,\n]", text):
        # acl_to_any_text(3) can append the effective permissions as a comment.
        line = item.partition(b"#")[0].strip(b" \t")
        if not line:
            continue
        if len(_VERSION) + _ENTRY.size * (len(found) + 1) > limits.xattr_size:
            raise limits.exceeded("xattr_size")
        entry = _entry(line)
        named = named or entry is None
        found.append(entry or (0, 0, 0))
    if named:
        return None
    found.sort()
    if len({(tag, who) for tag, _, who in found}) != len(found):
        raise MalformedImage("an ACL with two entries for one user or group")
    return encode(found) if found else b""


def _entry(line: bytes) -> AclEntry | None:
    """Read an entry; None if it has a name and no ID."""
    match = _TEXT.fullmatch(line)
    tags = _TAGS.get(match[1]) if match is not None else None
    if match is None or tags is None:
        raise _no_entry(line)
    perm = _bits(match[3])
    name, number = match[2], match[4]
    tag = tags[bool(name)]
    if not name:
        if number:
            raise _no_entry(line)
        return tag, perm, NO_ID
    if not tag:
        raise _no_entry(line)
    by_name = int(name) if name.isdigit() and len(name) <= _DIGITS else None
    if number and by_name is not None and int(number) != by_name:
        # GNU tar uses the second field, bsdtar and star the fourth.
        raise MalformedImage(f"an ACL entry with two IDs: {printable(line[:80])}")
    who = int(number) if number else by_name
    if who is None:
        return None
    if who >= NO_ID:
        raise _no_entry(line)
    return tag, perm, who


def _no_entry(line: bytes) -> MalformedImage:
    return MalformedImage(f"not an ACL entry: {printable(line[:80])}")
