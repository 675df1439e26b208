"""The patches of `make mutants`: each of them applies, and names existing tests."""

from __future__ import annotations

import ast

import pytest

from tests.support.needs import need_tools
from tools.mutants import CHECKOUT, Mutant, apply, mutants

ALL = mutants()


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_can_be_tried(mutant: Mutant) -> None:
    need_tools("git")
    apply(mutant, CHECKOUT, "--check")
    assert mutant.tests
    for test in mutant.tests:
        path, *names = test.split("::")
        tree = ast.parse((CHECKOUT / path).read_text())
        functions = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
        assert {name.partition("[")[0] for name in names} <= functions, test


def test_there_are_faults_in_all_packages() -> None:
    broken = "".join(mutant.path.read_text() for mutant in ALL)
    assert len(ALL) >= 60
    packages = "spec", "tar", "sources", "images", "layers", "rootfs", "outputs", "publish", "cli"
    for package in packages:
        assert f"+++ b/src/ociroot/{package}/" in broken
