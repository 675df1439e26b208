"""The command line: one module per command, using only the public API."""

from __future__ import annotations

import gc
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from .. import OcirootError, UsageError, __version__, printable
from .commands import Commands, explained
from .streams import OutputError, prepare

__all__ = ["EXIT_CODES", "command", "main"]

EXIT_CODES = """\b
Exit codes:
  0  done
  1  any other failure, such as an image file that cannot be read
  2  usage: an unknown option, no image for the requested platform
  3  the image is malformed
  4  verification failed: a digest, a size or a diff_id
  5  not supported
  6  a limit was exceeded
  7  the destination: it exists, no space, no permission
  130, 143  stopped by SIGINT, SIGTERM; the message names what was left behind
"""


@click.group(
    cls=Commands,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", "-V", prog_name="ociroot")
def command() -> None:
    """Turn a container image file into a root file system.

    Every byte is verified before the result becomes visible. Data goes to stdout, everything else
    to stderr.

    \b
    IMAGE is one of:
      FILE  an oci-archive or a docker-archive
      DIR   an OCI image layout
      -     an archive on standard input
      oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]
            the same with a transport of skopeo; NAME is as for --ref. An
            existing file of exactly this name is preferred; ./ forces a path.
    """  # noqa: D301


class _Stopped(BaseException):
    """A signal was received: a BaseException, so that ``except Exception`` cannot swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Only once: a second signal would interrupt the clean-up. Not SIG_IGN, about which Python
    # complains if a signal is already pending for a handler.
    for each in _SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda *_: None)
    raise _Stopped(number)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> NoReturn:
    """Run the command and exit with its exit code."""
    prepare()
    for number in _SIGNALS:
        # Signals that the parent ignores (nohup) stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    # The objects are mostly the tree, which is not garbage. Otherwise the collector would traverse
    # all of it, at the latest at exit (50 ms for 60,000 entries).
    gc.disable()
    code = _run()
    with suppress(OutputError):  # already reported; unwritten output is dropped
        sys.stdout.close()
    gc.freeze()
    for number in _SIGNALS:
        # At exit Python restores the default handling of signals, which kills the process.
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _run() -> int:
    try:
        # Outside standalone mode, a command's `Exit` is returned as the result.
        result: object = command.main(prog_name="ociroot", standalone_mode=False)
        sys.stdout.close()
    except click.ClickException as error:
        for line in explained(error):
            click.echo(line, err=True)
        return error.exit_code
    except click.Abort:
        return 130
    except OcirootError as error:
        _say(str(error))
        if isinstance(error, UsageError) and error.choices:
            _show_choices(error.choices)
        return error.exit_code
    except _Stopped as stopped:
        # The library adds notes about the state that it has left.
        state = "; ".join(getattr(stopped, "__notes__", ())) or "nothing was left behind"
        _say(f"stopped by {signal.Signals(stopped.number).name}; {state}")
        return 128 + stopped.number
    except OutputError as error:
        if not error.reader_gone:
            _say(str(error))
        return 1
    except OSError as error:
        _say(printable(str(error)))
        return 1
    except Exception as error:
        # This is always a bug of ours, but an operator does not need a traceback.
        _say(f"internal error, please report it: {type(error).__name__}: {printable(str(error))}")
        return 1
    return result if isinstance(result, int) else 0


def _say(text: str) -> None:
    click.echo(f"ociroot: {text}", err=True)


def _show_choices(choices: tuple[tuple[str, str, str], ...]) -> None:
    """Print the available images, and the option that selects each."""
    rows = [("PLATFORM", "NAME", "OPTION"), *choices]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for platform, name, option in rows:
        click.echo(f"  {platform:{widths[0]}}  {name:{widths[1]}}  {option}", err=True)
