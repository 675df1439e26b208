"""Digests: content identifiers (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import MalformedImage, Unsupported, quoted

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Digest"]

# descriptor.md, "SHA-256": "Note that `[A-F]` MUST NOT be used here", and the same for SHA-512.
_ENCODED = {"sha256": re.compile(r"[a-f0-9]{64}"), "sha512": re.compile(r"[a-f0-9]{128}")}
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


class Digest(NamedTuple):
    """A validated digest: a registered algorithm, and an encoded part of the right length.

    :meth:`parse` validates it, so its parts are safe in a file name.
    """

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse and validate a digest from a document.

        Args:
            text: such as ``sha256:6c3c…``.

        Returns:
            The digest.

        Raises:
            MalformedImage: the text violates the grammar of descriptor.md, "Digests".
            Unsupported: the algorithm is not sha256 or sha512.
        """
        if not _GRAMMAR.fullmatch(text):
            raise MalformedImage(f"{quoted(text[:200])} is not a digest")
        algorithm, _, encoded = text.partition(":")
        if algorithm not in _ENCODED:
            raise Unsupported(
                f"digest algorithm {algorithm[:40]!r} is not supported (sha256 and sha512 are)"
            )
        if not _ENCODED[algorithm].fullmatch(encoded):
            length = 64 if algorithm == "sha256" else 128
            raise MalformedImage(
                f"the encoded part of a {algorithm} digest must be {length} lower-case hex digits, "
                f"not {encoded[:140]!r}"
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Compute the digest of some bytes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def hasher(self) -> _Hash:
        """Return a new hash object for this digest's algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=True)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"

    @property
    def short(self) -> str:
        """The digest abbreviated to 12 digits for messages, as in ``sha256:6c3c624b58db``."""
        return f"{self.algorithm}:{self.encoded[:12]}"
