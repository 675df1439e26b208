"""Extract a stack of layers with ociroot and with umoci, each to a directory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

import ociroot
from ociroot.limits import DEFAULTS
from tests.support.snapshot import Snapshot, snapshot

from ..images import files_of, write

__all__ = ["by_umoci", "ours", "put"]

_SECONDS = 20
# Larger files are sparse, and umoci would write gigabytes of zeros.
LARGEST = 1 << 20
_LIMITS = msgspec.structs.replace(DEFAULTS, file_size=LARGEST)


def put(layers: Sequence[bytes], where: Path) -> None:
    """Write a layout with one image named ``t``."""
    files = files_of("oci-layout", list(layers), "none")
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    write(where, {**files, "index.json": json.dumps(index).encode()})


def ours(layout: Path, root: Path) -> tuple[Snapshot, set[str]]:
    """Extract a layout; return the tree, and the codes of the warnings.

    Raises:
        OcirootError: we refuse it.
    """
    with ociroot.open(layout, ociroot.SourceOptions(limits=_LIMITS)) as source:
        report = source.image().extract(root)
    return snapshot(root), {warning.code for warning in report.warnings}


def by_umoci(layout: Path, root: Path) -> Snapshot | None:
    """Unpack a layout with umoci; None if it refuses the image."""
    done = subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:t", os.fspath(root)],
        capture_output=True,
        check=False,
        timeout=_SECONDS,
    )
    return None if done.returncode else snapshot(root)
