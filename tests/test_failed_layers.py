"""What a layer that cannot be applied is refused for, and that finding out reads nothing twice.

The digest of a damaged blob is the truth about it, and is known at its end. The blobs here are
larger than what is under way between the threads, so that there is a rest to be read on.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import ociroot
from ociroot.rootfs.operations import NoOperations

from .support.build import Layer, archive, digest, file, link, tar, unpacked
from .support.counting import counting
from .support.docker import docker_archive
from .support.fetched import FetchedSource

# More than the pipeline holds of a layer.
MUCH = random.Random(1).randbytes(32 << 20)
PLAIN = tar([file(b"first", b"1" * 2000), file(b"much", MUCH), file(b"last", b"2" * 2000)])
BLOBS = {"plain": PLAIN, "gzip": gzip.compress(PLAIN, 0, mtime=0)}
NEXT = Layer([file(b"next")], "gzip")

Use = Callable[[ociroot.Image, Path], object]
USES: dict[str, Use] = {
    "extract": lambda image, path: image.extract(path / "root"),
    "merged": lambda image, path: image.merged(),
    "ls": lambda image, path: image.merged(verify=False),
    "entries": lambda image, path: list(image.layers[0].entries()),
    "layer": lambda image, path: image.verified_layer(1),
}


@pytest.fixture(params=USES.values(), ids=list(USES))
def use(request: pytest.FixtureRequest) -> Use:
    used: Use = request.param
    return used


def fetched(tmp_path: Path, layers: list[Layer], **rest: object) -> FetchedSource:
    path = archive(tmp_path / "image.tar", layers, **rest)  # type: ignore[arg-type]
    return FetchedSource(path)


def image_of(source: FetchedSource) -> ociroot.Image:
    return ociroot.OpenedSource(source).image()


def flipped(blob: bytes, at: int) -> bytes:
    """A blob with another byte at a place."""
    return blob[:at] + bytes([blob[at] ^ 0xFF]) + blob[at + 1 :]


@pytest.mark.parametrize("name", [b"first", b"much", b"last"])
@pytest.mark.parametrize("kind", BLOBS)
def test_a_damaged_blob_is_read_once(tmp_path: Path, use: Use, kind: str, name: bytes) -> None:
    """Wherever it is damaged, as here in a header."""
    blob = BLOBS[kind]
    at = blob.index(name)
    source = fetched(tmp_path, [Layer(PLAIN, blob=blob), NEXT])
    image = image_of(source)
    source.blobs[digest(blob)] = damaged = flipped(blob, at)
    with pytest.raises(ociroot.VerificationError, match=digest(damaged)) as refused:
        use(image, tmp_path)
    assert "layer 1/2" in str(refused.value)
    assert source.layer_reads()[0] == 1 and source.layer_reads()[1] <= 1
    assert source.fetched[digest(blob)] == len(blob), "to its end, and no further"


@pytest.mark.parametrize("kind", BLOBS)
@pytest.mark.parametrize("name", ["extract", "merged", "ls", "entries"])
def test_a_sound_blob_that_cannot_be_applied(tmp_path: Path, name: str, kind: str) -> None:
    use = USES[name]
    broken = flipped(PLAIN, PLAIN.index(b"much"))
    blob = gzip.compress(broken, 0, mtime=0) if kind == "gzip" else broken
    source = fetched(tmp_path, [Layer(broken, blob=blob), NEXT])
    with pytest.raises(ociroot.MalformedImage, match="layer 1/2"):
        use(image_of(source), tmp_path)
    assert source.layer_reads()[0] == 1 and source.layer_reads()[1] <= 1
    assert source.fetched[digest(blob)] == len(blob)


def test_sound_data_that_cannot_be_decompressed(tmp_path: Path, use: Use) -> None:
    blob = flipped(BLOBS["gzip"], 10)  # the first block's type
    source = fetched(tmp_path, [Layer(PLAIN, "gzip", blob=blob), NEXT])
    with pytest.raises(ociroot.MalformedImage, match="layer 1/2"):
        use(image_of(source), tmp_path)
    assert source.layer_reads() == [1, 0], "the next one would be fetched in vain"


def test_a_compression_that_layers_may_not_have(tmp_path: Path, use: Use) -> None:
    blob = b"\xfd7zXZ\0" + bytes(30 << 20)
    source = fetched(tmp_path, [Layer(PLAIN, "gzip", blob=blob), NEXT])
    with pytest.raises(ociroot.Unsupported, match=r"layer 1/2 .*compressed with xz"):
        use(image_of(source), tmp_path)
    assert source.layer_reads() == [1, 0]


@pytest.mark.parametrize("kind", BLOBS)
def test_a_limit_that_is_exceeded(tmp_path: Path, kind: str) -> None:
    """The damage may be that a size is too large: what is sound is read to its end, too."""
    blob = BLOBS[kind]
    source = fetched(tmp_path, [Layer(PLAIN, blob=blob), NEXT])
    source.limits = ociroot.Limits(size=1 << 20)
    with pytest.raises(ociroot.LimitExceeded, match="layer 1/2"):
        image_of(source).tree()
    assert source.layer_reads() == [1, 0]
    assert source.fetched[digest(blob)] == len(blob)
    source.blobs[digest(blob)] = flipped(blob, blob.index(b"last"))
    with pytest.raises(ociroot.VerificationError, match="layer 1/2"):
        image_of(source).tree()


@pytest.mark.parametrize("error", [ociroot.DestinationError("full"), KeyboardInterrupt()])
def test_what_is_not_about_the_image_ends_at_once(tmp_path: Path, error: BaseException) -> None:
    class Operations(NoOperations):
        def make_file(self, *_: object) -> None:
            raise error

    source = fetched(tmp_path, [Layer(PLAIN, blob=PLAIN), NEXT])
    with pytest.raises(type(error)):
        image_of(source).merged(operations=Operations)
    assert source.fetched[digest(PLAIN)] < len(PLAIN)


def test_a_blob_that_cannot_be_read_on(tmp_path: Path, use: Use) -> None:
    """Then what is known is what was found first."""
    source = fetched(tmp_path, [Layer(PLAIN, blob=PLAIN), NEXT])
    image = image_of(source)
    source.blobs[digest(PLAIN)] = flipped(PLAIN, 0)[: 28 << 20]
    with pytest.raises(ociroot.OcirootError) as refused:
        use(image, tmp_path)
    assert isinstance(refused.value, ociroot.MalformedImage | ociroot.SourceError)
    assert source.layer_reads()[0] == 1


def test_files_of_a_layer_that_has_changed(tmp_path: Path) -> None:
    blob = BLOBS["gzip"]
    source = fetched(tmp_path, [Layer(PLAIN, blob=blob)])
    merged = image_of(source).merged()
    place = merged.tree.find(b"first")
    assert place is not None
    source.blobs[digest(blob)] = flipped(blob, 10)
    with pytest.raises(ociroot.VerificationError, match="layer 1/1"):
        list(merged.read(place[2]))
    assert source.layer_reads() == [2], "to merge it, and to read the file"


def test_a_malformed_layer_in_the_place_of_another(tmp_path: Path) -> None:
    """Alone it cannot be applied; on the layer that belongs below it, it can."""
    layers = [Layer([link(b"b", b"a")], "gzip"), Layer([file(b"a", b"1")], "gzip")]
    diff_ids = [digest(layer.unpacked()) for layer in reversed(layers)]
    source = fetched(tmp_path, layers, diff_ids=diff_ids)
    tree = image_of(source).tree()
    assert set(tree.root.entries) == {b"a", b"b"}
    assert source.layer_reads()[0] == 3, "until it failed, for the order, and to be applied"


def test_a_docker_archive_whose_layer_is_malformed_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no digests of blobs; the diff_id alone says that it is in its place."""
    broken = flipped(PLAIN, PLAIN.index(b"much"))
    layers = {"1.tar": broken, "2.tar": tar([file(b"next")])}
    path = docker_archive(tmp_path / "image.tar", layers)
    with ociroot.open(path) as source:
        image = source.image()
        with counting(monkeypatch) as counts, pytest.raises(ociroot.MalformedImage):
            image.tree()
    assert counts.bytes_read < 1.1 * len(broken)


def test_a_layer_read_in_place_is_read_whole_to_be_diagnosed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its headers were read; now its digest is wanted, and is found by one read."""
    stored = archive(tmp_path / "image.tar", [Layer(PLAIN, blob=PLAIN), NEXT])
    layout = unpacked(stored, tmp_path / "layout")
    blob = layout / "blobs" / digest(PLAIN).replace(":", "/")
    with ociroot.open(layout) as source:
        image = source.image()
        blob.write_bytes(flipped(PLAIN, 0))
        with counting(monkeypatch) as counts, pytest.raises(ociroot.VerificationError):
            image.merged(verify=False)
        assert len(PLAIN) <= counts.bytes_read < 1.1 * len(PLAIN)
        blob.write_bytes(PLAIN)
        with counting(monkeypatch) as counts:
            image.merged(verify=False)
        assert counts.bytes_read < 10_000
