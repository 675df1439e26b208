"""Two readers of one image: what we make of small inputs, and what other programs make of them.

Random layers go through ``umoci`` (Go's archive/tar), GNU tar and bsdtar, random documents through
``skopeo`` and ``umoci`` (Go's encoding/json). Where ociroot and another accept an input and come to
different results, that is a finding. What only one of them refuses is none.

    python -m fuzz.readers SECONDS [SEED]
"""
