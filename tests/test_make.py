"""`make` installs only what each target needs, and runs the tests in a clean environment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .support.needs import need_tools

CHECKOUT = Path(__file__).parent.parent
# The programs of an ordinary machine; no apt-get, because nothing is to be installed.
PROGRAMS = ["sh", "env", "cat", "cksum", "cp", "dirname", "id", "mkdir", "rm", "sed", "make"]

# A fake Python that records its arguments and imitates what the Makefile relies on.
PYTHON = """#!/bin/sh
echo "python $*" >>"$LOG"
case $* in
    *"import ensurepip, venv"*) exit "$WITHOUT_VENV" ;;
    *"sys.base_prefix"*) echo one ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip --version") exit 1 ;;
    --version) echo Python 3.11.0 ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >>"$LOG"
mkdir -p .venv/bin && cp "$(dirname "$0")/python3" .venv/bin/python
"""


class Machine:
    """A checkout, with the programs that set it up."""

    def __init__(self, place: Path) -> None:
        need_tools(*PROGRAMS)
        self.checkout, self.bin, self.log = place / "checkout", place / "bin", place / "log"
        for directory in (self.checkout / "tools", self.bin):
            directory.mkdir(parents=True)
        for name in ("pyproject.toml", "Makefile", "tools/setup.sh"):
            shutil.copy(CHECKOUT / name, self.checkout / name)
        for name in PROGRAMS:
            (self.bin / name).symlink_to(shutil.which(name) or "")
        self.add("python3", PYTHON)

    def add(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def set_up(
        self, *extras: str, venv: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        environment = {"PATH": str(self.bin), "LOG": str(self.log), **settings}
        return subprocess.run(
            ["sh", "tools/setup.sh", *extras],
            cwd=self.checkout,
            env={**environment, "WITHOUT_VENV": str(int(not venv))},
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> list[str]:
        """Return what pip installed in the last run."""
        start = "python -m pip install "
        lines = self.log.read_text().splitlines()
        return [line.removeprefix(start) for line in lines if line.startswith(start)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_stage_installs_its_own(machine: Machine) -> None:
    for extras, installed in (
        ((), ["--editable ."]),
        ((), []),
        (("test,lint",), ["--editable .[test,lint]"]),
        (("test,lint",), []),
        ((), []),
        (("fuzz",), ["--editable .[fuzz]"]),
        (("test,lint",), []),
    ):
        assert machine.set_up(*extras).returncode == 0
        assert machine.installed() == installed
    # Its inputs have changed: all of it is made again.
    with (machine.checkout / "pyproject.toml").open("a") as out:
        out.write("# changed\n")
    assert machine.set_up("test,lint").returncode == 0
    assert machine.installed() == ["--editable .[test,lint]"]
    assert "python -m venv .venv" in machine.log.read_text()
    machine.set_up()
    assert machine.installed() == []


def test_another_interpreter(machine: Machine) -> None:
    machine.add("python3.13", PYTHON.replace("echo one", "echo two"))
    for interpreter, made_by in (
        ("", "python3"),
        ("python3", None),
        ("python3.13", "python3.13"),
        ("", None),
        ("python3.13", None),
        ("python3", "python3"),
    ):
        assert machine.set_up("test", PYTHON=interpreter).returncode == 0
        made = machine.installed() == ["--editable .[test]"]
        assert made is (made_by is not None), interpreter
        if made_by:
            is_made_by = (machine.checkout / ".venv/bin/python").read_text()
            assert is_made_by == (machine.bin / made_by).read_text()


def test_without_venv(machine: Machine) -> None:
    done = machine.set_up(venv=False)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert machine.installed() == []
    machine.add("uv", UV)
    assert machine.set_up(venv=False).returncode == 0
    assert machine.installed() == ["--editable ."]
    assert "uv venv --quiet --no-cache --seed" in machine.log.read_text()


def test_what_each_target_prepares(machine: Machine) -> None:
    for target, *prepares in (
        ("demo", ""),
        ("venv", ""),
        ("lint", "test,lint"),
        ("dev", "test,lint"),
        ("coverage", "test,lint", "coverage"),
    ):
        done = subprocess.run(
            ["make", "-n", target, "SETUP=prepare"],
            cwd=machine.checkout,
            env={"PATH": str(machine.bin)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        prepared = [line for line in done.stdout.splitlines() if line.startswith("prepare")]
        assert prepared == [f"prepare {extras}".strip() for extras in prepares]


def test_the_tests_run_in_a_clean_environment(machine: Machine) -> None:
    shutil.copytree(CHECKOUT / "tools", machine.checkout / "tools", dirs_exist_ok=True)
    report = machine.log.parent / "report"
    python = f'#!/bin/sh\ncase $* in "-m pytest -k that") env >{report} ;; esac\n'
    machine.add("python", python)
    kept = {
        "HOME": "/home/of an 'ordinary' user",
        "PATH": str(machine.bin),
        "LANG": "C.UTF-8",
        "LC_TIME": "de_DE.UTF-8",
        "TERM": "xterm",
        "TMPDIR": "/tmp",
        "CI": "true",
        "https_proxy": "http://proxy:3128",
        "OCIROOT_KILLS": "3",
        "HYPOTHESIS_PROFILE": "one $HOME `two`",
    }
    dropped = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/elsewhere",
        "PIP_INDEX_URL": "http://mirror",
        "VIRTUAL_ENV": "/venv",
        "SSL_CERT_FILE": "/etc/ssl/cert.pem",
        "PYTEST_ADDOPTS": "-x",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "LINES_OF_IT": "one\nPYTHONHOME=/x\nLC_ALL=C",
    }
    subprocess.run(
        ["make", "test", "SETUP=:", f"BIN={machine.bin}", "ARGS=-k that"],
        cwd=machine.checkout,
        env=kept | dropped,
        check=True,
    )
    seen = dict(line.split("=", 1) for line in report.read_text().splitlines())
    # Variables that the shell itself sets.
    assert {k: v for k, v in seen.items() if k not in ("PWD", "OLDPWD", "SHLVL", "_")} == kept
