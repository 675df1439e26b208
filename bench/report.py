"""The results: one JSON document that is updated, and its tables in Markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Results", "markdown", "table"]

Document = dict[str, Any]
COMPRESSIONS = {"gzip": "gzip -6", "zstd": "zstd -3", "none": "plain"}


class Results:
    """The measurements so far, by part and case; each case is written when it is complete."""

    def __init__(self, directory: Path) -> None:
        """Continue with the results in a directory, or begin new ones.

        Args:
            directory: the directory of ``results.json`` and ``results.md``.
        """
        self._json = directory / "results.json"
        self._markdown = directory / "results.md"
        directory.mkdir(parents=True, exist_ok=True)
        self.document: Document = {"machine": machine()}
        if self._json.exists():
            self.document = json.loads(self._json.read_text()) | self.document

    def add(self, part: str, case: str, found: object) -> None:
        """Replace the earlier measurement of a case."""
        self.document.setdefault(part, {})[case] = found
        for path, text in (
            (self._json, json.dumps(self.document, indent=1) + "\n"),
            (self._markdown, markdown(self.document)),
        ):
            unfinished = path.with_name(path.name + ".unfinished")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.rename(path)


def machine() -> Document:
    """Describe the machine."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; all columns but the first are figures."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    # An unescaped bar would begin the next cell.
    safe = [[cell.replace("|", r"\|") for cell in row] for row in (head, marks, *rows)]
    return [f"| {' | '.join(row)} |" for row in safe] + [""]


def markdown(document: Document) -> str:
    """Return the tables of all measurements."""
    lines = ["# What extraction costs", "", _machine(document["machine"]), ""]
    lines += _overview(document)
    lines += _goals(document)
    for part, show in _PARTS.items():
        if document.get(part):
            lines += show(document[part])
    return "\n".join(lines)


def _machine(found: Document) -> str:
    return (
        f"{found['cores']} × {found['cpu']}, {found['memory'] / 2**30:.0f} GiB, "
        f"Linux {found['kernel']}, Python {found['python']}."
    )


def _goals(document: Document) -> list[str]:
    """Summarise how many goals are met, and which are not."""
    goals = []
    for case, found in document.get("extract", {}).items():
        if not case.startswith("tmpfs"):
            continue
        for peer, figures in found["peers"].items():
            if figures.get("limit") is not None:
                goals.append((case, found["peers"], peer, figures))
    if not goals:
        return []
    missed = [
        [
            f"{_title(case)}: {peer}",
            f"{figures['ratio']:.2f}",
            f"≤ {figures['limit']:g}",
            _floor(peers, figures),
        ]
        for case, peers, peer, figures in goals
        if not figures["met"]
    ]
    lines = ["## The goals", "", f"{len(goals) - len(missed)} of {len(goals)} are met.", ""]
    head = ("Missed", "ours / theirs", "goal", "the floor / theirs")
    return lines + (table(head, missed) if missed else [])


def _floor(peers: Document, figures: Document) -> str:
    """Return the ratio of the lower bound to a peer: no program could be faster."""
    floor = peers.get("floor")
    return f"{floor['seconds'] / figures['seconds']:.2f}" if floor not in (None, figures) else ""


# The columns of the overview: the heading, and the peers, of which the first measured one counts.
_COLUMNS = {
    "floor": ("floor",),
    "umoci": ("umoci unpack",),
    "umoci raw": ("umoci raw unpack",),
    "skopeo + umoci": ("skopeo + umoci",),
    "podman": ("podman",),
    "buildah": ("buildah",),
    "pigz, zstd, - | tar": ("pigz | tar", "zstd | tar", "tar"),
    "bsdtar": ("bsdtar",),
    "naive tarfile": ("naive tarfile",),
}


