"""What is worth telling and no reason to stop: warnings, gathered by kind and counted.

An image can hold a million of the same oddity, so each kind is one warning with its first example
and a count. ``strict`` turns those that are a breach of the specification into errors.
"""

from __future__ import annotations

import msgspec

from .errors import MalformedImage, printable

__all__ = ["ImageWarning", "Notices"]

# The kinds, what they say, and the sentence that they break, where one does.
_KINDS: dict[str, tuple[str, str | None]] = {
    "platform": ("the image is for another platform", None),
    "same-name": (
        "another image has the same name and platform; the first one was taken",
        'image-index.md: "the first matching entry SHOULD be used"',
    ),
    "layer-order": (
        "the manifest lists its layers in another order than rootfs.diff_ids, which was followed",
        'manifest.md: "layers MUST … follow in stack order"',
    ),
    "compression": (
        "a layer is compressed in another way than its media type says",
        'descriptor.md: mediaType "contains the media type of the referenced content"',
    ),
    "duplicate-path": (
        "a path stands twice in one layer; the last one was taken",
        'layer.md: "MUST NOT include duplicate entries for file paths"',
    ),
    "below-whiteout": (
        "an entry below a whiteout was left out",
        'layer.md: "A whiteout file is an empty file"',
    ),
    "links-below": ("hard links to files of lower layers were left out", None),
    "set-id": (
        "set-id bits were left out with the owners that they are about; --preserve=mode keeps them",
        None,
    ),
    "owners": ("owners were left out: only root can give files away", None),
    "devices": ("devices were left out: they may not be made here", None),
    "times": ("modification times were changed to what the destination can hold", None),
    "left-over": ("what is not needed any more could not all be removed", None),
    "left-over-kept": (
        "what seems to be left of a killed run was not removed: others could have put something "
        "else in its place",
        None,
    ),
    "not-synced": ("it is there, but its name may not be on the disk yet: fsync failed", None),
    "xattrs-unsupported": ("the destination has no such extended attributes; left out", None),
    "xattrs-privileged": ("extended attributes that only root may set were left out", None),
    "xattrs-user": ("user.* attributes are only for files and directories; left out", None),
}


class ImageWarning(msgspec.Struct, frozen=True):
    """One kind of warning.

    Attributes:
        code: its name, stable for programs.
        message: what it says, with the first example.
        count: how often it came up.
        breach: whether it is a breach of the specification, which ``strict`` refuses.
    """

    code: str
    message: str
    count: int
    breach: bool


class Notices:
    """Gathers warnings; in strict mode raises those that are breaches."""

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._seen: dict[str, tuple[str, int]] = {}

    def add(self, code: str, example: bytes | str = b"", count: int = 1) -> None:
        """Note something.

        Args:
            code: the kind.
            example: the member or the detail; the first one is kept.
            count: how often.

        Raises:
            MalformedImage: the kind is a breach of the specification, and this is strict.
        """
        text, rule = _KINDS[code]
        if rule is not None and self._strict:
            raise MalformedImage(
                f"{text} ({rule})", member=example or None, remedy="without --strict: a warning"
            )
        if code in self._seen:
            first, before = self._seen[code]
            self._seen[code] = (first, before + count)
        else:
            self._seen[code] = (printable(example), count)

    def take(self) -> list[tuple[str, str, int]]:
        """Return what :meth:`add` was told, by kind and counted, and forget it."""
        taken = [(code, first, count) for code, (first, count) in self._seen.items()]
        self._seen.clear()
        return taken

    def warnings(self) -> tuple[ImageWarning, ...]:
        """Return what has come up, in its order."""
        return tuple(
            ImageWarning(
                code,
                _KINDS[code][0] + (f": {first}" if first else ""),
                count,
                bool(_KINDS[code][1]),
            )
            for code, (first, count) in self._seen.items()
        )
