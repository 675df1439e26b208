"""The target for the commands that read an image: their output and their copies."""

from __future__ import annotations

import io
import json
import os
import zlib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import ociroot
from ociroot.cli import command
from ociroot.errors import OcirootError

from .checks import Finding, check, memory_file, refusal, undisturbed
from .extraction import arena
from .images import Stack, files_of, pack
from .looking import compare

__all__ = ["commands", "show"]

_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ls", "-laR", "--xattrs"),
    ("ls", "-R", "--json"),
    ("ls", "-ld", "IMAGE", "a/*", "/l/*", ".", "f"),
    ("ls", "--layer", "1", "-l", "--xattrs"),
    ("ls", "--layer", "1", "--json"),
    ("tree", "--depth", "9"),
    ("tree", "--json"),
    ("find-layer", "IMAGE", "a/f"),
    ("find-layer", "--json", "IMAGE", "l"),
    ("find-layer",),
    ("find-layer", "--json", "IMAGE", "/l/*"),
    ("ls", "--layer", "1", "IMAGE", "a*", "/*/f"),
    ("diff", "--layers", "0..1"),
    ("diff", "--layers", "1..0", "--json"),
    ("verify",),
    ("verify", "--json"),
)


def commands(data: bytes) -> None:
    """Read a stack of layers: the output is printable or JSON, and a copy of the root equals it."""
    stack = Stack.read(data)
    form = "oci-archive" if stack.form == "oci-layout" else stack.form
    with memory_file(pack(files_of(form, stack.layers, stack.compression))) as path, undisturbed():
        # Not all of them each time: most of the time is spent on reading the image.
        for number in range(3):
            show(path, *_COMMANDS[(zlib.crc32(data) + number * 5) % len(_COMMANDS)])
        with arena() as place:
            _copy(path, place / "copy")


def show(path: str, *words: str) -> None:
    """Run a command on an image: no control characters, and valid JSON."""
    out = io.StringIO()
    arguments = [path if word == "IMAGE" else word for word in words]
    arguments += [path] if path not in arguments else []
    try:
        with redirect_stdout(out), redirect_stderr(out if "--json" not in words else io.StringIO()):
            command.main(arguments, "ociroot", standalone_mode=False)
    except OcirootError as error:
        refusal(error)
        return
    if "--json" in words:
        json.loads(out.getvalue(), parse_constant=_no_json)
        return
    for line in out.getvalue().split("\n"):
        check(line.isprintable(), line)


def _no_json(constant: str) -> None:
    raise Finding(f"{constant} in a JSON document")


def _copy(path: str, to: Path) -> None:
    with ociroot.open(path) as source:
        try:
            merged = source.image().merged(verify=False)
            warnings = merged.copy(merged.tree.root, to, keep_set_id=True, verify=False)
        except OcirootError as error:
            refusal(error)
            check(not os.path.lexists(to), "a copy after a refusal")
        else:
            compare(to, merged, {warning.code for warning in warnings})
