"""Fuzz one target with atheris, coverage-guided, from its seeds and earlier inputs.

    python -m fuzz.run TARGET [libFuzzer options]

A finding is written to ``fuzz/findings`` as the input and its traceback, once per origin; then
fuzzing continues. A hang or excessive memory ends the run, and libFuzzer writes the input.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .targets import Target

HERE = Path(__file__).parent
FINDINGS = HERE / "findings"
CORPUS = HERE / "corpus.new"
_OPTIONS = ("-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-report_slow_units=10")


def signature(error: BaseException) -> str:
    """Return the origin of an error, which is the same for all inputs with the same fault."""
    places = []
    while True:
        frames = traceback.extract_tb(error.__traceback__)
        places.append(type(error).__name__)
        places += [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-4:]]
        if error.__context__ is None:
            break
        error = error.__context__
    return hashlib.sha256(" ".join(places).encode()).hexdigest()[:10]


def keeping(name: str, run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a target that writes its findings and continues."""
    seen: dict[str, int] = {}

    def one(data: bytes) -> None:
        try:
            run(data)
        except Exception as error:
            found = signature(error)
            if len(data) >= seen.get(found, sys.maxsize):
                return
            if found not in seen:
                print(f"FINDING {name}-{found}: {type(error).__name__}: {error}"[:500], flush=True)
            # Keep the smallest input.
            seen[found] = len(data)
            FINDINGS.mkdir(exist_ok=True)
            (FINDINGS / f"{name}-{found}").write_bytes(data)
            text = "".join(traceback.format_exception(error))
            (FINDINGS / f"{name}-{found}.txt").write_text(text, "utf-8", "backslashreplace")

    return one


def mutators(atheris: Any, target: Target) -> dict[str, Any]:
    """Return the target's mutators, as options of atheris."""
    from .mutate import crossed

    def custom_mutator(data: bytes, limit: int, seed: int) -> bytes:
        return target.mutate(data, limit, Random(seed), atheris.Mutate)

    def custom_crossover(one: bytes, other: bytes, limit: int, seed: int) -> bytes:
        return crossed(one, other, limit, Random(seed))

    found: dict[str, Any] = {"custom_mutator": custom_mutator}
    if target.crosses:
        found["custom_crossover"] = custom_crossover
    return found


def main(name: str, options: list[str]) -> None:
    """Run one target until a limit in libFuzzer's options."""
    # Imported dynamically: type checks and tests run without it.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["ociroot"]):
        targets = importlib.import_module("fuzz.targets")
    seeds = importlib.import_module("fuzz.seeds").SEEDS[name]()
    words = importlib.import_module("fuzz.mutate_json").WORDS
    target: Target = targets.TARGETS[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    dictionary = CORPUS / "json.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
    arguments = [
        sys.argv[0],
        *_OPTIONS,
        f"-max_len={target.longest}",
        f"-artifact_prefix={FINDINGS}/{name}-",
        *([f"-dict={dictionary}"] if name == "documents" else []),
        *options,
        str(corpus),
    ]
    atheris.Setup(arguments, keeping(name, target.run), **mutators(atheris, target))
    atheris.Fuzz()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
