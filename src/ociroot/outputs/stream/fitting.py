"""What a format cannot hold of a node's attributes is left out, and counted in one warning each.

cpio and squashfs have 32 bits for a time in seconds since 1970, and no ACLs; cpio has no extended
attributes at all.
"""

from __future__ import annotations

from ...rootfs.nodes import Node
from ...tar.acl import KEYWORDS
from ...tar.entry import Kind
from ..policy import duplicate
from .options import SinkOptions

__all__ = ["Fitting"]

_BILLION = 10**9
_LATEST = (1 << 32) - 1
_ACCESS_ACL, _DEFAULT_ACL = KEYWORDS.values()


class Fitting:
    """Gives nodes the attributes that a format can hold."""

    def __init__(self, options: SinkOptions, prefixes: tuple[bytes, ...] = ()) -> None:
        """Begin with nothing counted.

        Args:
            options: what the output is like.
            prefixes: those of the extended attributes that the format can hold.
        """
        self._policy = options.policy
        self._notices = options.notices
        self._newest = None if options.newest is None else options.newest // _BILLION
        self._prefixes = prefixes

    def fit(self, node: Node, path: bytes, *, quiet: bool = False) -> Node:
        """Return a node as it is written, and as the format holds it.

        Of a directory a node with its attributes is returned.

        Args:
            node: the node.
            path: one of its names, for the warning.
            quiet: whether its losses have been counted already, by another of its names.
        """
        policy = self._policy
        if policy.changes_nodes:
            node = policy.final(node)
        seconds, rest = divmod(node.mtime_ns, _BILLION)
        if node.xattrs is None and not rest and 0 <= seconds <= _LATEST and self._newest is None:
            return node
        notices = self._notices
        if self._newest is not None and seconds >= self._newest:
            seconds, rest = self._newest, 0
        if not 0 <= seconds <= _LATEST:
            if not quiet:
                notices.add("times", path)
            seconds = min(max(seconds, 0), _LATEST)
        elif rest and not quiet:
            notices.add("nanoseconds", path)
        made = duplicate(node)
        made.mtime_ns = seconds * _BILLION
        if node.xattrs is not None:
            wanted = {n: v for n, v in node.xattrs.items() if policy.keeps_xattr(n)}
            kept = {n: v for n, v in wanted.items() if n.startswith(self._prefixes)}
            lost = [n for n in wanted if n not in kept]
            if lost and not quiet:
                for code in {_lost(name, node.kind) for name in lost}:
                    notices.add(code, path)
            made.xattrs = kept or None
        return made


def _lost(name: bytes, kind: Kind) -> str:
    """Return the code of the warning for an attribute that is left out."""
    if name.startswith(b"user.") and kind not in ("file", "dir"):
        return "xattrs-user"
    has_acl = (name == _ACCESS_ACL and kind != "symlink") or (
        name == _DEFAULT_ACL and kind == "dir"
    )
    return "acls" if has_acl else "xattrs-unsupported"
