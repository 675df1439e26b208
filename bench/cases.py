"""The measurements: extraction beside the peers, start-up, layers one by one, and cores."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .goals import STARTUP, judge
from .images import Image, digest_of, single
from .measure import Run, interleaved, median, run
from .peers import OURS, Peer, measure
from .places import Place

__all__ = ["Case", "by_cores", "by_layers", "extraction", "figures", "startup"]

#: A result: plain values by name.
Case = dict[str, Any]
Say = Callable[[str], None]
_OCIROOT = f"{shlex.quote(sys.executable)} -m ociroot"


def warm(image: Image) -> None:
    """Read the files into the page cache, so that no run pays for the disk."""
    for path in (image.archive, *image.blobs):
        digest_of(path)


def figures(runs: Sequence[Run]) -> Case:
    """Return the medians of some runs, and the runs."""
    return {
        "seconds": median(runs),
        "cpu": median(runs, "user") + median(runs, "system"),
        "peak": max(each.peak for each in runs),
        "runs": [each.as_dict() for each in runs],
    }


def extraction(
    image: Image, peers: Sequence[Peer], runs: int, where: Place, floor: Path, say: Say
) -> Case:
    """Measure peers with one image; the goals are for trees in memory."""
    known = {peer.name: peer for peer in peers}

    def one(name: str, number: int) -> Run:
        with where.fresh() as out:
            return measure(known[name], image, out, floor)

    warm(image)
    samples, failures = interleaved(list(known), runs, one, say)
    table: Case = {}
    for name, found in samples.items():
        table[name] = figures(found)
        against = known[name].against
        if known[name] not in OURS and against in samples:
            verdict = judge(image.name, image.compression, name, samples, against)
            table[name]["ratio"] = verdict.ratio
            if not where.keep:
                table[name] |= {"limit": verdict.limit, "met": verdict.met}
    date = time.strftime("%Y-%m-%d")
    return {"date": date, "runs": runs, "peers": table, "failures": failures, "short": where.short}


def startup(image: Image, runs: int, where: Place, say: Say) -> Case:
    """Measure the start-up time, beside that of an interpreter that does nothing.

    Args:
        image: an image of a single small file.
        runs: the number of rounds.
        where: the directory for the trees.
        say: reports failures.
    """
    nothing = "python -c pass"
    scripts = {
        nothing: f"{shlex.quote(sys.executable)} -c pass",
        "ociroot --help": f"{_OCIROOT} --help >/dev/null",
        "ociroot extract": f"{_OCIROOT} extract -q {shlex.quote(str(image.archive))} {{}}",
    }

    def one(name: str, number: int) -> Run:
        with where.fresh() as out:
            return run(scripts[name].format(shlex.quote(str(out))))

    samples, failures = interleaved(list(scripts), runs, one, say)
    table: Case = {}
    for name, found in samples.items():
        table[name] = figures(found)
        if name != nothing and nothing in samples:
            pairs = zip(found, samples[nothing], strict=True)
            more = sorted(a.seconds - b.seconds for a, b in pairs)[len(found) // 2]
            table[name] |= {"more": more, "limit": STARTUP, "met": more <= STARTUP}
    return {"date": time.strftime("%Y-%m-%d"), "runs": runs, "peers": table, "failures": failures}


def by_layers(
    image: Image,
    layers: Sequence[Path],
    tiny: Image,
    cache: Path,
    runs: int,
    where: Place,
    say: Say,
) -> Case:
    """Measure an image against its layers one by one, each as an image.

    Args:
        image: the image.
        layers: its uncompressed layers.
        tiny: a minimal image, to measure the start-up time.
        cache: the directory for the images of one layer.
        runs: the number of rounds.
        where: the directory for the trees.
        say: reports failures.
    """
    images = {"image": image, "start-up": tiny}
    for number, layer in enumerate(layers):
        images[f"layer {number + 1}"] = single(image, number, cache, digest_of(layer))
        warm(images[f"layer {number + 1}"])

    def one(name: str, number: int) -> Run:
        with where.fresh() as out:
            return measure(OURS[0], images[name], out, Path())

    samples, failures = interleaved(list(images), runs, one, say)
    if failures:
        return {"date": time.strftime("%Y-%m-%d"), "failures": failures}
    whole, start = median(samples["image"]), median(samples["start-up"])
    total = sum(median(runs) for name, runs in samples.items() if name.startswith("layer"))
    return {
        "date": time.strftime("%Y-%m-%d"),
        "runs": runs,
        "image": whole,
        "sum": total,
        "sum_started_once": total - start * (len(layers) - 1),
        "met": whole < total,
        "layers": {name: median(found) for name, found in samples.items()},
    }


def by_cores(image: Image, runs: int, where: Place, say: Say) -> Case:
    """Measure an image on one core, on two, on four and so on."""
    cores = sorted(os.sched_getaffinity(0))
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= len(cores)]
    if len(cores) not in counts:
        counts.append(len(cores))
    names = {f"{n} core{'s' * (n > 1)}": ",".join(map(str, cores[:n])) for n in counts}

    def one(name: str, number: int) -> Run:
        with where.fresh() as out:
            pinned = Peer(name, f"taskset -c {names[name]} {OURS[0].script}")
            return measure(pinned, image, out, Path())

    warm(image)
    samples, failures = interleaved(list(names), runs, one, say)
    table = {name: figures(found) for name, found in samples.items()}
    return {"date": time.strftime("%Y-%m-%d"), "runs": runs, "peers": table, "failures": failures}
