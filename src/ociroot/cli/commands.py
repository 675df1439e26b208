"""The common base of all commands: parsing of arguments, and help."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import Any

import click

from .. import printable
from .limits import is_limit

__all__ = ["Command", "Commands", "explained"]

_NAMES = (
    "apply-owners",
    "cat",
    "cp",
    "diff",
    "export",
    "extract",
    "find-layer",
    "inspect",
    "ls",
    "tree",
    "verify",
)

# Names of the same commands in other programs, and names that users try.
_SYNONYMS = {
    "apply-owners": ("chown", "restore"),
    "cat": ("print", "read"),
    "cp": ("copy",),
    "diff": ("compare", "changes"),
    "export": ("flatten", "save", "squash", "tar"),
    "extract": ("unpack", "untar", "x"),
    "find-layer": ("find", "blame", "which", "layer"),
    "inspect": ("show", "info", "config", "history", "images", "layers", "manifest"),
    "ls": ("list", "dir", "files"),
    "tree": ("du", "size", "dive"),
    "verify": ("check", "validate", "test"),
}
_OPTION_SYNONYMS = {
    "apply-owners": ("chown", "restore"),
    "--exclude": ("--ignore", "--skip"),
    "--map": ("--idmap", "--id-map", "--shift", "--uidmap"),
    "--platform": ("--arch", "--architecture", "--os", "--variant"),
    "--ref": ("--tag", "--name", "--reference", "--image"),
    "--replace": ("--force", "--overwrite"),
    "--compress": ("--compression", "--zstd", "--gzip", "--xz"),
    "--quiet": ("--silent",),
    "--record-owners": ("--fakeroot", "--mtree"),
    "--userns": ("--rootless", "--user-namespace"),
}


class Command(click.Command):
    """A command: options with a value are given once, and the limits have a help of their own."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if any(is_limit(parameter) for parameter in self.params):
            self.params.append(_help_limits())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :class:`click.Command`."""
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_repeated(self, ctx: click.Context, args: list[str]) -> None:
        """Refuse a repeated option, of which click would use the last value."""
        try:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
        except click.NoSuchOption as error:
            meant = _suggestions(error.option_name, _OPTION_SYNONYMS, self._options(ctx))
            raise click.UsageError(f"no such option: {error.option_name}{meant}", ctx) from None
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        for parameter, times in Counter(given).items():
            if times == 1 or not isinstance(parameter, click.Option):
                continue
            if not parameter.is_flag and not parameter.multiple:
                name = max(parameter.opts, key=len)
                raise click.UsageError(f"{name} is given {times} times, and takes one value", ctx)

    def _options(self, ctx: click.Context) -> list[str]:
        """Return the names of the options."""
        return [name for parameter in self.get_params(ctx) for name in parameter.opts]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See :class:`click.Command`: all options except those that set limits."""
        _write_options(ctx, formatter, "Options", limits=False)


class Commands(click.Group):
    """Imports the module of a command on demand, which saves 10 ms for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See :class:`click.Group`."""
        return list(_NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See :class:`click.Group`."""
        if cmd_name not in _NAMES:
            return None
        name = cmd_name.replace("-", "_")
        found = getattr(import_module(f".{name}", __package__), name)
        assert isinstance(found, click.Command)  # noqa: S101
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See :class:`click.Group`."""
        name = args[0]
        if name not in _NAMES and not name.startswith("-") and not ctx.resilient_parsing:
            meant = _suggestions(name, _SYNONYMS, list(_NAMES))
            raise click.UsageError(f"no such command: {name}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See :class:`click.Group`."""
        if not args and not ctx.resilient_parsing:
            # A usage error in all versions of click.
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See :class:`click.Group`: descriptions are wrapped, not truncated."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, each.get_short_help_str(500)) for name, each in found if each is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def explained(error: click.ClickException) -> list[str]:
    """Return the lines of the message for a usage error."""
    message = printable(" ".join(error.format_message().split())).rstrip(".")
    lines = [f"ociroot: {message[:1].lower()}{message[1:]}"]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        path = context.command_path
        usage = " ".join([path, *context.command.collect_usage_pieces(context)])
        lines.append(f"Usage: {usage} (try '{path} --help')")
    return lines


def _suggestions(name: str, synonyms: dict[str, tuple[str, ...]], known: list[str]) -> str:
    """Return suggestions for an unknown name, as a suffix for the message."""
    from difflib import get_close_matches

    names = {each: each for each in known}
    names |= {other: each for each in known for other in synonyms.get(each, ())}
    close = [name] if name in names else get_close_matches(name, names, 2)
    meant = dict.fromkeys(names[each] for each in close)
    return f" (did you mean {' or '.join(meant)}?)" if meant else ""


def _help_limits() -> click.Option:
    def show(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            formatter = ctx.make_formatter()
            _write_options(ctx, formatter, "Limits on the image", limits=True)
            formatter.write_paragraph()
            formatter.write_text(
                "If an image exceeds a limit, the exit code is 6. Sizes take units as in GNU "
                "tools: 10M is 10 MiB, 10MB is 10,000,000 bytes."
            )
            click.echo(formatter.getvalue().rstrip("\n"))
            ctx.exit()

    return click.Option(
        ["--help-limits"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the options that set limits on the image, and exit.",
    )


def _write_options(
    ctx: click.Context, formatter: click.HelpFormatter, title: str, *, limits: bool
) -> None:
    options = [p for p in ctx.command.get_params(ctx) if isinstance(p, click.Option)]
    chosen = [option for option in options if is_limit(option) == limits]
    records = [record for each in chosen if (record := each.get_help_record(ctx)) is not None]
    with formatter.section(title):
        formatter.write_dl(records)
