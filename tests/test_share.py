"""The installed man pages and completions match the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ociroot.cli import command
from ociroot.limits import MEANINGS

_CONTEXT = click.Context(command)
COMMANDS = {name: command.get_command(_CONTEXT, name) for name in command.list_commands(_CONTEXT)}
SHARE = Path(__file__).parent.parent / "share"
# Not compared literally: click's own texts differ slightly between versions.
REMEDY = "run: python tools/share.py"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_each_command_has_a_page_with_its_options(name: str) -> None:
    each = COMMANDS[name] if name else command
    assert each is not None
    page = (SHARE / "man/man1" / f"ociroot{name and '-'}{name}.1").read_text()
    for parameter in each.params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert option.replace("-", "\\-") in page, REMEDY
    assert f"ociroot {name}".strip().replace("-", "\\-") in page
    # The limits have a section of their own, as in the help.
    options, found, limits = page.partition(".SH LIMITS\n")
    assert bool(found) == bool(name), REMEDY
    assert "\\-\\-max" not in options
    assert limits.count("\\-\\-max") == (len(MEANINGS) if name else 0), REMEDY


def test_there_is_no_page_of_a_command_that_is_gone() -> None:
    pages = {path.name for path in (SHARE / "man/man1").iterdir()}
    assert pages == {"ociroot.1", *(f"ociroot-{name}.1" for name in COMMANDS)}, REMEDY


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The installed scripts call the command for completions."""
    words = {"bash": ("ociroot ext", "1"), "zsh": ("ociroot ext", "1"), "fish": ("ext", "ext")}[
        shell
    ]
    environment = {
        **os.environ,
        "_OCIROOT_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "ociroot ext",
        "COMP_CWORD": words[1],
    }
    done = subprocess.run(
        [sys.executable, "-m", "ociroot"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "extract" in done.stdout
    scripts = [p for p in SHARE.rglob("*ociroot*") if shell in str(p.relative_to(SHARE))]
    assert len(scripts) == 1
    assert f"_OCIROOT_COMPLETE={shell}_complete" in scripts[0].read_text()