def _overview(document: Document) -> list[str]:
    """Show all ratios in one table, with a cross for each missed goal."""
    rows = []
    for case, found in document.get("extract", {}).items():
        peers = found["peers"]
        ours = peers["ociroot"]
        row = [_title(case), f"{ours['seconds']:.2f}", f"{ours['peak'] / 1e6:.0f}"]
        for names in _COLUMNS.values():
            figures = next((peers[name] for name in names if name in peers), None)
            missed = figures is not None and figures.get("met") is False
            row.append(f"{figures['ratio']:.2f}{' ✗' if missed else ''}" if figures else "–")
        rows.append(row)
    head = ("ours / theirs", "ociroot, s", "peak MB", *_COLUMNS)
    return ["## Overview", "", *table(head, rows)] if rows else []


def _title(case: str) -> str:
    place, name, compression = case.split("/")
    return f"{name}, {COMPRESSIONS[compression]}, {place}"


def _extract(part: Document) -> list[str]:
    lines = []
    head = ("Program", "s", "CPU s", "peak MB", "ours / theirs", "goal", "met")
    for case, found in part.items():
        rows = [_row(name, figures) for name, figures in found["peers"].items()]
        rows += [[name, why, "", "", "", "", ""] for name, why in found["failures"].items()]
        lines += [f"## {_title(case)}", "", f"Medians of {found['runs']}, {found['date']}.", ""]
        lines += table(head, rows)
        if found.get("short"):
            lines += ["There was no room to keep all trees until the end.", ""]
    return lines


def _row(name: str, figures: Document) -> list[str]:
    ratio, limit, met = (figures.get(key) for key in ("ratio", "limit", "met"))
    return [
        name,
        f"{figures['seconds']:.2f}",
        f"{figures['cpu']:.2f}",
        f"{figures['peak'] / 1e6:.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if limit is None else f"≤ {limit:g}",
        _met(met),
    ]


def _met(met: bool | None) -> str:
    return {None: "", True: "yes", False: "**no**"}[met]


def _startup(part: Document) -> list[str]:
    lines = ["## Start-up", ""]
    for found in part.values():
        rows = [
            [
                name,
                f"{figures['seconds'] * 1e3:.0f}",
                f"{figures['more'] * 1e3:.0f}" if "more" in figures else "",
                f"≤ {figures['limit'] * 1e3:.0f}" if "limit" in figures else "",
                _met(figures.get("met")),
            ]
            for name, figures in found["peers"].items()
        ]
        lines += table(("Program", "ms", "more than nothing, ms", "goal", "met"), rows)
    return lines


def _layers(part: Document) -> list[str]:
    head = ("Layers", "the image, s", "one by one, s", "the same, started once, s", "met")
    rows = [
        [
            COMPRESSIONS[compression],
            f"{found['image']:.2f}",
            f"{found['sum']:.2f}",
            f"{found['sum_started_once']:.2f}",
            _met(found["met"]),
        ]
        for compression, found in part.items()
        if not found.get("failures")
    ]
    return ["## An image against its layers one by one", "", *table(head, rows)]


def _cores(part: Document) -> list[str]:
    lines = ["## Cores", ""]
    for case, found in part.items():
        alone = next(iter(found["peers"].values()))["seconds"]
        rows = [
            [name, f"{each['seconds']:.2f}", f"{each['seconds'] / alone:.2f}", f"{each['cpu']:.2f}"]
            for name, each in found["peers"].items()
        ]
        lines += table((case, "s", "of one core's", "CPU s"), rows)
    return lines


def _scale(part: Document) -> list[str]:
    rows = [
        [
            name,
            f"{found['seconds']:.2f}",
            f"{found['cpu']:.2f}",
            f"{found['peak'] / 1e6:.0f}",
            f"{found['tree']:.0f}" if found.get("tree") else "",
            f"{found['seconds'] / found['entries'] * 1e6:.1f}" if found["entries"] > 1 else "",
            f"{found['bytes'] / found['seconds'] / 1e6:.0f}",
        ]
        for name, found in part.items()
        if "seconds" in found
    ]
    head = ("Image", "s", "CPU s", "peak MB", "tree, bytes an entry", "µs an entry", "MB/s")
    return ["## Scale", "", *table(head, rows)]


_PARTS = {
    "extract": _extract,
    "startup": _startup,
    "layers": _layers,
    "cores": _cores,
    "scale": _scale,
}
