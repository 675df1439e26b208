"""Run the tests that try to break things, and print what they tried and the results.

    python tools/figures.py [pytest options]

The table is the one of docs/security.md. As root it includes the file systems.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

TESTS = (
    "test_corruption test_faults test_full_disk test_staging test_races test_fuzz test_model "
    "test_attacks test_limits test_odd_destinations"
)


def main() -> int:
    """Run the tests and print the table; return the exit code of the tests."""
    root = Path(__file__).parent.parent
    with tempfile.NamedTemporaryFile("r") as file:
        code = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", *sys.argv[1:]),
                *(f"tests/{name}.py" for name in TESTS.split()),
            ],
            cwd=root,
            env={**os.environ, "OCIROOT_TALLY": file.name},
            stdout=sys.stderr,
            check=False,
        ).returncode
        print(table(file.read()))
    return code


def table(lines: str) -> str:
    """Convert the recorded outcomes to a Markdown table."""
    kinds: dict[str, Counter[str]] = {}
    for line in lines.splitlines():
        kind, outcome, count = json.loads(line)
        kinds.setdefault(kind, Counter())[outcome] += count
    rows = ["| attempt | count | results |", "| --- | ---: | --- |"]
    for kind, outcomes in kinds.items():
        parts = ", ".join(f"{outcome}: {count:,}" for outcome, count in outcomes.most_common())
        rows.append(f"| {kind} | {outcomes.total():,} | {parts} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
