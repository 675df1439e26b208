"""The command run as an ordinary user who has subordinate ids, which are made for the test."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: A user of every Debian, with nothing of its own: newuidmap wants one that has a name.
USER, UID = "games", 5
GID = 60

# In a mount namespace of its own /etc/subuid and /etc/subgid are others, and the interpreter is
# where the user may go. It is started by root and then gives up its rights; a process that did so
# is not "dumpable" and belongs to root in /proc, where newuidmap looks, until it says it is.
_PROGRAM = """
import ctypes, os, sys
uid, gid, subuid, subgid, *arguments = sys.argv[1:]
import ociroot.cli

def mount(source, target, kind, flags, options):
    assert libc.mount(*map(os.fsencode, (source, target, kind)), flags, options) == 0, target

libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
bind, private = 0x1000, 0x44000
mount("none", "/", "", private, b"")
mount(subuid, "/etc/subuid", "", bind, b"")
mount(subgid, "/etc/subgid", "", bind, b"")
for path in {sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(ociroot.__file__))}:
    names = path.split("/")
    ways = ["/".join(names[: n + 1]) for n in range(1, len(names))]
    closed = [way for way in ways if not os.stat(way).st_mode & 1]
    if closed:
        fd = os.open(path, os.O_RDONLY)
        mount("tmpfs", closed[0], "tmpfs", 0, b"mode=755")
        os.makedirs(path)
        mount(f"/proc/self/fd/{fd}", path, "", bind, b"")
os.setgroups([])
os.setresgid(int(gid), int(gid), int(gid))
os.setresuid(int(uid), int(uid), int(uid))
assert libc.prctl(4, 1, 0, 0, 0) == 0
sys.argv[1:] = arguments
if arguments[0] == "-c":
    exec(arguments[1])
else:
    ociroot.cli.main()
"""


# Has root's ranges in such a mount namespace, and becomes another program.
_AS_ROOT = 'mount --bind "$1" /etc/subuid && mount --bind "$2" /etc/subgid && shift 2 && exec "$@"'


@contextmanager
def _ranges(subuid: str, subgid: str) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place, name) for name in ("subuid", "subgid")]
        for path, text in zip(paths, (subuid, subgid), strict=True):
            path.write_text(text)
        yield list(map(str, paths))


@contextmanager
def as_user(*arguments: str | Path, subuid: str = f"{USER}:300000:65536\n") -> Iterator[list[str]]:
    """Yield the words that run the command, or with `-c` a program, as an ordinary user."""
    with _ranges(subuid, subuid) as paths:
        command = [sys.executable, "-c", _PROGRAM, str(UID), str(GID), *paths]
        yield [*command, *map(str, arguments)]


def run_as_user(
    *arguments: str | Path, subuid: str = f"{USER}:300000:65536\n", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command as an ordinary user with these subordinate ids, to its end."""
    with as_user(*arguments, subuid=subuid) as command:
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def run_with_ranges(
    *command: str | Path, subuid: str = "root:100000:65536\n", **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as root, who has these subordinate ids."""
    with _ranges(subuid, subuid) as paths:
        start = ["unshare", "--mount", "--propagation=private", "sh", "-c", _AS_ROOT, "sh"]
        return subprocess.run(
            [*start, *paths, *command], capture_output=True, check=False, **options
        )
