"""Fuzz every target for some time, one per processor in parallel, and print the results.

    python -m fuzz.campaign SECONDS [TARGET ...]

The table is in Markdown. It exits with 1 when there was a finding.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .run import FINDINGS, HERE
from .seeds import SEEDS

_FOUND = re.compile(r"^FINDING |Test unit written to", re.MULTILINE)
_STATUS = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)


class Outcome(NamedTuple):
    """The result of one target's run."""

    target: str
    inputs: int
    seconds: int
    coverage: int
    features: int
    corpus: int
    findings: int


def fuzz(target: str, seconds: int) -> Outcome:
    """Run one target in a child process; its output goes to a file beside the findings."""
    log = FINDINGS / f"{target}.log"
    command = [sys.executable, "-m", "fuzz.run", target, f"-max_total_time={seconds}"]
    with log.open("wb") as out:
        process = subprocess.run(
            command, cwd=HERE.parent, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    outcome = outcome_of(target, log.read_text("utf-8", "replace"))
    # A run that ended without a finding, for example by a bug in the target.
    failed = process.returncode != 0 and not outcome.findings
    return outcome._replace(findings=1) if failed else outcome


def outcome_of(target: str, log: str) -> Outcome:
    """Parse the output of libFuzzer and of the target."""
    status = _STATUS.findall(log)
    inputs, coverage, features, corpus = map(int, status[-1] if status else (0, 0, 0, 0))
    done = _DONE.search(log)
    inputs, seconds = map(int, done.groups()) if done is not None else (inputs, 0)
    findings = len(_FOUND.findall(log))
    return Outcome(target, inputs, seconds, coverage, features, corpus, findings)


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = [
        "| target | inputs tried | seconds | branches covered | features | corpus | findings |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += ["| " + " | ".join(map(str, outcome)) + " |" for outcome in outcomes]
    return "\n".join(lines)


def main(seconds: int, targets: list[str]) -> int:
    """Run the targets; print the findings and their paths."""
    FINDINGS.mkdir(exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    print(f"{len(targets)} targets, {seconds} s each, {cores} at a time", flush=True)
    with ThreadPoolExecutor(cores) as pool:
        outcomes = list(pool.map(lambda target: fuzz(target, seconds), targets))
    print(table(outcomes))
    found = sum(outcome.findings for outcome in outcomes)
    if found:
        what = "finding" if found == 1 else "findings"
        print(f"\n{found} {what}, in {FINDINGS.relative_to(HERE.parent)}/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:] or list(SEEDS)))
