"""Differential fuzzing: compare our reading of small inputs with that of other programs.

Random layers go through ``umoci`` (Go's archive/tar), GNU tar and bsdtar, random documents through
``skopeo`` and ``umoci`` (Go's encoding/json). If ociroot and another program accept an input with
different results, that is a finding. An input that only one of them refuses is not.

    python -m fuzz.readers SECONDS [SEED]
"""
