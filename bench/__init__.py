"""Benchmarks of extraction: against other tools, and against a compiled lower bound.

``python -m bench --help`` describes the options, docs/performance.md the method.
"""
