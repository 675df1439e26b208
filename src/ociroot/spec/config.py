"""The image configuration (image-spec, config.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from ..errors import Unsupported, quoted
from .digest import Digest
from .platform import Platform

__all__ = ["Config", "ExecutionParameters", "History", "RootFS", "chain_ids"]


class ExecutionParameters(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The `config` object: the default execution parameters of a container."""

    user: str = ""
    exposed_ports: dict[str, Any] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: dict[str, Any] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    args_escaped: bool = False


class RootFS(msgspec.Struct, frozen=True, dict=True):
    """The `rootfs` object: the digests of the uncompressed layers, base first."""

    type: str
    # REQUIRED by config.md; Docker leaves it out of an image without layers.
    diff_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # config.md, rootfs.type: "MUST be set to `layers`. Implementations MUST generate an error
        # if they encounter a unknown value while verifying or unpacking an image."
        if self.type != "layers":
            raise Unsupported(f"rootfs.type is {quoted(self.type[:40])}, not 'layers'")
        _ = self.parsed_diff_ids

    @cached_property
    def parsed_diff_ids(self) -> tuple[Digest, ...]:
        """The diff_ids, checked against the grammar of digests."""
        return tuple(Digest.parse(text) for text in self.diff_ids)


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the image's build history."""

    created: str = ""
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """The image's configuration document."""

    architecture: str
    os: str
    rootfs: RootFS
    config: ExecutionParameters = ExecutionParameters()
    created: str = ""
    author: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    history: tuple[History, ...] = ()

    @property
    def platform(self) -> Platform:
        """The platform that the configuration declares."""
        return Platform(self.architecture, self.os, self.variant, self.os_version, self.os_features)

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """The chain ID of each layer: it names the layer together with all layers below it."""
        return chain_ids(self.rootfs.parsed_diff_ids)

    def history_of_layers(self) -> Iterator[tuple[History, int | None]]:
        """Match the history with the layers that it made.

        config.md, "history": `empty_layer` "is set to true if this history item doesn't correspond
        to an actual layer in the rootfs section".

        Yields:
            Each item, with the number of its layer from 1, or None if it made none.
        """
        number = 0
        for item in self.history:
            if item.empty_layer or number >= len(self.rootfs.diff_ids):
                yield item, None
            else:
                number += 1
                yield item, number

    def created_by(self) -> dict[int, str]:
        """Return what made each layer, as the history says, by the layer's number from 1."""
        return {
            number: item.created_by or item.comment
            for item, number in self.history_of_layers()
            if number is not None
        }


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Return the chain ID of each prefix of the layers, from the first layer alone to all.

    config.md, "Layer ChainID": ``ChainID(L₀) = DiffID(L₀)`` and
    ``ChainID(L₀|...|Lₙ) = Digest(ChainID(L₀|...|Lₙ₋₁) + " " + DiffID(Lₙ))``.
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        if chain:
            text = f"{chain[-1]} {diff_id}".encode()
            chain.append(Digest("sha256", hashlib.sha256(text).hexdigest()))
        else:
            chain.append(diff_id)
    return tuple(chain)
