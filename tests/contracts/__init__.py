"""Suites that every output must pass, whatever it writes: a new one adds a line to a table."""
