"""Run a part of a test as an ordinary user, when we are root."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run
from typing import TypeVar

T = TypeVar("T")
NOBODY = 65534


def as_ordinary_user(work: Callable[[], T]) -> T:
    """Call `work` in an unprivileged child; return its result or raise its exception.

    A fork instead of a new program: the user may not be able to read the checkout's modules.
    """
    if os.geteuid() != 0:
        return work()

    def change() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    return _in_child(change, work)


def in_root(root: Path, work: Callable[[], T]) -> T:
    """Call `work` in a child whose root is a directory; return or raise what it does."""

    def change() -> None:
        os.chroot(root)
        os.chdir("/")

    return _in_child(change, work)


def _in_child(change: Callable[[], None], work: Callable[[], T]) -> T:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            change()
            try:
                outcome: tuple[bool, object] = (True, work())
            except BaseException as error:
                outcome = (False, error)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(outcome, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(answer)
    if not good:
        raise value
    return value  # type: ignore[no-any-return]


@contextmanager
def workshop() -> Iterator[Path]:
    """A world-writable directory, in memory if possible.

    It is removed with its content, even if that is too deep for Python's rmtree or not writable.
    """
    memory = Path("/dev/shm")
    name = tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None)
    try:
        Path(name).chmod(0o777)
        yield Path(name)
    finally:
        remove(Path(name))


def remove(tree: Path) -> None:
    """Remove a tree, even with directories that their owner may not write to."""
    if os.geteuid() != 0:
        run(["chmod", "-R", "u+rwX", tree], check=False, capture_output=True)
    run(["rm", "-rf", tree], check=True)


def unprivileged(messages: str) -> str:
    """Return messages without the warnings that every ordinary user gets."""
    if os.geteuid() == 0:
        return messages
    expected = ("owners were not kept", "set-id bits were dropped")
    lines = messages.splitlines(keepends=True)
    return "".join(line for line in lines if not any(each in line for each in expected))
