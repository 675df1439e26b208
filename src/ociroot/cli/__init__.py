"""The command line: one module a command, over the public API and nothing else."""

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
  2  usage: an unknown option, no image for the platform asked for
  3  the image is malformed
  4  verification failed: a digest, a size or a diff_id
  5  not supported
  6  a limit was exceeded
  7  the destination: it exists, no space, no permission
  130, 143  stopped by SIGINT, SIGTERM; the message names what is left
"""


@click.group(
    cls=Commands,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", "-V", prog_name="ociroot")
def command() -> None:
    """Turn a container image that lies in a file into a root file system.

    Every byte is verified before anything becomes visible. Data goes to stdout, all else to stderr.

    \b
    IMAGE is one of:
      FILE  an oci-archive or a docker-archive
      DIR   an OCI image layout
      -     an archive on standard input
      oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]
            the same in skopeo's words; NAME is what --ref takes. A file that
            has just this name comes first, and ./ before it makes sure of it.
    """  # noqa: D301


class _Stopped(BaseException):
    """A signal asked us to stop; unlike other errors it is nobody's to handle on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Once: a second one would stop the cleaning up. Not SIG_IGN, of which Python complains when a
    # signal is already on its way to a handler.
    for each in _SIGNALS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda *_: None)
    raise _Stopped(number)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> NoReturn:
    """Run the command and exit with its code."""
    prepare()
    for number in _SIGNALS:
        # What our parent had us ignore (nohup) stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    # The process is ours: what is made is a tree, which is no garbage. Without this the collector
    # looks through all of it, at the latest on the way out (50 ms for 60,000 entries).
    gc.disable()
    code = _run()
    with suppress(OutputError):  # of which has been told; what is left unwritten is dropped
        sys.stdout.close()
    gc.freeze()
    for number in _SIGNALS:
        # On its way out Python gives the signals of its handlers their default back, which kills.
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _run() -> int:
    try:
        # Outside standalone mode a command's `Exit` comes back as the result.
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
        # What the library had done by then, and what of it is still there, it has noted.
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
        # Every such line is a bug of ours, and still no reason to show a traceback to an operator.
        _say(f"internal error, please report it: {type(error).__name__}: {printable(str(error))}")
        return 1
    return result if isinstance(result, int) else 0


def _say(text: str) -> None:
    click.echo(f"ociroot: {text}", err=True)


def _show_choices(choices: tuple[tuple[str, str, str], ...]) -> None:
    """Print what can be chosen, and the option that does."""
    rows = [("PLATFORM", "NAME", "OPTION"), *choices]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for platform, name, option in rows:
        click.echo(f"  {platform:{widths[0]}}  {name:{widths[1]}}  {option}", err=True)
