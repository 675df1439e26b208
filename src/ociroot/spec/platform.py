"""Platforms and their compatibility (image-spec, image-index.md, "Platform Variants")."""

from __future__ import annotations

import os
import re

import msgspec

from ..errors import UsageError, printable, quoted

__all__ = ["Platform"]

# The machine names of `uname -m`, as GOARCH and variant.
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv5tel": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}

# Other names of architectures that users type.
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}

# Architectures that may be given without an operating system, which is then Linux: those of Go.
_ARCHITECTURES = {
    *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
    *("ppc64", "ppc64le", "riscv64", "s390x", *_ALIASES),
}

# The variant of an architecture when none is given.
_DEFAULT_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_LEVEL = re.compile(r"v([0-9]{1,3})(?:\.([0-9]{1,3}))?")


class Platform(msgspec.Struct, frozen=True):
    """The `platform` of a descriptor, or the same properties of a configuration."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse a platform that a user requests.

        Args:
            text: ``os/arch[/variant]``, as in ``linux/arm/v7``; ``arch[/variant]`` means Linux.

        Raises:
            UsageError: the text does not have that form.
        """
        parts = text.strip().lower().split("/")
        if parts[0] in _ARCHITECTURES:
            parts.insert(0, "linux")
        if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"[a-z0-9_.-]+", p) for p in parts):
            raise UsageError(
                f"{quoted(text)} is not a platform: os/arch[/variant], as in linux/arm64"
            )
        architecture, variant = _ALIASES.get(parts[1], (parts[1], ""))
        return cls(architecture, parts[0], parts[2] if len(parts) == 3 else variant)

    @classmethod
    def of_this_machine(cls) -> Platform:
        """Return the platform of the running kernel."""
        machine: str = os.uname().machine
        architecture, variant = _MACHINES.get(machine, (machine, ""))
        return cls(architecture, "linux", variant)

    @property
    def family(self) -> tuple[str, str]:
        """Its operating system and architecture, whatever the variant."""
        return self.os, self.architecture

    def rank_for(self, wanted: Platform) -> tuple[int, int] | None:
        """Rank how well images of this platform match a requested one.

        A newer CPU runs code for the older variants of its architecture: arm/v7 accepts v7, v6,
        v5; amd64/v3 accepts v3, v2 and plain amd64; arm64 and arm64/v8 are the same.

        Args:
            wanted: the platform to run on.

        Returns:
            None if they do not run on it; otherwise a sort key, the best match first.
        """
        if self.family != wanted.family:
            return None
        mine, theirs = (
            p.variant or _DEFAULT_VARIANT.get(p.architecture, "") for p in (self, wanted)
        )
        if mine == theirs:
            return (0, 0)
        ours, bound = _LEVEL.fullmatch(mine), _LEVEL.fullmatch(theirs)
        if self.architecture not in _DEFAULT_VARIANT or ours is None or bound is None:
            return None
        level, limit = (tuple(int(n or 0) for n in m.groups()) for m in (ours, bound))
        if level > limit:
            return None
        return (limit[0] - level[0], limit[1] - level[1] if limit[0] == level[0] else -level[1])

    def __str__(self) -> str:
        text = f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")
        return printable(text + (f" ({self.os_version})" if self.os_version else ""))
