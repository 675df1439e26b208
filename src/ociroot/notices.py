"""Warnings, collected by kind and counted.

An image can cause the same warning a million times, so each kind is reported once, with its first
example and a count. ``strict`` turns violations of the specification into errors.
"""

from __future__ import annotations

import msgspec

from .errors import MalformedImage, printable

__all__ = ["ImageWarning", "Notices"]

# The kinds: the message, and the sentence of the specification that is violated, if any.
_KINDS: dict[str, tuple[str, str | None]] = {
    "platform": ("the image is for another platform", None),
    "same-name": (
        "another image has the same name and platform; the first one is used",
        'image-index.md: "the first matching entry SHOULD be used"',
    ),
    "layer-order": (
        "the manifest lists the layers in another order than rootfs.diff_ids, which is used",
        'manifest.md: "layers MUST … follow in stack order"',
    ),
    "compression": (
        "the compression of a layer differs from its media type",
        'descriptor.md: mediaType "contains the media type of the referenced content"',
    ),
    "duplicate-path": (
        "duplicate path in one layer; the last entry is used",
        'layer.md: "MUST NOT include duplicate entries for file paths"',
    ),
    "below-whiteout": (
        "an entry below a whiteout was skipped",
        'layer.md: "A whiteout file is an empty file"',
    ),
    "links-below": ("hard links to files of lower layers were skipped", None),
    "set-id": (
        "set-id bits or capabilities were dropped because the owners are not kept; --preserve=mode "
        "keeps them",
        None,
    ),
    "set-id-owner": (
        "set-id bits or capabilities were dropped because the file, or the root user that they are "
        "for, gets another owner than the image says",
        None,
    ),
    "owners": (
        "owners were not kept: only root can change the owner of a file (extract --userns uses "
        "subordinate ids)",
        None,
    ),
    "owners-unrecorded": (
        "owners, devices or extended attributes were dropped: user.containers.override_stat "
        "cannot record them",
        None,
    ),
    "not-recorded": ("paths that the record does not have were not changed", None),
    "devices": ("devices were skipped: creating them is not permitted", None),
    "times": ("modification times were changed to values that the destination can store", None),
    "nanoseconds": ("fractions of seconds of modification times were left out", None),
    "acls": ("ACLs were left out: the format has none", None),
    "left-over": ("temporary or replaced files could not all be removed", None),
    "left-over-kept": (
        "what looks like the temporary directory of a killed run was not removed: another user "
        "could have replaced it",
        None,
    ),
    "not-synced": ("the result is in place, but may be lost in a power cut: fsync failed", None),
    "acl-names": (
        "ACLs that name users or groups without numeric IDs were left out",
        None,
    ),
    "xattrs-unsupported": (
        "extended attributes that the destination does not support were skipped",
        None,
    ),
    "xattrs-privileged": ("extended attributes that only root may set were skipped", None),
    "xattrs-user": (
        "user.* attributes were skipped: only files and directories can have them",
        None,
    ),
}


class ImageWarning(msgspec.Struct, frozen=True):
    """One kind of warning.

    Attributes:
        code: the stable identifier of the kind.
        message: the text, with the first example.
        count: the number of occurrences.
        breach: whether it is a violation of the specification, which ``strict`` refuses.
    """

    code: str
    message: str
    count: int
    breach: bool


class Notices:
    """Collects warnings; in strict mode raises those that are violations."""

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._seen: dict[str, tuple[str, int]] = {}

    def add(self, code: str, example: bytes | str = b"", count: int = 1) -> None:
        """Record a warning.

        Args:
            code: the kind.
            example: the member or the detail; the first one is kept.
            count: the number of occurrences.

        Raises:
            MalformedImage: in strict mode, if the kind is a violation of the specification.
        """
        text, rule = _KINDS[code]
        if rule is not None and self._strict:
            raise MalformedImage(
                f"{text} ({rule})", member=example or None, remedy="a warning without --strict"
            )
        if code in self._seen:
            first, before = self._seen[code]
            self._seen[code] = (first, before + count)
        else:
            self._seen[code] = (printable(example), count)

    def take(self) -> list[tuple[str, str, int]]:
        """Return the recorded warnings as (code, example, count), and clear them."""
        taken = [(code, first, count) for code, (first, count) in self._seen.items()]
        self._seen.clear()
        return taken

    def warnings(self) -> tuple[ImageWarning, ...]:
        """Return the recorded warnings, in the order of their first occurrence."""
        return tuple(
            ImageWarning(
                code,
                _KINDS[code][0] + (f": {first}" if first else ""),
                count,
                bool(_KINDS[code][1]),
            )
            for code, (first, count) in self._seen.items()
        )
