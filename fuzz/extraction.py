"""The target for extraction: the tree on disk equals the merged tree in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ociroot
from ociroot.errors import DestinationError, OcirootError

from .checks import check, memory_file, refusal, undisturbed
from .images import Stack, files_of, pack, write
from .looking import compare

__all__ = ["arena", "extract"]

_MEMORY = Path("/dev/shm")
_CONTENT = b"nobody may change this"


def extract(data: bytes) -> None:
    """A whole extraction: the tree on disk equals the one in memory, or does not exist."""
    stack = Stack.read(data)
    files = files_of(stack.form, stack.layers, stack.compression)
    with undisturbed(), arena() as place:
        root = place / "root"
        if stack.form == "oci-layout":
            write(place / "image", files)
            _extract(str(place / "image"), root, stack)
            check(set(os.listdir(place / "image")) == {"oci-layout", "index.json", "blobs"}, files)
        else:
            with memory_file(pack(files)) as path:
                _extract(path, root, stack)


def _extract(path: str, root: Path, stack: Stack) -> None:
    with ociroot.open(path) as source:
        check(source.form == stack.form, source.form)
        image = source.image()
        merged: ociroot.Merged | None = None
        outcome: tuple[str, str] | None = None
        try:
            # In place if possible: another code path of the readers, and the faster one.
            merged = image.merged(strict=stack.strict, verify=False)
        except OcirootError as error:
            outcome = refusal(error)
        for replace in (False, True)[: 1 + stack.again]:
            try:
                report = image.extract(
                    root, ociroot.ExtractOptions(strict=stack.strict, replace_anything=replace)
                )
            except DestinationError as error:
                # Values that the kernel rejects, such as a name that is too long.
                refusal(error)
                check(replace or not os.path.lexists(root), "a destination after a refusal")
                return
            except OcirootError as error:
                check(refusal(error) == outcome, f"{error}; in memory {outcome}")
                check(not os.path.lexists(root), "a destination after a refusal")
                return
            check(merged is not None, f"extracted, and in memory {outcome}")
            if merged is not None:
                compare(root, merged, {warning.code for warning in report.warnings})


@contextmanager
def arena() -> Iterator[Path]:
    """Provide a directory, and check that nothing beside the root and the image changed."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="ociroot-fuzz-", dir=where))
    try:
        outside = place / "outside"
        outside.mkdir()
        (outside / "f").write_bytes(_CONTENT)
        before = _stated(outside), _stated(outside / "f")
        yield place
        after = _stated(outside), _stated(outside / "f")
        check(after == before, f"outside of the root: {before}, {after}")
        check(set(os.listdir(place)) <= {"image", "outside", "root", "copy"}, os.listdir(place))
        check((outside / "f").read_bytes() == _CONTENT, "content outside of the root")
        check(os.listdir(outside) == ["f"], os.listdir(outside))
    finally:
        _remove(place)


def _stated(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns


def _remove(place: Path) -> None:
    try:
        shutil.rmtree(place)
    except (OSError, RecursionError):
        # Too deep for Python, or not accessible.
        subprocess.run(["chmod", "-R", "u+rwX", place], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", place], check=True)
