"""The fuzz targets on their seeds, on earlier findings, and on deterministic mutations.

`make fuzz` runs them for longer, guided by coverage.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from fuzz.mutate import crossed, raw
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

from .support.tally import tally
from .support.user import as_ordinary_user

CASES = Path(__file__).parent.parent / "fuzz" / "cases"
# The number of mutations: an extraction is slow.
MUTATIONS = {"extract": 100, "commands": 100, "documents": 200}
MOST = int(os.environ.get("OCIROOT_FUZZ", "500"))


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def mutations(name: str, count: int) -> Iterator[bytes]:
    """Yield mutations of the seeds, and of earlier mutations."""
    target, random = TARGETS[name], Random(name)
    pool = SEEDS[name]()
    for number in range(count):
        data = target.mutate(random.choice(pool), target.longest, random, raw(random))
        if target.crosses and number % 20 == 0:
            data = crossed(data, random.choice(pool), target.longest, random)
        if number % 3 == 0:
            pool.append(data)
        yield data


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    for data in SEEDS[name]():
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_cases(name: str) -> None:
    for case in sorted((CASES / name).glob("*")):
        TARGETS[name].run(case.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    for data in mutations(name, min(MUTATIONS.get(name, MOST), MOST)):
        TARGETS[name].run(data)
        tally("an input to a fuzz target", "as it should be")


def test_extraction_as_an_ordinary_user() -> None:
    def work() -> None:
        for data in [*SEEDS["extract"](), *mutations("extract", 50)]:
            TARGETS["extract"].run(data)

    as_ordinary_user(work)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_the_same_each_time(name: str) -> None:
    """Findings of `make test` are reproducible."""
    assert list(mutations(name, 50)) == list(mutations(name, 50))
