"""What Python lacks of Linux: system calls, by ctypes, and how files are opened safely."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

__all__ = [
    "CREATE_FILE",
    "CREATE_FILE_TO_READ",
    "OPEN_DIRECTORY",
    "OPEN_HANDLE",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "clear_acls",
    "mount_id",
    "open_beneath",
    "renameat2",
    "syncfs",
    "unshare_user",
]

#: Flags to open a directory for reading, by a single name that must not be a link.
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Flags to open a handle (O_PATH) of any file, or of a symbolic link itself.
OPEN_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
#: Flags to create a file that must not exist.
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: The same for a file whose beginning is read again, or written last.
CREATE_FILE_TO_READ = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_AT_EMPTY_PATH = 0x1000
# openat2(2), since Linux 5.6: glibc has no wrapper. The number is the same on all Debian ports.
_OPENAT2 = 437
_RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x04, 0x08
_STATX_MNT_ID = 0x1000
# The fields of struct statx that are read: stx_mask at 0, stx_mnt_id at 144; it has 256 bytes.
_STATX_SIZE = 256
# linux/sched.h: a new user namespace.
_CLONE_NEWUSER = 0x10000000
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 or sets errno.

    Raises:
        OSError: the error that it set; ENOSYS if the library has no such function.
    """
    function = getattr(_libc(), name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def renameat2(
    from_fd: int, name: str | bytes, to_fd: int, other: str | bytes, flags: int = 0
) -> None:
    """Rename with flags, such as ``RENAME_EXCHANGE``."""
    _call("renameat2", from_fd, os.fsencode(name), to_fd, os.fsencode(other), ctypes.c_uint(flags))


class _OpenHow(ctypes.Structure):
    """``struct open_how``."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(fd: int, path: bytes, flags: int) -> int:
    """Open a path below a directory without following symbolic links or leaving it.

    Args:
        fd: the directory's descriptor.
        path: the path, shorter than PATH_MAX.
        flags: as for ``os.open``.

    Returns:
        The descriptor.

    Raises:
        OSError: the call failed, or the kernel has no openat2(2).
    """
    how = _OpenHow(flags, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    syscall = _libc().syscall
    opened = syscall(ctypes.c_long(_OPENAT2), fd, path, ctypes.byref(how), size)
    if opened < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(opened)


def syncfs(fd: int) -> None:
    """Flush the file system of an open file to the disk."""
    _call("syncfs", fd)


def unshare_user() -> None:
    """Put this process into a new user namespace, which has no ids yet (user_namespaces(7)).

    Raises:
        OSError: EINVAL: it has other threads; EPERM or ENOSPC: there may be no more namespaces.
    """
    _call("unshare", ctypes.c_int(_CLONE_NEWUSER))


def clear_acls(fd: int) -> None:
    """Remove the ACLs that a directory has inherited and would pass on."""
    for name in _ACLS:
        try:
            os.removexattr(fd, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES):
                raise


def mount_id(fd: int) -> int | None:
    """Return the ID of the mount of an open file; bind mounts share a device number.

    Returns:
        The ID from statx(2) or, before Linux 5.8, from /proc; None if it is unknown.
    """
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    try:
        _call("statx", fd, b"", _AT_EMPTY_PATH, ctypes.c_uint(_STATX_MNT_ID), buffer)
        if struct.unpack_from("=I", buffer)[0] & _STATX_MNT_ID:
            return int(struct.unpack_from("=Q", buffer, 144)[0])
    except OSError:
        pass  # an old kernel, or a seccomp filter without it
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            for line in info:
                if line.startswith(b"mnt_id:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return None
