"""Shared helpers of the tests: builders, snapshots, and checks of the machine."""
