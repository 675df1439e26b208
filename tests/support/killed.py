"""Kill runs in the middle, so that they leave left-overs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ociroot
from ociroot import linux

#: The functions that change something during an extraction.
CHANGES = (
    *("mkdir", "rename", "rmdir", "unlink", "fchmod", "chmod", "fchown", "utime", "symlink"),
    *("removexattr", "setxattr", "fsync"),
)
_OF_LINUX = ("renameat2", "syncfs")


def in_a_fork(work: Callable[[], None]) -> int:
    """Call a function in a child process; return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave(image: Path, root: Path, **options: Any) -> None:
    """Kill a run in the middle of its work."""
    killed = in_a_fork(lambda: _extract(image, root, progress=_die, **options))
    assert killed == -signal.SIGKILL


def killed_at(number: int, image: Path, root: Path, **options: Any) -> bool:
    """Kill a run before its nth call that changes something; return whether it was killed."""

    def work() -> None:
        count = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **further: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    _die()
                return real(*arguments, **further)

            return call

        for module, names in ((os, CHANGES), (linux, _OF_LINUX)):
            for name in names:
                setattr(module, name, counted(getattr(module, name)))
        _extract(image, root, **options)

    status = in_a_fork(work)
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _extract(image: Path, root: Path, progress: Any = None, **options: Any) -> None:
    with ociroot.open(image) as source:
        source.image().extract(root, ociroot.ExtractOptions(**options), progress=progress)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
