"""The public names of the package: each one exists, and is imported only on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ociroot


@pytest.mark.parametrize("name", ociroot.__all__)
def test_a_name(name: str) -> None:
    assert getattr(ociroot, name) is not None
    assert name in dir(ociroot)


def test_the_table_of_homes_is_whole() -> None:
    assert set(ociroot._HOMES) | {"__version__"} == set(ociroot.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ociroot.no_such_name


def test_help_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys\n"
        "from ociroot.cli import command\n"
        "command.main(['--help'], standalone_mode=False)\n"
        "heavy = {'ociroot.api.source', 'ociroot.rootfs.tree', 'rich', 'isal', 'json'}\n"
        "heavy.add('tempfile')\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
