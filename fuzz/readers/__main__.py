"""Try random inputs with all readers for some time, and print the results.

    python -m fuzz.readers SECONDS [SEED [TARGET]]

An undecided difference is written to ``fuzz/findings/``, minimised, with what each reader
sees. The same seed gives the same inputs. The table is in Markdown; its lines are
also added to ``fuzz/findings/readers.log``. It exits with 1 when there was a finding.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from random import Random

from ..run import FINDINGS
from .difference import Difference
from .targets import TARGETS, Target

# Findings kept per kind of difference: minimising each takes a while.
_MOST = 3


class Run:
    """One run of a target.

    Attributes:
        inputs: the number of inputs.
        accepted: by reader, the number of inputs that both it and we accepted.
        decided: by name, the number of decided differences.
        found: by signature, the number of undecided differences.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.target: Target = TARGETS[name]
        self.inputs = 0
        self.seconds = 0.0
        self.accepted: Counter[str] = Counter()
        self.decided: Counter[str] = Counter()
        self.found: Counter[str] = Counter()

    def try_next(self, seed: str) -> None:
        """Generate the next input of a seed, read it, and keep its differences."""
        before = time.monotonic()
        data = self.target.make(Random(f"{seed}-{self.name}-{self.inputs}"))
        result = self.target.compare(data)
        self.inputs += 1
        self.accepted.update(result.accepted)
        self.decided.update(set(result.decided))
        for signature in {each.signature for each in result.differences}:
            self.found[signature] += 1
            if self.found[signature] <= _MOST:
                self._keep(signature, data)
        self.seconds += time.monotonic() - before

    def _keep(self, signature: str, data: bytes) -> None:
        """Minimise an input and write it to a file."""

        def shown(data: bytes) -> list[Difference]:
            found = self.target.compare(data).differences
            return [each for each in found if each.signature == signature]

        small = self.target.smaller(data, lambda data: bool(shown(data)))
        name = f"readers-{self.name}-{signature}-{hashlib.sha256(small).hexdigest()[:8]}"
        text = "\n".join(map(str, shown(small)))
        print(f"FINDING {name}: {text[:500]}", flush=True)
        FINDINGS.mkdir(exist_ok=True)
        (FINDINGS / name).write_bytes(small)
        (FINDINGS / f"{name}.txt").write_text(text + "\n", "utf-8", "backslashreplace")

    def lines(self) -> list[str]:
        """Return the results, one line per reader."""
        return [
            f"| {self.name} | {reader} | {self.inputs} | {self.accepted['ociroot']} | "
            f"{self.accepted[reader]} | {self.seconds:.0f} | "
            f"{sum(n for name, n in self.found.items() if name.startswith(reader + '-'))} |"
            for reader in self.target.readers
        ]


def main(seconds: float, seed: str, names: list[str]) -> int:
    """Try inputs of the targets for equal times; print the findings and their paths."""
    runs = [Run(name) for name in names]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        min(runs, key=lambda run: run.seconds).try_next(seed)
    head = "| inputs | reader | tried | accepted by us | by both | seconds | differing |"
    table = [line for run in runs for line in run.lines()]
    print("\n".join([head, "| --- | --- | ---: | ---: | ---: | ---: | ---: |", *table]))
    for run in runs:
        for name, count in run.decided.most_common():
            print(f"decided: {name}: {count} inputs")
    FINDINGS.mkdir(exist_ok=True)
    with (FINDINGS / "readers.log").open("a") as log:
        log.writelines(f"{line} seed {seed}\n" for line in table)
    found = sum(run.found.total() for run in runs)
    if found:
        print(f"\n{found} inputs differ; see {FINDINGS.relative_to(FINDINGS.parent.parent)}/")
    return 1 if found else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    chance = given[1] if len(given) > 1 else str(time.time_ns())
    sys.exit(main(float(given[0]), chance, given[2:] or list(TARGETS)))
