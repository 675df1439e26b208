"""Requirements on the machine: a test without one is skipped with a reason, and fails in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

import pytest


def _missing(reason: str) -> None:
    # CI installs every tool, so a skip there would hide an incomplete set-up.
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(reason)


def need_root() -> None:
    """Skip unless we are root; what the marker ``root`` does, see conftest."""
    if os.geteuid() != 0:
        _missing("needs root")


def besides_owners(codes: Iterable[str]) -> list[str]:
    """Return codes of warnings without the one that an ordinary user gets for every image."""
    return [code for code in codes if code != "owners" or os.geteuid() == 0]


def need_tools(*names: str) -> None:
    """Skip unless every one of these programs is on the PATH."""
    absent = [name for name in names if shutil.which(name) is None]
    if absent:
        _missing("needs the programs " + ", ".join(absent))


def need_file(path: str) -> None:
    """Skip unless there is such a file, such as a device."""
    if not os.path.exists(path):  # noqa: PTH110
        _missing(f"needs {path}")
