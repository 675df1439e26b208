"""Measure the peak memory of a command as the kernel reports it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# execve(2) keeps the peak resident set of the process that forked, which is pytest with all of its
# modules; so a small process is between. Its last line of output is the figure.
_MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss * 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Measured(NamedTuple):
    """The result of a run of the command."""

    code: int
    err: str
    peak: int  # peak resident set in bytes


def measured(*arguments: str | Path) -> Measured:
    """Run `ociroot` in a child process; its stdout is discarded."""
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
