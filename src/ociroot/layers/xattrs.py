"""Validation of the extended attributes that the kernel interprets.

Values that the kernel would refuse make the image malformed. They are checked on read, so that
`verify` reports them too.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import MalformedImage, printable
from ..tar.acl import ACCESS, DEFAULT, GROUP, GROUP_OBJ, MASK, NO_ID, OTHER, USER, USER_OBJ, decode

__all__ = ["CAPABILITY", "check_xattrs"]

#: The extended attribute of file capabilities (capabilities(7)).
CAPABILITY = b"security.capability"
# linux/capability.h: each revision with the bytes of its value; the lowest bit is a flag.
_REVISIONS = {0x02000000: 20, 0x03000000: 24}
# xattr_resolve_name in the kernel's fs/xattr.c: EINVAL for a prefix with a handler and no name
# after it. A name without a handler is merely not supported by this file system.
_NAMELESS = frozenset((b"user.", b"trusted.", b"security."))


def check_xattrs(xattrs: Mapping[bytes, bytes]) -> None:
    """Refuse names and values that Linux rejects.

    Raises:
        MalformedImage: a namespace without a name, or an invalid capability or ACL.
    """
    if not _NAMELESS.isdisjoint(xattrs):
        name = next(filter(_NAMELESS.__contains__, xattrs))
        raise MalformedImage(f"an extended attribute without a name after {printable(name)}")
    for name in (CAPABILITY, ACCESS, DEFAULT):
        value = xattrs.get(name)
        if value is not None and not (
            _is_capability(value) if name == CAPABILITY else _is_acl(value)
        ):
            raise MalformedImage(
                f"the extended attribute {printable(name)} has a value that Linux rejects"
            )


def _is_capability(value: bytes) -> bool:
    revision = int.from_bytes(value[:4], "little") & ~1
    return not value or _REVISIONS.get(revision) == len(value)


def _is_acl(value: bytes) -> bool:
    """Return whether the kernel accepts an ACL (posix_acl_from_xattr and posix_acl_valid)."""
    if not value:
        return True  # an empty value removes the ACL
    if len(value) % 8 != 4:
        return False
    if value[:4] != b"\x02\0\0\0":
        return True  # another version: not supported, but not malformed
    entries = decode(value)
    if not entries:
        return True
    tags = [tag for tag, _, _ in entries]
    if any(perm > 7 or (tag in (USER, GROUP) and who == NO_ID) for tag, perm, who in entries):
        return False
    named = USER in tags or GROUP in tags
    single = [tag for tag in tags if tag not in (USER, GROUP)]
    wanted = [USER_OBJ, GROUP_OBJ, *([MASK] if named or MASK in tags else []), OTHER]
    return single == wanted and tags == sorted(tags)
