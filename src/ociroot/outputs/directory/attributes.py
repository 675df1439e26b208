"""Set owner, mode, extended attributes and time in the order that the kernel requires.

``chown`` clears the set-id bits and ``security.capability``, as does writing to a file, and an ACL
shares its mask with the mode's group bits: so owner, mode, extended attributes, time, after the
data.
"""

from __future__ import annotations

import errno
import os

from ...errors import DestinationError, printable
from ...notices import Notices
from ...rootfs.nodes import Node
from ..policy import OutputPolicy

__all__ = ["Attributes"]

# Extended attributes whose values contain users and groups.
_WITH_OWNERS = (b"system.posix_acl_", b"security.capability")
_OUTSIDE = "outside of it --userns, and as root --map-auto, give it to a subordinate id"
# Every file system with nanoseconds supports times before this one (2038, 32 bits).
_SURE = (1 << 31) * 10**9


def _current_umask() -> int:
    """Return the umask without changing it, because all threads share it."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    return 0o777  # unknown: every mode is then set explicitly


def _stamp(nanoseconds: int) -> str:
    """Return a time in the form of date(1): ``date -d @1234567890.5``."""
    whole, fraction = divmod(nanoseconds, 10**9)
    return f"@{whole}.{fraction:09}".rstrip("0").rstrip(".") if fraction else f"@{whole}"


class Attributes:
    """Sets the attributes of files and directories."""

    def __init__(self, root_fd: int, notices: Notices, policy: OutputPolicy) -> None:
        """Determine what is permitted and supported.

        Args:
            root_fd: the descriptor of the destination.
            notices: collects warnings about attributes that cannot be set.
            policy: decides which attributes are set.
        """
        self._notices = notices
        self._policy = policy
        #: Whether owners can be set; the files of an ordinary user belong to that user.
        self.privileged = os.geteuid() == 0
        status = os.fstat(root_fd)
        # The owner of new files; unknown if the file system assigns another one (NFS).
        ours = status.st_uid == os.geteuid() and status.st_gid == os.getegid()
        self._ours = (os.geteuid(), os.getegid()) if ours else (-1, -1)
        self._umask = _current_umask()
        # Times from 1970 to this one are stored exactly; others are compared after they were set.
        os.utime(root_fd, ns=(1, 1))
        self._sure = _SURE if os.fstat(root_fd).st_mtime_ns == 1 else 0

    @property
    def umask_hinders(self) -> bool:
        """Whether the owner cannot read, write or enter a new directory."""
        return bool(self._umask & 0o700)

    def may_skip_mode(self, mode: int) -> bool:
        """Return whether a file created with this mode has it: no set-id or umask bits."""
        return not mode & (0o7000 | self._umask)

    def set_owner(
        self, target: int | bytes, node: Node, dir_fd: int | None = None, *, ours: bool = True
    ) -> None:
        """Set the owner of a file; as an ordinary user count it as not kept.

        Args:
            target: a descriptor, or a name in ``dir_fd``.
            node: the node with the owner.
            dir_fd: the directory of the name.
            ours: whether we have created the file, so that it belongs to us already.
        """
        if ours and node.uid == self._ours[0] and node.gid == self._ours[1]:
            return
        if not self.privileged:
            if (node.uid, node.gid) == (os.geteuid(), os.getegid()):
                return
            self._notices.add("owners", b"first %d:%d" % (node.uid, node.gid))
            return
        try:
            if isinstance(target, int):
                os.fchown(target, node.uid, node.gid)
            else:
                os.chown(target, node.uid, node.gid, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Root of a user namespace: another owner must not be used silently.
            raise DestinationError(
                f"the owner {node.uid}:{node.gid} does not exist in this user namespace",
                remedy=_OUTSIDE,
            ) from error

    def set_on_fd(self, fd: int, node: Node, *, made: bool = False, ours: bool = True) -> None:
        """Set all the attributes of an open file or directory.

        Args:
            fd: its descriptor.
            node: the node with the attributes.
            made: whether it has just been created with ``node.mode``.
            ours: whether we have created it.
        """
        if made and not node.xattrs and (node.uid, node.gid) == self._ours:
            if not self.may_skip_mode(node.mode):
                os.fchmod(fd, node.mode)
        else:
            self._set_all_but_time(fd, node, made, ours)
        mtime = node.mtime_ns
        os.utime(fd, ns=(mtime, mtime))
        if not 0 <= mtime < self._sure:
            self._compare_time(mtime, os.fstat(fd))

    def _set_all_but_time(self, fd: int, node: Node, made: bool, ours: bool) -> None:
        self.set_owner(fd, node, ours=ours)
        if node.xattrs and not self.privileged and node.mode & 0o600 != 0o600:
            # Setting user.* needs write permission, even for the owner; the others do not.
            os.fchmod(fd, 0o700)
            self.set_xattrs(fd, node, user=True)
            os.fchmod(fd, node.mode)
            self.set_xattrs(fd, node, user=False)
            return
        if not (made and self.may_skip_mode(node.mode)):
            os.fchmod(fd, node.mode)
        if node.xattrs:
            self.set_xattrs(fd, node)

    def _compare_time(self, wanted: int, status: os.stat_result) -> None:
        """Count a time that the file system has stored with another range or resolution."""
        if status.st_mtime_ns != wanted:
            self._notices.add("times", f"first {_stamp(wanted)} as {_stamp(status.st_mtime_ns)}")

    def set_by_name(self, name: bytes, dir_fd: int, node: Node) -> None:
        """Set all the attributes of a symbolic link, a device or a FIFO, which are not opened."""
        self.set_owner(name, node, dir_fd)
        if node.kind != "symlink":
            # chmod cannot follow a link here: we have created the file in a private directory.
            os.chmod(name, node.mode, dir_fd=dir_fd)
        if node.xattrs:
            self.set_xattrs(b"/proc/self/fd/%d/%b" % (dir_fd, name), node)
        mtime = node.mtime_ns
        os.utime(name, ns=(mtime, mtime), dir_fd=dir_fd, follow_symlinks=False)
        if not 0 <= mtime < self._sure:
            self._compare_time(mtime, os.stat(name, dir_fd=dir_fd, follow_symlinks=False))

    def set_xattrs(self, target: int | bytes, node: Node, user: bool | None = None) -> None:
        """Set the extended attributes that the destination supports.

        Args:
            target: a descriptor, or a path whose final component is not followed.
            node: the node with the attributes.
            user: True: only ``user.*``; False: only the others; None: all.
        """
        for name, value in (node.xattrs or {}).items():
            if not self._policy.keeps_xattr(name) or user is (not name.startswith(b"user.")):
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                code = self._why_not(error, name, node)
                if code is None:
                    raise _refused(error, name) from error
                self._notices.add(code, name)

    def _why_not(self, error: OSError, name: bytes, node: Node) -> str | None:
        """Return the warning for an attribute that could not be set; None if it is an error."""
        if name.startswith(b"user.") and node.kind not in ("file", "dir"):
            return "xattrs-user"
        default_acl = error.errno == errno.EACCES and name == b"system.posix_acl_default"
        if error.errno == errno.ENOTSUP or (default_acl and node.kind != "dir"):
            return "xattrs-unsupported"
        if error.errno in (errno.EPERM, errno.EACCES) and not name.startswith(b"user."):
            return "xattrs-privileged"
        return None


def _refused(error: OSError, name: bytes) -> DestinationError:
    """Return the error for an extended attribute that must not be skipped."""
    if error.errno == errno.EINVAL and name.startswith(_WITH_OWNERS):
        # The value was validated on read, so its owner is unmapped, which is an error as above.
        return DestinationError(
            f"the extended attribute {printable(name)} contains an owner that does not exist in "
            "this user namespace",
            remedy=_OUTSIDE,
        )
    failed = DestinationError.from_os(error, f"set the extended attribute {printable(name)}")
    if error.errno == errno.ENOSPC:
        failed.remedy = "some file systems limit the attributes of one file: ext4 to 4 KiB"
    return failed
