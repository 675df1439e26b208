"""How much memory a command takes, as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# execve(2) keeps the largest resident set of the process that forked, which here is pytest with
# all that it has loaded; so a small process stands between. Its last words are the figure.
_MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss * 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Measured(NamedTuple):
    """What a run of the command came to."""

    code: int
    err: str
    peak: int  # bytes of its largest resident set


def measured(*arguments: str | Path) -> Measured:
    """Run `ociroot` in a process of its own; what it prints on stdout is dropped."""
    command = [sys.executable, "-m", "ociroot", *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    *err, figure = done.stderr.splitlines()
    return Measured(done.returncode, "\n".join(err), int(figure))
