"""The version is written in one place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ociroot

CHECKOUT = Path(__file__).parent.parent
# The default pattern of hatch: hatch.pypa.io, "Versioning", "Regex".
VERSION = re.compile(r"""^(?:__version__|VERSION)(?: ?: ?str)? *= *(["'])v?(.+?)\1""", re.MULTILINE)


def test_the_version_is_in_the_package_alone() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert "version" not in settings["project"]
    assert settings["project"]["dynamic"] == ["version"]
    source = CHECKOUT / settings["tool"]["hatch"]["version"]["path"]
    assert [version for _, version in VERSION.findall(source.read_text())] == [ociroot.__version__]


def test_the_changelog_has_it() -> None:
    assert f"\n## [{ociroot.__version__}]\n" in (CHECKOUT / "CHANGELOG.md").read_text()


def test_the_classifiers_name_the_pythons() -> None:
    """From the oldest supported one on; the README names the same."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    name = "Programming Language :: Python :: "
    minors = [
        each.removeprefix(name) for each in project["classifiers"] if each.startswith(name + "3.")
    ]
    assert project["requires-python"] == f">={minors[0]}"
    said = f"{', '.join(minors[:-1])} and {minors[-1]}"
    assert f"Tested with Python {said}" in (CHECKOUT / "README.md").read_text().replace("\n", " ")
