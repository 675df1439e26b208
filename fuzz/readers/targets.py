"""The two targets: how their inputs are made, read and minimised."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from .difference import Result
from .documents import compare_documents
from .layers import compare_layers
from .make_documents import make_documents
from .make_tar import make_layers
from .minimise import minimise_documents, minimise_layers

__all__ = ["TARGETS", "Target"]


class Target(NamedTuple):
    """One kind of input.

    Attributes:
        make: generates a random input.
        compare: reads an input with all readers.
        smaller: minimises an input that shows a difference.
        readers: the other readers.
    """

    make: Callable[[Random], bytes]
    compare: Callable[[bytes], Result]
    smaller: Callable[[bytes, Callable[[bytes], bool]], bytes]
    readers: tuple[str, ...]


TARGETS = {
    "layers": Target(make_layers, compare_layers, minimise_layers, ("umoci", "tar", "bsdtar")),
    "documents": Target(
        make_documents,
        compare_documents,
        minimise_documents,
        ("umoci", "skopeo-oci", "skopeo-oci-archive", "skopeo-docker-archive"),
    ),
}
