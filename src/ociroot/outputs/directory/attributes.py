"""Owner, mode, extended attributes and time, in the order in which the kernel keeps them.

``chown`` clears the set-id bits and ``security.capability``, as does writing to a file, and an ACL
and the mode's group bits are one thing: so owner, mode, extended attributes, time, after the data.
"""

from __future__ import annotations

import errno
import os

from ...errors import DestinationError, printable
from ...notices import Notices
from ...rootfs.nodes import Node
from ..policy import OutputPolicy

__all__ = ["Attributes"]

# Extended attributes whose values name users and groups.
_WITH_OWNERS = (b"system.posix_acl_", b"security.capability")
# Times before this one are kept by every file system that keeps nanoseconds: 2038, 32 bits.
_SURE = (1 << 31) * 10**9


def _current_umask() -> int:
    """Return the umask without changing it, which would be seen by every thread."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    return 0o777  # unknown: every mode is then set a second time


def _stamp(nanoseconds: int) -> str:
    """Return a time as date(1) takes it: ``date -d @1234567890.5``."""
    whole, fraction = divmod(nanoseconds, 10**9)
    return f"@{whole}.{fraction:09}".rstrip("0").rstrip(".") if fraction else f"@{whole}"


class Attributes:
    """Sets the attributes of what has been made."""

    def __init__(self, root_fd: int, notices: Notices, policy: OutputPolicy) -> None:
        """Learn what may be done here.

        Args:
            root_fd: the directory that everything goes into.
            notices: told of what cannot be set.
            policy: what is set.
        """
        self._notices = notices
        self._policy = policy
        #: Whether files may be given to others; an ordinary user's file are the user's own.
        self.privileged = os.geteuid() == 0
        status = os.fstat(root_fd)
        # Who owns what we make; a file system that makes it another's (NFS) has no shortcut.
        ours = status.st_uid == os.geteuid() and status.st_gid == os.getegid()
        self._ours = (os.geteuid(), os.getegid()) if ours else (-1, -1)
        self._umask = _current_umask()
        # A time from 1970 on and before this one is kept as it is; of another one it is looked up.
        os.utime(root_fd, ns=(1, 1))
        self._sure = _SURE if os.fstat(root_fd).st_mtime_ns == 1 else 0

    @property
    def umask_hinders(self) -> bool:
        """Whether a directory that is made is not its owner's to read, write and enter."""
        return bool(self._umask & 0o700)

    def may_skip_mode(self, mode: int) -> bool:
        """Say whether a file made with a mode has it: no set-id bits, nothing the umask takes."""
        return not mode & (0o7000 | self._umask)

    def set_owner(
        self, target: int | bytes, node: Node, dir_fd: int | None = None, *, ours: bool = True
    ) -> None:
        """Give a file to its owner; as an ordinary user count it as left out.

        Args:
            target: a descriptor, or a name in ``dir_fd``.
            node: what has the owner.
            dir_fd: the directory of the name.
            ours: whether we have made it, so that it is ours already.
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
            # root of a user namespace: another owner would be a silent lie.
            raise DestinationError(
                f"the owner {node.uid}:{node.gid} does not exist in this user namespace"
            ) from error

    def set_on_fd(self, fd: int, node: Node, *, made: bool = False, ours: bool = True) -> None:
        """Set all the attributes of an open file or directory.

        Args:
            fd: its descriptor.
            node: what it should have.
            made: whether it has just been made with ``node.mode``.
            ours: whether we have made it at all.
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
            # The owner needs the permission to write for user.*, and not for the others.
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
        """Count a time that the file system did not take as it is: it has others, or no parts."""
        if status.st_mtime_ns != wanted:
            self._notices.add("times", f"first {_stamp(wanted)} as {_stamp(status.st_mtime_ns)}")

    def set_by_name(self, name: bytes, dir_fd: int, node: Node) -> None:
        """Set all the attributes of what cannot be opened: a symbolic link, a device, a FIFO."""
        self.set_owner(name, node, dir_fd)
        if node.kind != "symlink":
            # No link that chmod could follow: we made it, where nobody else can.
            os.chmod(name, node.mode, dir_fd=dir_fd)
        if node.xattrs:
            self.set_xattrs(b"/proc/self/fd/%d/%b" % (dir_fd, name), node)
        mtime = node.mtime_ns
        os.utime(name, ns=(mtime, mtime), dir_fd=dir_fd, follow_symlinks=False)
        if not 0 <= mtime < self._sure:
            self._compare_time(mtime, os.stat(name, dir_fd=dir_fd, follow_symlinks=False))

    def set_xattrs(self, target: int | bytes, node: Node, user: bool | None = None) -> None:
        """Set the extended attributes, as far as the destination has them.

        Args:
            target: a descriptor, or a path whose last name is not followed.
            node: what has them.
            user: only those of users (``user.*``), or only the others; None: all.
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
        """Return the kind of warning for an attribute that could not be set; None: an error."""
        if name.startswith(b"user.") and node.kind not in ("file", "dir"):
            return "xattrs-user"
        default_acl = error.errno == errno.EACCES and name == b"system.posix_acl_default"
        if error.errno == errno.ENOTSUP or (default_acl and node.kind != "dir"):
            return "xattrs-unsupported"
        if error.errno in (errno.EPERM, errno.EACCES) and not name.startswith(b"user."):
            return "xattrs-privileged"
        return None


def _refused(error: OSError, name: bytes) -> DestinationError:
    """Return what to raise for an extended attribute that may not be left out."""
    if error.errno == errno.EINVAL and name.startswith(_WITH_OWNERS):
        # The value has been checked when the layer was read. As with owners: no silent lie.
        return DestinationError(
            f"the extended attribute {printable(name)} is about an owner that does not exist in "
            "this user namespace"
        )
    failed = DestinationError.from_os(error, f"set the extended attribute {printable(name)}")
    if error.errno == errno.ENOSPC:
        failed.remedy = "a file system that is not full has no more for one file: ext4 has 4 KiB"
    return failed
