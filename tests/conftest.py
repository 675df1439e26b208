"""What all tests have in common."""

from __future__ import annotations

import signal

import pytest

from .support.needs import need_root


def pytest_configure() -> None:
    """Heed the signals that the tests send, whoever runs them.

    POSIX.1-2017, sh, 2.11: a shell has what it runs in the background ignore SIGINT, as nohup(1)
    has it ignore SIGHUP; and what is ignored stays so in the programs that are started.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``root`` before its fixtures are made, unless we are root."""
    if item.get_closest_marker("root") is not None:
        need_root()
