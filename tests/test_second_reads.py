"""Data that is read a second time is verified again, unless the caller disabled verification.

The image file changes between the passes here: another process may replace it with one that has
other layers of the same size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import ociroot

from .support.build import Compression, Layer, Member, archive, compress, digest, file, symlink, tar
from .support.docker import docker_archive

# More bytes than the pipeline buffers, so that what follows them is read later.
MUCH = 64 << 20


def swapped(path: Path, one: bytes, other: bytes) -> None:
    """Replace bytes in a file with others of the same length."""
    content = path.read_bytes()
    assert len(one) == len(other) and content.count(one) == 1
    with path.open("r+b") as out:
        out.seek(content.index(one))
        out.write(other)


def test_the_pass_that_gathers_whiteouts(tmp_path: Path) -> None:
    """A layer without a digest, as in a docker-archive, is verified against its diff_id."""
    below = [
        file(b"first"),
        file(b"much", bytes(MUCH)),
        file(b"d/a"),
        file(b"d/b"),
        symlink(b"l", b"d"),
    ]
    layers = [[file(b"l/x"), file(b"l/.wh." + name)] for name in (b"a", b"b")]
    right, wrong = map(tar, layers)
    path = docker_archive(tmp_path / "image.tar", {"1.tar": tar(below), "2.tar": right})
    passes: list[str] = []

    class Operations(ociroot.NoOperations):
        def make_file(self, *_: object) -> None:
            # The second pass over the entries has begun after the whiteouts were gathered.
            if passes == ["first", "second"]:
                passes.append("back")
                swapped(path, wrong, right)

    def begin() -> Operations:
        passes.append("second" if passes else "first")
        if passes == ["first", "second"]:
            swapped(path, right, wrong)
        return Operations()

    with ociroot.open(path) as source:
        image = source.image()
        assert set(_names(image.tree(), b"d")) == {b"b", b"x"}
        with pytest.raises(ociroot.VerificationError, match=r"layer 2/2 .*the diff_id is"):
            image.merged(operations=begin)
    assert passes == ["first", "second"]


def _names(tree: ociroot.Tree, path: bytes) -> list[bytes]:
    place = tree.find(path)
    assert place is not None and isinstance(place[2], ociroot.Directory)
    return list(place[2].entries)


FILES = [
    file(b"a", b"first"),
    file(b"b", b"second"),
    file(b"c", bytes(3 << 20)),
    file(b"d", b"last"),
]
OTHERS = [file(b"a", b"FIRST"), *FILES[1:]]


def packed_as_long(members: list[Member], compression: Compression) -> bytes:
    """Return a compressed layer whose length does not depend on its content."""
    blob = compress(tar(members), compression)
    rest = 8000 - len(blob)
    if compression == "zstd":
        # A skippable frame.
        return (
            blob
            + (0x184D2A50).to_bytes(4, "little")
            + (rest - 8).to_bytes(4, "little")
            + bytes(rest - 8)
        )
    return blob + bytes(rest)


Take = Callable[[ociroot.Merged, list[ociroot.Node]], list[bytes]]


def by_files(merged: ociroot.Merged, nodes: list[ociroot.Node]) -> list[bytes]:
    return [b"".join(stream.iter_chunks(node.stored_size)) for node, stream in merged.files(nodes)]


def by_read(merged: ociroot.Merged, nodes: list[ociroot.Node]) -> list[bytes]:
    return [b"".join(merged.read(node)) for node in nodes]


@pytest.mark.parametrize("take", [by_files, by_read])
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("form", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_layer_is_read_to_its_end(
    tmp_path: Path, compression: Compression, form: str, verify: bool, take: Take
) -> None:
    """The data up to the requested file may be unchanged, or changed without an error."""
    packed = packed_as_long(FILES, compression)
    sound = packed_as_long(OTHERS, compression)
    whole = len(compress(tar(FILES), compression))
    broken = packed[: whole - 100] + bytes(100) + packed[whole:]
    path = tmp_path / "image.tar"
    if form == "docker":
        docker_archive(path, {"layer.tar": packed})
    else:
        archive(path, [Layer(tar(FILES), compression, blob=packed)])
    for other in (broken, sound):
        with ociroot.open(path) as source:
            merged = source.image().merged(verify=verify)
            nodes = [_node(merged, b"a"), _node(merged, b"b")]
            assert take(merged, nodes) == [b"first", b"second"]
            swapped(path, packed, other)
            with pytest.raises(ociroot.OcirootError) as refused:
                take(merged, nodes)
            assert refused.value.exit_code == (4 if form == "oci" or other is sound else 3)
            assert str(path) in str(refused.value) and "layer 1/1" in str(refused.value)
            swapped(path, other, packed)


def _as_long(blob: bytes, length: int) -> bytes:
    assert len(blob) <= length
    return blob + bytes(length - len(blob))


def _node(merged: ociroot.Merged, path: bytes) -> ociroot.Node:
    place = merged.tree.find(path)
    assert place is not None
    return place[2]


def test_a_compressed_layer_is_not_taken_for_a_plain_one(tmp_path: Path) -> None:
    """A plain layer is read in place, without a digest."""
    plain = tar(OTHERS[:2])
    packed = compress(tar(FILES[:2]), "gzip") + compress(b"", "gzip") * 1000
    path = docker_archive(tmp_path / "image.tar", {"layer.tar": packed})
    with ociroot.open(path) as source:
        merged = source.image().merged()
        node = _node(merged, b"a")
        swapped(path, packed, _as_long(plain, len(packed)))
        with pytest.raises(ociroot.VerificationError, match="the diff_id is"):
            by_read(merged, [node])


def test_the_entries_of_a_layer_without_a_digest(tmp_path: Path) -> None:
    layers, diff_ids = {"layer.tar": tar(FILES)}, [digest(tar(OTHERS))]
    path = docker_archive(tmp_path / "image.tar", layers, diff_ids=diff_ids)
    with ociroot.open(path) as source:
        entries = source.image().layers[0].entries()
        assert [next(entries).name for _ in FILES] == [b"a", b"b", b"c", b"d"]
        with pytest.raises(ociroot.VerificationError, match=r"layer 1/1 .*the diff_id is"):
            next(entries)


def test_a_file_that_is_wanted_twice_comes_once(tmp_path: Path) -> None:
    for compression in ("none", "gzip"):
        path = archive(tmp_path / "image.tar", [Layer(FILES, compression)])
        with ociroot.open(path) as source:
            merged = source.image().merged()
            a, d = _node(merged, b"a"), _node(merged, b"d")
            assert by_files(merged, [d, a, d, a, a]) == [b"first", b"last"]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_reading_too_much_is_an_error_of_the_caller(
    tmp_path: Path, compression: Compression
) -> None:
    path = archive(tmp_path / "image.tar", [Layer(FILES, compression)])
    with ociroot.open(path) as source:
        merged = source.image().merged()
        with pytest.raises(ValueError, match="more was read"):
            for node, data in merged.files([_node(merged, b"a"), _node(merged, b"b")]):
                for _ in data.iter_chunks(node.stored_size + 4096):
                    pass
        with pytest.raises(ValueError, match="no regular file"):
            by_files(merged, [merged.tree.root])
