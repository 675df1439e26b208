"""Doing something in a user namespace with a given map, as the kernel has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ociroot import linux
from ociroot.outputs.ids import IdMap


def in_namespace(uids: IdMap, gids: IdMap, work: Callable[[], None]) -> None:
    """Call `work` in a child that is root of a user namespace; root writes its maps."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(go[1])
            linux.unshare_user()
            os.write(ready[1], b".")
            os.read(go[0], 1)
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            work()
            status = 0
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(status)
    os.close(ready[1])
    try:
        os.read(ready[0], 1)
        for name, used in (("uid_map", uids), ("gid_map", gids)):
            lines = "".join(f"{a} {b} {c}\n" for a, b, c in used.ranges)
            Path(f"/proc/{child}/{name}").write_text(lines)
        os.write(go[1], b".")
    finally:
        for fd in (ready[0], *go):
            os.close(fd)
        _, status = os.waitpid(child, 0)
    assert status == 0, status
