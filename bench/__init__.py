"""The bench: what extraction costs, beside what people use and beside what the machine needs.

``python -m bench --help`` says how it is run, docs/performance.md how it measures.
"""
