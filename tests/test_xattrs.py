"""Capabilities and ACLs: values that Linux rejects are refused when the layer is read."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ociroot.errors import MalformedImage
from ociroot.layers.xattrs import check_xattrs

from .support.build import Member, archive


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *each) for each in entries)


def capability(magic: int, length: int) -> bytes:
    return struct.pack("<I", magic).ljust(length, b"\0")


ANY = 0xFFFFFFFF
MINIMAL = ((1, 7, ANY), (4, 5, ANY), (0x20, 5, ANY))
VALUES = {
    "minimal": ("acl", acl(*MINIMAL)),
    "named": ("acl", acl((1, 7, ANY), (2, 7, 5), (4, 5, ANY), (0x10, 7, ANY), (0x20, 5, ANY))),
    "named without a mask": ("acl", acl((1, 7, ANY), (2, 7, 5), (4, 5, ANY), (0x20, 5, ANY))),
    "in another order": ("acl", acl(*MINIMAL[::-1])),
    "twice": ("acl", acl(*MINIMAL, MINIMAL[2])),
    "a bit too many": ("acl", acl((1, 8, ANY), *MINIMAL[1:])),
    "of nobody": ("acl", acl((1, 7, ANY), (2, 7, ANY), (4, 5, ANY), (16, 7, ANY), (32, 5, ANY))),
    "unknown": ("acl", acl(*MINIMAL, (0x40, 5, ANY))),
    "cut off": ("acl", acl(*MINIMAL)[:-1]),
    "without entries": ("acl", acl()),
    "two groups": (
        "acl",
        acl(*MINIMAL[:2], (8, 5, 9), (8, 4, 7), (16, 7, 0), MINIMAL[2]),
    ),
    "capability 1": ("capability", capability(0x01000000, 12)),
    "capability 2": ("capability", capability(0x02000001, 20)),
    "capability 3": ("capability", capability(0x03000000, 24)),
    "capability 2 cut off": ("capability", capability(0x02000000, 19)),
    "capability 4": ("capability", capability(0x04000000, 24)),
    "capability with an unknown flag": ("capability", capability(0x02000002, 20)),
    "capability of nothing": ("capability", b""),
}
NAMES = {"acl": "system.posix_acl_access", "capability": "security.capability"}


def taken(path: Path, kind: str, value: bytes) -> bool:
    """Return whether the kernel accepts the value."""
    try:
        os.setxattr(path, NAMES[kind], value)
    except OSError as error:
        assert error.errno == errno.EINVAL
        return False
    return True


def accepted(kind: str, value: bytes) -> bool:
    try:
        check_xattrs({NAMES[kind].encode(): value})
    except MalformedImage:
        return False
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


@pytest.mark.root
@pytest.mark.parametrize("name", VALUES)
def test_as_the_kernel_has_it(file: Path, name: str) -> None:
    kind, value = VALUES[name]
    assert accepted(kind, value) == taken(file, kind, value)


@pytest.mark.root
def test_any_acl_as_the_kernel_has_it(file: Path) -> None:
    chance = random.Random(6)
    outcomes = []
    for _ in range(3000):
        count = chance.choice((3, 4, 5))
        tags = sorted(chance.choice((1, 2, 4, 8, 16, 32)) for _ in range(count))
        value = acl(*((tag, chance.randrange(8), chance.randrange(5)) for tag in tags))
        outcomes.append(accepted("acl", value))
        assert outcomes[-1] == taken(file, "acl", value), value
    assert True in outcomes
    assert False in outcomes


NAMES_TRIED = [
    *(
        f"{space}{rest}"
        for space in ("user", "trusted", "security")
        for rest in ("", ".", "..", ".a")
    ),
    *("system.", "system", "system.a", "system.posix_acl", "a", ".", ".a", "a.", "a.b", "User.a"),
    *("user.a.", "trusted.a.", "security.capability."),
    "user." + "n" * 250,
]


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES_TRIED)
def test_names_as_the_kernel_has_them(file: Path, name: str) -> None:
    """Invalid names are refused; unsupported ones are passed to the destination."""
    try:
        os.setxattr(file, name, b"value")
    except OSError as error:
        refused = error.errno == errno.EINVAL
        assert refused or error.errno == errno.ENOTSUP
    else:
        refused = False
    try:
        check_xattrs({b"user.other": b"1", name.encode(): b"value"})
    except MalformedImage as error:
        assert name in str(error)
        assert refused
    else:
        assert not refused


@pytest.mark.parametrize("name", [b"user.", b"trusted.", b"security."])
def test_verify_refuses_what_extract_would_fail_on(tmp_path: Path, name: bytes) -> None:
    path = archive(tmp_path / "image", [[Member(b"f", xattrs={name: b"1"})]])
    problems = []
    for command in (["verify", path], ["extract", path, tmp_path / "a"], ["ls", path]):
        run = [sys.executable, "-m", "ociroot", *map(str, command)]
        result = subprocess.run(run, capture_output=True, text=True, check=False)
        assert result.returncode == 3, result.stderr
        problems.append(result.stderr.rpartition(", f, ")[2])
    assert problems[0].strip()
    assert set(problems) == {problems[0]}
    assert not (tmp_path / "a").exists()
