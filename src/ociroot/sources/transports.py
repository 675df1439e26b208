"""The transports of skopeo, podman and buildah: which of them name something local, and where.

``oci:DIR[:REF]``, ``oci-archive:FILE[:REF]`` and ``docker-archive:FILE[:REF]`` name what can be
opened; the form is told by the content all the same. The others name images that only other
programs can reach, and are refused with what to run instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import Unsupported, UsageError, printable, quoted

__all__ = ["Name", "image_exists", "parse", "remedy_for_absent"]

_LOCAL = ("oci", "oci-archive", "docker-archive")
# What a transport names, and the command that makes a file of it.
_ELSEWHERE = {
    "containers-storage": (
        "an image in the storage of podman",
        "podman save --format oci-archive -o image.tar {}",
    ),
    "dir": ("skopeo's own format for a directory", "skopeo copy dir:{} oci-archive:image.tar"),
    "docker": ("an image of a registry", "skopeo copy docker://{} oci-archive:image.tar"),
    "docker-daemon": ("an image of Docker", "docker save -o image.tar {}"),
}
# A reference as Docker has it (distribution/reference): a host where there is one, the parts of a
# path, a tag, a digest.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = (
    r"(?P<host>(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::[0-9]+)?/)?"
    rf"{_PART}(?:/{_PART})*"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@[a-z0-9]+:[0-9a-f]{32,128})?"
)


class Name(NamedTuple):
    """What a user calls an image.

    Attributes:
        path: the file or the directory that it is in; ``-`` is standard input.
        ref: its name in there; empty: none was given.
    """

    path: str
    ref: str = ""


def parse(text: str) -> Name:
    """Read what a user calls an image.

    What exists by exactly that name is meant, whatever it looks like; what begins with ``./`` or
    ``/`` is always a path.

    Args:
        text: a path, or a transport with one: ``oci:DIR:REF``.

    Raises:
        UsageError: a transport without a path.
        Unsupported: a transport for what only other programs can reach, with what to run instead.
    """
    transport, colon, rest = text.partition(":")
    if not colon or _is_there(text):
        return Name(text)
    if transport in _ELSEWHERE:
        import shlex  # 3 ms that only an error needs

        what, command = _ELSEWHERE[transport]
        image = shlex.quote(printable(rest.removeprefix("//") or "IMAGE"))
        raise Unsupported(
            f"this is {what}, which cannot be read",
            source=text,
            remedy=f"{command.format(image)} makes a file of it",
        )
    if transport not in _LOCAL:
        return Name(text)
    if not rest:
        raise UsageError(f"{quoted(text)} names no file: {transport}:PATH[:NAME]")
    # Either may have colons. The longest path that exists is meant; if there is none, what is
    # before the first colon, as skopeo parts them.
    for name in _parted(rest):
        if _is_there(name.path):
            return name
    path, _, ref = rest.partition(":")
    return Name(path, ref)


def image_exists(text: str) -> bool:
    """Return whether a name, as :func:`~ociroot.open` takes it, names something that is there.

    Args:
        text: a path, or one of skopeo's transports with one. What is there need not be an image.
    """
    try:
        path, ref = parse(text)
    except (UsageError, Unsupported):
        return False
    # No name of an image is a path behind a colon: that is one inside the image.
    return _is_there(path) and not ref.startswith("/") and ":/" not in ref


def remedy_for_absent(text: str) -> str | None:
    """Return what to run where a user meant an image that is in no file.

    Args:
        text: what was given as the name of a file.

    Returns:
        None when it is there, or looks like nothing but a path.
    """
    match = re.fullmatch(_REFERENCE, text)
    if match is None or _is_there(text):
        return None
    host = match["host"] is not None and not os.path.isdir(match["host"])
    if not (match["tag"] or match["digest"] or host):
        return None
    return (
        f"skopeo copy docker://{text} oci-archive:image.tar fetches the image of that name, "
        f"docker save -o image.tar {text} takes Docker's"
    )


def _parted(text: str) -> Iterator[Name]:
    """Yield every way to part a path and a name at a colon, the longest path first."""
    yield Name(text)
    at = len(text)
    while (at := text.rfind(":", 0, at)) > 0:
        yield Name(text[:at], text[at + 1 :])


def _is_there(path: str) -> bool:
    return path == "-" or os.path.lexists(path)
