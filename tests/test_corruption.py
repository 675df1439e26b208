"""A damaged image is refused, or gives the same tree if the damage has no effect."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ociroot
from ociroot.errors import MalformedImage, OcirootError, Unsupported, VerificationError

from .support.build import Layer, Member, archive, digest, unpacked
from .support.docker import docker_archive
from .support.snapshot import Snapshot, differences, snapshot
from .support.tally import tally
from .support.user import workshop

RANDOM = 2000

_noise = random.Random(1)
LAYERS = [
    Layer(
        [
            Member(b"etc", "dir", mode=0o750),
            Member(b"etc/a", data=_noise.randbytes(3000)),
            Member(b"etc/b", data=b"text " * 700, pax={b"SCHILY.xattr.user.k": b"v"}),
            Member(b"link", "symlink", target=b"etc/a"),
        ],
        "gzip",
    ),
    Layer([Member(b"etc/.wh.a"), Member(b"c", data=_noise.randbytes(2500))], "zstd"),
    Layer([Member(b"etc/d", "link", target=b"etc/b"), Member(b"e", data=b"plain" * 300)]),
]

# The field boundaries of a tar header.
FIELDS = (0, 1, 100, 108, 116, 124, 136, 148, 156, 157, 257, 263, 265, 297, 329, 345, 500, 511)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def zero(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(min(16, len(data) - at)) + data[at + 16 :]


def insert(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([at % 251]) + data[at:]


def cut(data: bytes, at: int) -> bytes:
    return data[:at] + data[at + 1 + at % 64 :]


DAMAGES = (flip, zero, insert, cut)


def structural(data: bytes) -> list[int]:
    """Return the offsets of structural boundaries: headers, fields, contents, padding, the end."""
    found: set[int] = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            found.update(member.offset + field for field in FIELDS)
            begin, end = member.offset_data, member.offset_data + member.size
            # The headers and trailers of gzip, zstd and tar, and a position in the middle.
            found.update(range(begin, min(begin + 24, end)), range(max(begin, end - 12), end + 2))
            found.update((begin + member.size // 2, begin + 511, begin + 512))
        found.update((tar.offset, tar.offset + 512, len(data) - 1))
    return sorted(at for at in found if at < len(data))


class Trial:
    """Extracts damaged images and compares the result with the tree of the intact one."""

    def __init__(self, where: Path, intact: bytes) -> None:
        self.path, self.root = where / "image", where / "root"
        self.path.write_bytes(intact)
        self.whole = self._extract()
        self.outcomes: dict[str, int] = {}

    def _extract(self) -> Snapshot:
        with ociroot.open(self.path) as source:
            source.image().extract(self.root)
        found = snapshot(self.root)
        shutil.rmtree(self.root)
        return found

    def of(self, damaged: bytes, what: str) -> None:
        self.path.write_bytes(damaged)
        try:
            found = self._extract()
        except (MalformedImage, VerificationError, Unsupported) as error:
            assert error.exit_code in (3, 4, 5)
            assert not self.root.exists(), what
            outcome = type(error).__name__
        else:
            assert differences(self.whole, found) == [], what
            outcome = "the same tree"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        damage = "cut off" if "cut off" in what else "damaged"
        tally(f"an archive {damage}", outcome)
        assert [path.name for path in self.path.parent.iterdir()] == ["image"], what


@pytest.fixture
def place() -> Iterator[Path]:
    with workshop() as where:
        yield where


def oci(path: Path) -> bytes:
    return archive(path, LAYERS).read_bytes()


def docker(path: Path) -> bytes:
    layers = {f"{n}/layer.tar": layer.packed() for n, layer in enumerate(LAYERS)}
    diff_ids = [digest(layer.unpacked()) for layer in LAYERS]
    return docker_archive(path, layers, diff_ids=diff_ids).read_bytes()


FORMS: dict[str, Callable[[Path], bytes]] = {"oci-archive": oci, "docker-archive": docker}


@pytest.mark.parametrize("form", FORMS)
def test_damage_where_something_begins_or_ends(place: Path, tmp_path: Path, form: str) -> None:
    intact = FORMS[form](tmp_path / "image")
    trial = Trial(place, intact)
    for at in structural(intact):
        for damage in DAMAGES:
            trial.of(damage(intact, at), f"{damage.__name__} at {at}")
    assert trial.outcomes["VerificationError"] > 50
    assert trial.outcomes["MalformedImage"] > 50


@pytest.mark.parametrize("form", FORMS)
def test_damage_anywhere(place: Path, tmp_path: Path, form: str) -> None:
    intact = FORMS[form](tmp_path / "image")
    trial = Trial(place, intact)
    chance = random.Random(4)
    for number in range(RANDOM if form == "oci-archive" else RANDOM // 4):
        at = chance.randrange(len(intact))
        damage = DAMAGES[number % len(DAMAGES)]
        trial.of(damage(intact, at), f"{damage.__name__} at {at}")
    assert sum(trial.outcomes.values()) - trial.outcomes.get("the same tree", 0) > 100


@pytest.mark.parametrize("form", FORMS)
def test_truncation(place: Path, tmp_path: Path, form: str) -> None:
    """At each block, and at each byte near the end of the archive."""
    intact = FORMS[form](tmp_path / "image")
    trial = Trial(place, intact)
    ends = {*range(512, len(intact), 512), *range(max(0, len(intact) - 1500), len(intact), 7)}
    for end in sorted(ends):
        trial.of(intact[:end], f"cut off at {end}")
    trial.of(b"", "nothing at all")
    assert trial.outcomes["MalformedImage"] > 10


def test_damage_to_the_files_of_a_layout(place: Path, tmp_path: Path) -> None:
    layout = unpacked(archive(tmp_path / "image", LAYERS), place / "layout")
    root = place / "root"

    def extracted() -> Snapshot:
        with ociroot.open(layout) as source:
            source.image().extract(root)
        found = snapshot(root)
        shutil.rmtree(root)
        return found

    whole = extracted()
    chance = random.Random(5)
    refused = 0
    for file in sorted(path for path in layout.rglob("*") if path.is_file()):
        intact = file.read_bytes()
        places = {0, len(intact) // 2, len(intact) - 1}
        places |= {chance.randrange(len(intact)) for _ in range(12)}
        for at in sorted(places):
            for damage in DAMAGES:
                file.write_bytes(damage(intact, at))
                try:
                    found = extracted()
                except OcirootError as error:
                    assert error.exit_code in (3, 4, 5), (file, damage.__name__, at, error)
                    refused += 1
                    tally("a layout damaged", type(error).__name__)
                else:
                    assert differences(whole, found) == [], (file, damage.__name__, at)
                    tally("a layout damaged", "the same tree")
                assert sorted(p.name for p in place.iterdir()) == ["layout"]
        file.write_bytes(intact)
    assert refused > 300
