"""Run the tests against deliberate faults: ``python -m tools.mutants [NAME...]``.

A test that no fault makes fail asserts nothing. Each file ``tests/mutants/*.patch`` is one small
fault in the code, with the quick tests that must detect it:

    # what is broken, in one sentence
    # tests: tests/test_tar.py::test_name tests/test_codec.py

    (a unified diff against the checkout)

For each fault, a copy of the checkout is patched and these tests are run there. A fault with which
they pass survives: it is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

CHECKOUT = Path(__file__).resolve().parent.parent
PATCHES = CHECKOUT / "tests" / "mutants"
# Timeout of a run of tests in seconds: a fault may make them wait for ever.
TIMEOUT = 600
# pytest's exit codes (pytest.ExitCode).
PASSED, FAILED = 0, 1


class Unusable(Exception):
    """A patch without a result: it does not apply, or the tests cannot run."""


@dataclass(frozen=True)
class Mutant:
    """A deliberate fault.

    Attributes:
        name: the file's name, without its suffix.
        path: the patch.
        fault: what is broken.
        tests: the arguments of pytest.
    """

    name: str
    path: Path
    fault: str
    tests: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Mutant:
        """Read a patch.

        Raises:
            Unusable: its first two lines are malformed.
        """
        lines = path.read_text().split("\n")
        marks = ("# ", "# tests: ")
        if len(lines) < 2 or not all(map(str.startswith, lines, marks)):
            raise Unusable(f"{path.name} does not begin with a fault and its tests")
        fault, tests = (line.removeprefix(mark) for line, mark in zip(lines, marks, strict=False))
        return cls(path.stem, path, fault, tuple(tests.split()))


def mutants(names: list[str] | None = None) -> list[Mutant]:
    """Return the faults with these names, or all faults without names."""
    found = [Mutant.read(path) for path in sorted(PATCHES.glob("*.patch"))]
    known = {mutant.name for mutant in found}
    unknown = sorted(set(names or ()) - known)
    if unknown:
        raise Unusable(f"there is no {', '.join(unknown)} in {PATCHES}")
    return [mutant for mutant in found if not names or mutant.name in names]


def apply(mutant: Mutant, checkout: Path, *options: str) -> None:
    """Apply a patch to a checkout.

    Raises:
        Unusable: it does not apply.
    """
    done = subprocess.run(
        ["git", "apply", *options, mutant.path],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        # A copy is not a repository; inside another one, git would skip files outside of that one.
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(checkout.parent)},
    )
    if done.returncode:
        raise Unusable(f"{mutant.name}: it does not apply: {done.stderr.strip()}")


@contextlib.contextmanager
def copy() -> Iterator[Path]:
    """Copy the checkout, with an environment that imports its modules."""
    with tempfile.TemporaryDirectory(prefix="ociroot-mutants.") as place:
        Path(place).chmod(0o755)  # tests run programs as another user
        target = Path(place, "checkout")
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (CHECKOUT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, target / name)
        environment = [sys.executable, "-m", "venv", "--without-pip", str(target / ".venv")]
        subprocess.run(environment, check=True, capture_output=True)
        packages = next((target / ".venv" / "lib").glob("python*/site-packages"))
        paths = (target / "src", sysconfig.get_path("purelib"))
        (packages / "mutants.pth").write_text("".join(f"{path}\n" for path in paths))
        yield target


def run(checkout: Path, *tests: str) -> tuple[int, str]:
    """Run tests in a copy; return pytest's exit code, and the line of the first failure."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    # Byte code is validated by the source's size and time, which a patch may not change.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [str(checkout / ".venv/bin/python"), "-m", "pytest", "-x", "-q", *tests]
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            [*command, "-p", "no:cacheprovider", "--tb=no"],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()
            return FAILED, f"not done after {TIMEOUT} s"
        output.seek(0)
        lines = output.read().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return code, (failed or lines[-1:] or [""])[0]


def judge(mutant: Mutant, checkout: Path) -> str:
    """Return the test that detected a fault; an empty text if it survives.

    Raises:
        Unusable: it does not apply, or the tests cannot be run with it.
    """
    apply(mutant, checkout)
    try:
        code, line = run(checkout, *mutant.tests)
    finally:
        apply(mutant, checkout, "--reverse")
    if code not in (PASSED, FAILED):
        raise Unusable(f"{mutant.name}: pytest ended with {code}: {line}")
    return line if code == FAILED else ""


def main() -> int:
    """Run the requested faults; return the exit code."""
    parser = argparse.ArgumentParser(description="Run the tests against deliberate faults.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of tests/mutants/NAME.patch")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    outcomes: dict[str, list[str]] = {"noticed": [], "SURVIVED": [], "UNUSABLE": []}
    with contextlib.ExitStack() as stack:
        wanted = mutants(options.names)
        copies: SimpleQueue[Path] = SimpleQueue()
        for _ in range(options.jobs):
            copies.put(stack.enter_context(copy()))

        def work(mutant: Mutant) -> None:
            start, checkout = time.monotonic(), copies.get()
            try:
                by = judge(mutant, checkout)
                outcome, about = ("noticed", by) if by else ("SURVIVED", mutant.fault)
            except Unusable as error:
                outcome, about = "UNUSABLE", str(error)
            finally:
                copies.put(checkout)
            outcomes[outcome].append(mutant.name)
            seconds = time.monotonic() - start
            print(f"{outcome} {mutant.name} ({seconds:.0f} s): {about}", flush=True)

        # A test that fails without any fault detects nothing.
        tests = sorted({test for mutant in wanted for test in mutant.tests})
        checkout = copies.get()
        code, line = run(checkout, *tests)
        copies.put(checkout)
        if code != PASSED:
            raise Unusable(f"the tests do not pass without a fault: {line}")
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(work, wanted))
    print(", ".join(f"{len(names)} {outcome}" for outcome, names in outcomes.items()))
    return 0 if outcomes["noticed"] and not outcomes["SURVIVED"] + outcomes["UNUSABLE"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as error:
        sys.exit(str(error))
