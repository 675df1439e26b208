"""Small images with costly documents: bounds on time, counted in steps, and on memory."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ociroot
from ociroot.cli import command
from ociroot.errors import LimitExceeded, MalformedImage, UsageError

from .support import build
from .support.build import Image, Member, archive, archive_of
from .support.counting import counting, steps

NAME = "org.opencontainers.image.ref.name"
CONFIG = {"architecture": build.HOST_ARCHITECTURE, "os": "linux"}
MISSING = "sha256:" + "0" * 64


def packed(document: Any) -> bytes:
    return json.dumps(document).encode()


def nested(path: Path, names: list[str], children: int, **inner: Any) -> Path:
    """Write an archive that lists one index under many names."""
    child = {"mediaType": build.MANIFEST, "digest": MISSING, "size": 1}
    index = packed({"schemaVersion": 2, "manifests": [child] * children})
    entries = [build.describe(build.INDEX, index, annotations={NAME: name}) for name in names]
    blobs: dict[str, bytes | None] = {build.digest(index): index}
    return archive_of(path, [], index={"manifests": entries}, blobs=blobs)


def images(count: int, **more: Any) -> list[Image]:
    """Return distinct images, each with a name of its own."""
    return [
        Image(
            [[Member(b"%d" % n)]],
            descriptor={"annotations": {NAME: f"n{n}"}, **more},
        )
        for n in range(count)
    ]


def test_each_descriptor_counts_as_often_as_it_is_looked_at(tmp_path: Path) -> None:
    path = nested(tmp_path / "a", [f"n{n}" for n in range(300)], 100)
    with ociroot.open(path) as source, pytest.raises(LimitExceeded, match="--max-descriptors"):
        source.listing()
    with ociroot.open(
        path, ociroot.SourceOptions(limits=ociroot.Limits(descriptors=31_000))
    ) as source:
        assert len(source.listing().others) == 300


def test_a_long_name_counts_for_all_that_an_index_lists(tmp_path: Path) -> None:
    path = nested(tmp_path / "a", ["x" * 1_000_000], 9_000)
    tracemalloc.start()
    try:
        with ociroot.open(path) as source, pytest.raises(LimitExceeded, match="--max-documents"):
            source.listing()
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def many(path: Path, count: int, steps_of_history: int) -> Path:
    config: dict[str, Any] = {"history": [{}] * steps_of_history}
    return archive_of(
        path, [Image([[Member(b"%d" % n)]], config={**config, "n": n}) for n in range(count)]
    )


def test_documents_are_not_kept(tmp_path: Path) -> None:
    def peak(count: int) -> tuple[int, int]:
        path = many(tmp_path / "a", count, 20_000)
        tracemalloc.start()
        try:
            with ociroot.open(path) as source:
                listing = source.listing()
                assert len(listing.images) == count
                gc.collect()
                return tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    kept, most = peak(5)
    assert kept < 1 << 20
    assert most < 2 * peak(1)[1]


def test_all_documents_together_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many(tmp_path / "a", 20, 50_000)
    limits = ociroot.Limits(documents=1 << 20)
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source,
        counting(monkeypatch) as counts,
    ):
        with pytest.raises(LimitExceeded, match="--max-documents"):
            source.listing()
        assert counts.bytes_read <= limits.documents
    # The limit on one document is that of a neighbour; the limit on all of them stops the listing.
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source,
        pytest.raises(LimitExceeded, match="--max-documents"),
    ):
        source.image()


def test_one_document_by_many_links_is_counted_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = packed({**CONFIG, "rootfs": {"type": "layers", "diff_ids": []}, "x": "x" * 100_000})
    items = [{"Config": f"{n}", "Layers": []} for n in range(100)]
    members = [Member(b"c", data=config)]
    members += [Member(b"%d" % n, "link", target=b"c") for n in range(100)]
    members += [Member(b"manifest.json", data=packed(items))]
    (tmp_path / "a").write_bytes(build.tar(members, "gnu"))
    limits = ociroot.Limits(documents=1 << 20)
    with (
        ociroot.open(tmp_path / "a", ociroot.SourceOptions(limits=limits)) as source,
        counting(monkeypatch) as counts,
    ):
        with pytest.raises(LimitExceeded, match="--max-documents"):
            source.listing()
        assert counts.bytes_read < 2 * limits.documents


# Documents that are not needed are not read.


def test_of_many_tags_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_of(tmp_path / "a", images(50, platform=None))
    with ociroot.open(path) as source, counting(monkeypatch) as counts:
        assert source.image(ref="n7").names == ("n7",)
        assert counts.reads <= 5, "the index, and the documents of one image"


def test_of_many_platforms_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Image([[Member(b"%d" % n)]], platform=("linux", f"cpu{n}")) for n in range(50)]
    with ociroot.open(archive_of(tmp_path / "a", made)) as source:
        with counting(monkeypatch) as counts:
            image = source.image(platform="linux/cpu8")
        assert str(image.platform) == "linux/cpu8"
        assert counts.reads <= 5
        digest = str(source.image(platform="linux/cpu9").digest)
        with counting(monkeypatch) as counts:
            assert str(source.image(platform="linux/cpu9", digest=digest).digest) == digest
        assert counts.reads <= 4, "the index is known"


def test_verify_all_lists_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build.unpacked(archive_of(tmp_path / "a", images(60)), tmp_path / "b")
    with counting(monkeypatch) as counts:
        result = CliRunner().invoke(command, ["verify", "--all", str(path)])
    assert result.exit_code == 0
    assert result.stdout.count("verified") == 60
    assert counts.reads <= 10 * 60


def test_a_choice_among_many_is_no_work_for_each_pair(tmp_path: Path) -> None:
    def needed(count: int) -> int:
        with ociroot.open(archive_of(tmp_path / "a", images(count))) as source:
            source.listing()

            def choose() -> None:
                with pytest.raises(UsageError, match="several images"):
                    source.image()

            return steps(choose)

    needed(10)
    assert needed(800) < 2.3 * needed(400)


# Both documents at once.


def test_both_documents_are_compared_once_for_each_image(tmp_path: Path) -> None:
    def needed(layers: int, names: int = 200) -> int:
        config = packed({**CONFIG, "rootfs": {"type": "layers", "diff_ids": []}})
        described = build.describe(build.CONFIG, config)
        digests = [f"sha256:{n:064x}" for n in range(layers)]
        listed = [{"mediaType": build.LAYER, "digest": digest, "size": 1} for digest in digests]
        manifest = packed({"schemaVersion": 2, "config": described, "layers": listed})
        entry = build.describe(build.MANIFEST, manifest)
        paths = ["blobs/" + digest.replace(":", "/") for digest in (described["digest"], *digests)]
        path = archive_of(
            tmp_path / "a",
            [],
            index={"manifests": [{**entry, "annotations": {NAME: f"n{n}"}} for n in range(names)]},
            blobs={build.digest(config): config, build.digest(manifest): manifest},
            files={b"manifest.json": packed([{"Config": paths[0], "Layers": paths[1:]}])},
        )
        with ociroot.open(path) as source:
            return steps(source.listing)

    needed(1)
    assert needed(200) < 2 * needed(20)


def test_more_layers_than_an_image_may_have_are_not_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = packed({**CONFIG, "rootfs": {"type": "layers", "diff_ids": []}})
    item = {"Config": "c", "Layers": [str(n) for n in range(10_000)]}
    (tmp_path / "c").write_bytes(config)
    (tmp_path / "manifest.json").write_bytes(packed([item]))
    with ociroot.open(tmp_path) as source, counting(monkeypatch) as counts:
        with pytest.raises(LimitExceeded, match="--max-layers"):
            source.image()
        assert counts.looks < 100


# Names.


@pytest.mark.parametrize("part", ["a/", "../", "./", "c/../"])
def test_a_long_name_in_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    config = packed({**CONFIG, "rootfs": {"type": "layers", "diff_ids": [MISSING]}})
    (tmp_path / "c").write_bytes(config)
    for name in (part * 60_000, part * 700, part * 700 + "x" * 300):
        item = {"Config": "c", "Layers": [name]}
        (tmp_path / "manifest.json").write_bytes(packed([item]))
        with ociroot.open(tmp_path) as source, counting(monkeypatch) as counts:
            with pytest.raises(MalformedImage) as caught:
                source.image()
            assert counts.looks < 2000
        assert len(str(caught.value)) < 2500


def test_long_names_of_members_count_as_several(tmp_path: Path) -> None:
    members = [Member(b"%d/" % n + b"x" * 25_000) for n in range(300)]
    (tmp_path / "a").write_bytes(build.tar(members))
    limits = ociroot.Limits(members=20_000)
    with pytest.raises(LimitExceeded, match="--max-members") as caught:
        ociroot.open(tmp_path / "a", ociroot.SourceOptions(limits=limits))
    assert len(str(caught.value)) < 2000


def test_what_is_shown_of_a_shared_document_counts_each_time(tmp_path: Path) -> None:
    """One configuration with a very long platform, listed by many images."""
    rootfs = {"type": "layers", "diff_ids": []}
    config = packed({**CONFIG, "os.version": "x" * 100_000, "rootfs": rootfs})
    described = build.describe(build.CONFIG, config)
    blobs: dict[str, bytes | None] = {build.digest(config): config}
    entries = []
    for number in range(50):
        manifest = packed({"schemaVersion": 2, "config": described, "n": number})
        blobs[build.digest(manifest)] = manifest
        entries.append(build.describe(build.MANIFEST, manifest))
    path = archive_of(tmp_path / "a", [], index={"manifests": entries}, blobs=blobs)
    limits = ociroot.Limits(documents=1 << 20)
    with (
        ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source,
        pytest.raises(LimitExceeded, match="docum"),
    ):
        source.listing()


# Output.


def test_json_leaves_no_garbage_for_each_element(tmp_path: Path) -> None:
    """The command runs without the garbage collector, so cycles would accumulate."""
    steps_of_history = 3000
    path = archive(tmp_path / "a", [], config={"history": [{"created_by": "x"}] * steps_of_history})
    arguments = ["inspect", "--json", str(path)]
    CliRunner().invoke(command, arguments)
    gc.collect()
    gc.disable()
    try:
        result = CliRunner().invoke(command, arguments)
        garbage = gc.collect()
    finally:
        gc.enable()
    assert len(json.loads(result.stdout)["image"]["history"]) == steps_of_history
    assert garbage < steps_of_history


def test_errors_do_not_keep_documents(tmp_path: Path) -> None:
    """A traceback would reference the frames that read them."""
    config: dict[str, Any] = {"n": 1, "x": "x" * 1_000_000, "architecture": 7}
    made = [Image([], config=config, manifest={"n": n}) for n in range(10)]
    made += [Image([], config={**config, "n": n}) for n in range(10)]
    path = archive_of(tmp_path / "a", made)
    tracemalloc.start()
    try:
        with ociroot.open(path) as source:
            assert all(each.is_unreadable for each in source.listing().others)
            gc.collect()
            # The documents have 20 MB; modules that are imported here first take some, too.
            assert tracemalloc.get_traced_memory()[0] < 5 << 20
    finally:
        tracemalloc.stop()
