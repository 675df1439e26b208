"""The command line of the benchmark: ``python -m bench --help``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import inputs, synthetic
from .cases import by_cores, by_layers, extraction, startup
from .images import COMPRESSIONS, Image, make
from .measure import Failed
from .peers import PEERS, compile_floor, usable
from .places import PLACES, Place, place
from .report import Results
from .scale import scaled

CACHE = Path(os.environ.get("OCIROOT_BENCH", "/var/tmp/ociroot-bench"))
RESULTS = Path("build/bench")


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    parts: Sequence[str]
    inputs: Sequence[str]
    compressions: Sequence[str]
    peers: Sequence[str] | None
    before: Path | None
    places: Sequence[str]
    sizes: Sequence[str] | None
    runs: int
    cache: Path
    results: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results after each case."""
    options = Options(**vars(_parser().parse_args(arguments)))
    results = Results(options.results)
    status = 0
    for name in options.places:
        with place(name, options.cache) as where:
            for part in options.parts or list(PARTS)[:-1]:
                try:
                    PARTS[part](options, name, where, results)
                except Failed as failure:
                    say(f"{part}: {failure}")
                    status = 1
    say(f"the results are in {options.results}")
    return status


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what extraction costs; without parts, all of them but scale.",
    )

    def several(known: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(value: str) -> list[str]:
            values = value.split(",")
            for each in values:
                if each not in known:
                    raise argparse.ArgumentTypeError(f"{each}: not one of {', '.join(known)}")
            return values

        return parse

    peers, sizes = [peer.name for peer in PEERS], [size.name for size in synthetic.SCALE]
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    for name, known, default, what in (
        ("inputs", list(inputs.INPUTS), list(inputs.INPUTS), "which images"),
        ("compressions", list(COMPRESSIONS), list(COMPRESSIONS), "of their layers"),
        ("places", list(PLACES), list(PLACES), "where the trees go"),
        ("peers", peers, None, "besides ociroot"),
        ("sizes", sizes, None, "of scale's images"),
    ):
        shown = f"{what}: some of {', '.join(known)}, with commas (all)"
        parser.add_argument(f"--{name}", type=several(known), default=default, help=shown)
    parser.add_argument(
        "--before",
        type=Path,
        metavar="PYTHON",
        help="also measure the ociroot of another environment: its bin/python",
    )
    parser.add_argument("--runs", type=int, default=5, help="of each program (5)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        help=f"where inputs are kept, and trees on disk made (OCIROOT_BENCH, or {CACHE})",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"({RESULTS})")
    return parser


def _images(options: Options) -> Iterator[tuple[Image, list[Path]]]:
    for name in options.inputs:
        layers = inputs.layers_of(name, options.cache, say)
        for compression in options.compressions:
            say(f"image: {name}, {compression}")
            yield make(_kept(options), name, layers, compression), layers


def _kept(options: Options) -> Path:
    directory = options.cache / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _tiny(options: Options) -> Image:
    layers = synthetic.tiny(options.cache / "synthetic/tiny")
    return make(_kept(options), "tiny", layers, "gzip")


def _extract(options: Options, name: str, where: Place, results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix=".floor-", dir=options.cache) as directory:
        floor = compile_floor(Path(directory))
        for image, _ in _images(options):
            peers = usable(options.peers, image.compression, options.before)
            found = extraction(image, peers, options.runs, where, floor, say)
            results.add("extract", f"{name}/{image.name}/{image.compression}", found)


def _startup(options: Options, name: str, where: Place, results: Results) -> None:
    if name == "tmpfs":
        found = startup(_tiny(options), 4 * options.runs + 1, where, say)
        results.add("startup", name, found)


def _layers(options: Options, name: str, where: Place, results: Results) -> None:
    if name != "tmpfs" or "layers" not in options.inputs:
        return
    layers = inputs.layers_of("layers", options.cache, say)
    for compression in options.compressions:
        image = make(_kept(options), "layers", layers, compression)
        say(f"layers one by one: {compression}")
        tiny, kept = _tiny(options), _kept(options)
        found = by_layers(image, layers, tiny, kept, options.runs, where, say)
        results.add("layers", compression, found)


def _cores(options: Options, name: str, where: Place, results: Results) -> None:
    if name == "tmpfs":
        for image, _ in _images(options):
            found = by_cores(image, options.runs, where, say)
            results.add("cores", f"{image.name}, {image.compression}", found)


def _scale(options: Options, name: str, where: Place, results: Results) -> None:
    if name != "tmpfs":
        return
    for size in synthetic.SCALE:
        if options.sizes is None or size.name in options.sizes:
            for compression in options.compressions:
                say(f"scale: {size.name}, {compression}")
                kept = options.cache / "synthetic" / size.name.replace(" ", "-")
                layers = synthetic.layers_of(size, kept)
                image = make(kept, "image", layers, compression)
                found = scaled(size, image, options.runs, where, say)
                results.add("scale", f"{size.name}, {compression}", found)


#: The parts; the last one runs only if named.
PARTS: dict[str, Callable[[Options, str, Place, Results], None]] = {
    "extract": _extract,
    "startup": _startup,
    "layers": _layers,
    "cores": _cores,
    "scale": _scale,
}

if __name__ == "__main__":
    sys.exit(main())
