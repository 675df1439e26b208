"""Run programs and measure the resources that they use."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Failed", "Run", "Samples", "interleaved", "median", "ratio", "run"]

# A process inherits the peak resident set of the one that forked it, so a small one is between. The
# figures include all descendants that were waited for: of a pipeline the sum of the times, and the
# largest of the resident sets.
_BETWEEN = """
import json, os, sys, time
begin = time.perf_counter()
pid = os.posix_spawn("/bin/sh", ["sh", "-euc", sys.argv[1]], os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "user": usage.ru_utime, "system": usage.ru_stime,
                  "peak": usage.ru_maxrss * 1024, "status": os.waitstatus_to_exitcode(status)}))
"""


class Failed(Exception):
    """A program failed."""


@dataclass(frozen=True)
class Run:
    """The resources that one run used.

    Attributes:
        seconds: wall time.
        user: seconds in user mode of all its processes.
        system: seconds in the kernel of all its processes.
        peak: the largest peak resident set of its processes, in bytes.
    """

    seconds: float
    user: float
    system: float
    peak: int

    def as_dict(self) -> dict[str, float]:
        """Return the figures for the results."""
        return asdict(self)


#: Runs by the name of the program, the same number of each, in the order of the rounds.
Samples = dict[str, list[Run]]


# Installed programs have byte code files; with this variable set they would never be written.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run(script: str, environment: Mapping[str, str] | None = None) -> Run:
    """Run a shell script and measure it.

    Args:
        script: the script for ``sh -eu``; pipelines fail only with their last command.
        environment: variables in addition to ours.

    Raises:
        Failed: it did not exit with 0.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _BETWEEN, script],
        env={**_ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = done.stdout.splitlines()
    found = json.loads(lines[-1]) if done.returncode == 0 and lines else {"status": "unknown"}
    if (status := found.pop("status")) != 0:
        why = (done.stderr.strip() or "no message").splitlines()[-1]
        raise Failed(f"exit {status}: {why}")
    return Run(**found)


def interleaved(
    programs: Sequence[str],
    runs: int,
    one: Callable[[str, int], Run],
    say: Callable[[str], None],
) -> tuple[Samples, dict[str, str]]:
    """Run programs in rounds, each once per round, every round beginning with another one.

    Args:
        programs: their names.
        runs: the number of rounds.
        one: runs a program, given its name and the number of the round.
        say: reports failures.

    Returns:
        The runs, and the reasons of failures; a program that has failed is not run again.
    """
    samples: Samples = {name: [] for name in programs}
    failures: dict[str, str] = {}
    for number in range(runs):
        turn = number % len(programs) if programs else 0
        for name in [*programs[turn:], *programs[:turn]]:
            if name in failures:
                continue
            try:
                samples[name].append(one(name, number))
            except Failed as failure:
                failures[name] = str(failure)
                say(f"{name}: {failure}")
                del samples[name]
    return samples, failures


def median(runs: Sequence[Run], what: str = "seconds") -> float:
    """Return the median of one of the figures."""
    return float(statistics.median(getattr(each, what) for each in runs))


def ratio(ours: Sequence[Run], theirs: Sequence[Run], allowance: float = 0.0) -> float:
    """Return the median of the ratios of wall time, round by round.

    Args:
        ours: our runs.
        theirs: another program's runs, in the same rounds.
        allowance: seconds that are subtracted from ours.
    """
    pairs = zip(ours, theirs, strict=True)
    return statistics.median((a.seconds - allowance) / b.seconds for a, b in pairs)


def script_path(name: str) -> Path:
    """Return the path of a file of the benchmark."""
    return Path(__file__).parent / name
