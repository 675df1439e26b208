"""The goals: ratios of wall time on tmpfs, ours to that of a peer."""

from __future__ import annotations

from dataclasses import dataclass

from .measure import Samples, ratio

__all__ = ["GOALS", "STARTUP", "Goal", "Verdict", "judge"]

_REAL = ("debian", "node_modules", "wheels", "layers")
#: The maximum start-up time of a command in seconds, beyond that of an idle interpreter.
STARTUP = 0.120


@dataclass(frozen=True)
class Goal:
    """The maximum ratio of our wall time to a peer's, on these inputs.

    Attributes:
        peer: the peer's name.
        limit: the ratio.
        compressions: of the layers.
        inputs: the names of the inputs.
        allowance: seconds that are subtracted from ours first.
    """

    peer: str
    limit: float
    compressions: tuple[str, ...] = ("gzip", "zstd", "none")
    inputs: tuple[str, ...] = _REAL
    allowance: float = 0.0


GOALS = (
    Goal("floor", 1.25, inputs=("node_modules", "wheels")),
    Goal("floor", 1.25, inputs=("debian", "layers"), allowance=0.060),
    Goal("before", 1.03),
    Goal("umoci unpack", 0.15),
    Goal("umoci raw unpack", 0.25),
    Goal("skopeo + umoci", 0.15),
    Goal("podman", 0.2),
    Goal("buildah", 0.2),
    Goal("naive tarfile", 0.3),
    Goal("pigz | tar", 0.6, ("gzip",)),
    Goal("zstd | tar", 1.0, ("zstd",)),
    Goal("tar", 1.15, ("none",)),
    Goal("bsdtar", 0.6, ("gzip",)),
    Goal("bsdtar", 1.0, ("zstd",)),
    Goal("bsdtar", 1.2, ("none",)),
)


@dataclass(frozen=True)
class Verdict:
    """A measurement compared with its goal; ``limit`` is None without a goal."""

    ratio: float
    limit: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met."""
        return None if self.limit is None else self.ratio <= self.limit


def judge(name: str, compression: str, peer: str, samples: Samples, against: str) -> Verdict:
    """Compare our runs with a peer's.

    Args:
        name: the input.
        compression: the compression of its layers.
        peer: the name of the peer.
        samples: the runs.
        against: the name of our variant.
    """
    ours, theirs = samples[against], samples[peer]
    for goal in GOALS:
        if goal.peer == peer and name in goal.inputs and compression in goal.compressions:
            return Verdict(ratio(ours, theirs, goal.allowance), goal.limit)
    return Verdict(ratio(ours, theirs))
