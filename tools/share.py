"""Generate the man pages and the shell completions from the commands, below ``share/``.

    python tools/share.py [DIRECTORY]

The files below ``share/`` are committed and part of the wheel; a test checks that they are current.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from ociroot import __version__
from ociroot.cli import EXIT_CODES, command
from ociroot.cli.limits import is_limit

COMPLETIONS: dict[str, type[ShellComplete]] = {
    "bash-completion/completions/ociroot": BashComplete,
    "zsh/site-functions/_ociroot": ZshComplete,
    "fish/vendor_completions.d/ociroot.fish": FishComplete,
}


def pages() -> dict[str, str]:
    """Return the content of every file by its path below ``share/``."""
    result = {"man/man1/ociroot.1": page(command, "ociroot")}
    for name, each in commands().items():
        result[f"man/man1/ociroot-{name}.1"] = page(each, f"ociroot {name}")
    for path, shell in COMPLETIONS.items():
        completion = shell(command, {}, "ociroot", "_OCIROOT_COMPLETE")
        result[path] = completion.source_template % completion.source_vars()
    return result


def commands() -> dict[str, click.Command]:
    """Return the commands by name."""
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: each for name, each in found.items() if each is not None}


def page(each: click.Command, name: str) -> str:
    """Return the man page of a command."""
    context = click.Context(each, info_name=name)
    title = name.replace(" ", "-")
    usage = " ".join(each.collect_usage_pieces(context))
    lines = [
        f'.TH "{title.upper()}" 1 "" "ociroot {__version__}" "User Commands"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(each.get_short_help_str(300).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(name)}",
        _text(usage),
        ".SH DESCRIPTION",
        *_paragraphs(each.help or ""),
    ]
    if isinstance(each, click.Group):
        lines.append(".SH COMMANDS")
        for sub, command_ in commands().items():
            lines += [".TP", f"\\fBociroot\\-{_text(sub)}\\fR(1)"]
            lines.append(_text(command_.get_short_help_str(300)))
    options = [p for p in each.get_params(context) if isinstance(p, click.Option)]
    for heading, limits in (("OPTIONS", False), ("LIMITS", True)):
        chosen = [option for option in options if is_limit(option) == limits]
        lines += [f".SH {heading}"] if chosen else []
        for record in filter(None, (option.get_help_record(context) for option in chosen)):
            lines += [".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1])]
    lines += [".SH EXIT STATUS", *_paragraphs(EXIT_CODES.replace("Exit codes:\n", ""))]
    others = [f"ociroot-{sub}" for sub in ("", *commands())]
    links = [o.rstrip("-") for o in others if o.rstrip("-") != title]
    lines += [".SH SEE ALSO", ",\n".join(f"\\fB{_text(link)}\\fR(1)" for link in links)]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text; those that begin with a backspace keep their lines."""
    lines: list[str] = []
    for block in inspect.cleandoc(text).split("\n\n"):
        lines.append(".PP")
        if block.startswith("\b"):
            kept = block.removeprefix("\b\n").splitlines()
            lines += [".nf", *(_text(line) for line in kept), ".fi"]
        else:
            lines.append(_text(" ".join(block.split())))
    return lines


def _text(text: str) -> str:
    """Return text with roff's special characters escaped."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def main() -> None:
    """Write them all."""
    share = Path(sys.argv[1] if len(sys.argv) > 1 else "share")
    for path, content in pages().items():
        (share / path).parent.mkdir(parents=True, exist_ok=True)
        (share / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
