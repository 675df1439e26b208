"""Measure how time and memory grow with entries, bytes and layers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from .cases import Case, Say, figures, warm
from .images import Image
from .measure import Run, interleaved, script_path
from .peers import OURS, measure
from .places import Place
from .synthetic import Size

__all__ = ["scaled", "tree_size"]


def scaled(size: Size, image: Image, runs: int, where: Place, say: Say) -> Case:
    """Measure an extraction and its tree at one size."""

    def one(name: str, number: int) -> Run:
        with where.fresh() as out:
            return measure(OURS[0], image, out, Path())

    warm(image)
    samples, failures = interleaved([OURS[0].name], runs, one, say)
    found: Case = {"date": time.strftime("%Y-%m-%d"), "entries": size.entries, "bytes": size.bytes}
    for each in samples.values():
        found |= figures(each)
    if size.entries > 1:
        found["tree"] = tree_size(image)
    return found | {"failures": failures}


def tree_size(image: Image) -> float:
    """Return the bytes of memory per entry of an image's merged tree."""
    done = subprocess.run(
        [sys.executable, script_path("tree_size.py"), image.archive],
        check=True,
        stdout=subprocess.PIPE,
    )
    size, entries = map(int, done.stdout.split())
    return size / entries
