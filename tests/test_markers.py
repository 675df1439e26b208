"""The marker `root` skips tests as an ordinary user, and never in CI, which runs as root."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from . import conftest
from .support.user import as_ordinary_user


def outcome(*markers: str) -> str:
    """Return the outcome of setting up a test with these markers."""
    item: Any = SimpleNamespace(get_closest_marker=lambda name: name if name in markers else None)
    try:
        conftest.pytest_runtest_setup(item)
    except (pytest.skip.Exception, pytest.fail.Exception) as raised:
        return f"{type(raised).__name__}: {raised}"
    return "runs"


@pytest.mark.parametrize(
    ("ci", "markers", "expected"),
    [
        ("", [], "runs"),
        ("", ["slow"], "runs"),
        ("", ["root"], "Skipped: needs root"),
        ("", ["slow", "root"], "Skipped: needs root"),
        ("true", [], "runs"),
        ("true", ["root"], "Failed: missing in CI: needs root"),
    ],
)
def test_an_ordinary_user(
    monkeypatch: pytest.MonkeyPatch, ci: str, markers: list[str], expected: str
) -> None:
    monkeypatch.setenv("CI", ci)
    assert as_ordinary_user(lambda: outcome(*markers)) == expected


@pytest.mark.root
def test_root() -> None:
    assert outcome("root") == "runs"
