"""The Linux interfaces that Python lacks are in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ociroot

PACKAGE = Path(ociroot.__file__).parent


def imported(module: Path) -> Iterator[str]:
    """Yield the top-level names of the packages that a module imports."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_ctypes_is_used_in_one_module() -> None:
    users = [path for path in PACKAGE.rglob("*.py") if "ctypes" in imported(path)]
    assert [str(path.relative_to(PACKAGE)) for path in users] == ["linux.py"]


def test_flags_to_open_directories_and_to_make_files_are_said_once() -> None:
    """So that O_NOFOLLOW is never omitted."""
    for path in PACKAGE.rglob("*.py"):
        names = {
            n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
        }
        if path.name != "linux.py":
            assert not names & {"O_CREAT", "O_PATH"}, path


def test_publishing_depends_on_no_output() -> None:
    """It makes visible whatever an output has made, and needs to know nothing of images."""
    beside = {"errors", "fhs", "linux", "notices"}
    for path in (PACKAGE / "publish").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                assert set(names) <= beside, path
