"""Set-up for all tests."""

from __future__ import annotations

import signal

import pytest

from .support.needs import need_root


def pytest_configure() -> None:
    """Restore the default handling of the signals that the tests send.

    POSIX.1-2017, sh, 2.11: a shell makes background commands ignore SIGINT, as nohup(1) does with
    SIGHUP; ignored signals stay ignored in child programs.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``root`` before their fixtures are set up, unless we are root."""
    if item.get_closest_marker("root") is not None:
        need_root()
