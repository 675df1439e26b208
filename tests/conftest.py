"""What all tests have in common."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Heed the signals that the tests send, whoever runs them.

    POSIX.1-2017, sh, 2.11: a shell has what it runs in the background ignore SIGINT, as nohup(1)
    has it ignore SIGHUP; and what is ignored stays so in the programs that are started.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
