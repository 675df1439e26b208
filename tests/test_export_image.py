"""An image exported as an image: its blobs and documents, and who accepts it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import ociroot
from ociroot import ExportOptions, ExportReport

from .support import build
from .support.build import Image, Layer, Member, archive, archive_of, directory, file, link, symlink
from .support.docker import docker_archive
from .support.mounts import disk
from .support.needs import need_root, need_tools
from .support.real import podman_in
from .support.real import run as run_tool
from .support.snapshot import differences, snapshot
from .support.user import workshop

LAYERS: list[list[Member]] = [
    [
        directory(b"./", mode=0o750),
        directory(b"a"),
        file(b"a/one", b"one" * 5000),
        file(b"x", b"x"),
    ],
    [link(b"a/two", b"a/one"), symlink(b"l", b"a"), file(b".wh.x")],
]
REF = {"annotations": {"org.opencontainers.image.ref.name": "example.org/app:1"}}
CONFIG: dict[str, Any] = {
    "created": "2020-01-02T03:04:05Z",
    "config": {"Cmd": ["/x"], "Healthcheck": None, "Unknown": [1.5, None]},
    "history": [
        {"created": "2020-01-01T00:00:00Z", "created_by": "one", "x-step": 1},
        {"created": "2020-01-01T00:00:01Z", "created_by": "env", "empty_layer": True},
        {"created": "2020-01-01T00:00:02Z", "created_by": "two"},
    ],
    "x.vendor": {"deep": [None, "ü"]},
}
FORMATS = ("oci-archive", "oci", "docker-archive")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two layers, of which one is compressed, with properties of their own everywhere."""
    return archive(
        tmp_path / "image.tar",
        [Layer(LAYERS[0], "gzip", descriptor={"annotations": {"stargz": "toc"}}), Layer(LAYERS[1])],
        config=CONFIG,
        manifest={"annotations": {"old": "kept"}, "x-unknown": True},
        descriptor=REF,
    )


def export(
    image: Path, to: Path | io.BytesIO, form: str = "oci-archive", **rest: Any
) -> ExportReport:
    with ociroot.open(image) as source:
        return source.image().export(to, ExportOptions(format=form, **rest))


def files(path: Path) -> dict[str, bytes]:
    """The files of an archive or a directory."""
    if path.is_dir():
        found = (each for each in path.rglob("*") if each.is_file())
        return {str(each.relative_to(path)): each.read_bytes() for each in found}
    with tarfile.open(path) as tar:
        content = {member.name: tar.extractfile(member) for member in tar}
        return {name: each.read() for name, each in content.items() if each is not None}


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The index's descriptor, the manifest and the configuration, each found by its digest."""
    found = files(path)
    assert found["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}'
    index = json.loads(found["index.json"])
    assert (index["schemaVersion"], index["mediaType"]) == (2, build.INDEX)
    (descriptor,) = index["manifests"]
    manifest = json.loads(blob(found, descriptor))
    for layer in manifest["layers"]:
        blob(found, layer)
    return descriptor, manifest, json.loads(blob(found, manifest["config"]))


def blob(found: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """A blob, which has the digest and the size that its descriptor says."""
    algorithm, _, encoded = descriptor["digest"].partition(":")
    content = found[f"blobs/{algorithm}/{encoded}"]
    assert hashlib.new(algorithm, content).hexdigest() == encoded
    assert len(content) == descriptor["size"]
    return content


def unpacked(content: bytes, media_type: str) -> bytes:
    if media_type.endswith("+gzip"):
        return gzip.decompress(content)
    if media_type.endswith("+zstd"):
        return zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    return content


def check_diff_ids(path: Path) -> None:
    """Each layer's uncompressed bytes have its diff_id, and its media type says what they are."""
    _, manifest, config = documents(path)
    found = files(path)
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"])
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        assert build.digest(unpacked(blob(found, layer), layer["mediaType"])) == diff_id
    steps = [step for step in config.get("history", ()) if not step.get("empty_layer")]
    assert len(steps) in (0, len(manifest["layers"]))


def tree(path: Path, to: Path) -> dict[bytes, Any]:
    with ociroot.open(path) as source:
        source.image().extract(to)
    return snapshot(to)


# -- what stays the same --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["oci-archive", "oci"])
def test_what_stays_the_same_keeps_its_bytes(image: Path, tmp_path: Path, form: str) -> None:
    report = export(image, tmp_path / "out", form)
    before, after = files(image), files(tmp_path / "out")
    for name in ("index.json", "oci-layout"):
        before.pop(name), after.pop(name)
    assert after == before
    with ociroot.open(image) as source:
        assert report.manifest == str(source.image().digest)
    assert report.size == sum(map(len, files(tmp_path / "out").values())) or form != "oci"
    assert [layer.copied for layer in report.written] == [True, True]
    descriptor, _, _ = documents(tmp_path / "out")
    assert descriptor["annotations"] == {
        "io.containerd.image.name": "example.org/app:1",
        "org.opencontainers.image.ref.name": "example.org/app:1",
    }
    assert descriptor["platform"] == {"architecture": build.HOST_ARCHITECTURE, "os": "linux"}
    check_diff_ids(tmp_path / "out")


@pytest.mark.parametrize("form", FORMATS)
def test_two_exports_are_the_same_bytes(image: Path, tmp_path: Path, form: str) -> None:
    for number in range(2):
        export(image, tmp_path / str(number), form, squash=True)
    assert files(tmp_path / "0") == files(tmp_path / "1")
    if form != "oci":
        assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_the_members_of_an_archive(image: Path, tmp_path: Path) -> None:
    export(image, tmp_path / "out")
    with tarfile.open(tmp_path / "out") as tar:
        members = tar.getmembers()
    assert [m.name for m in members][-2:] == ["index.json", "oci-layout"]
    assert {m.mode for m in members if m.isdir()} == {0o755}
    assert {m.mode for m in members if m.isreg()} == {0o644}
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0, 0, 0, "")}
    assert (tmp_path / "out").stat().st_size % 10240 == 0


def test_a_directory(image: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        export(image, tmp_path / "out", "oci")
    finally:
        os.umask(before)
    modes = {
        path.stat().st_mode & 0o7777 for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert modes == {0o644}
    kept = [tmp_path / "out", tmp_path / "out/blobs", tmp_path / "out/blobs/sha256"]
    assert {path.stat().st_mode & 0o7777 for path in kept} == {0o755}
    with pytest.raises(ociroot.DestinationError, match="not empty") as caught:
        export(image, tmp_path / "out", "oci")
    assert "--replace" not in str(caught.value)


def test_to_a_stream(image: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    report = export(image, out)
    export(image, tmp_path / "out")
    assert out.getvalue() == (tmp_path / "out").read_bytes()
    assert (report.destination, report.size) == (None, len(out.getvalue()))
    with pytest.raises(ociroot.UsageError, match="directory"):
        export(image, out, "oci")


# -- one of many ----------------------------------------------------------------------------------


def test_one_platform_of_many(tmp_path: Path) -> None:
    images = [
        Image([LAYERS[0]], platform=("linux", "amd64")),
        Image([[file(b"arm")]], platform=("linux", "arm64", "v8")),
    ]
    many = archive_of(tmp_path / "many", images)
    with ociroot.open(many) as source:
        source.image(platform="linux/arm64").export(
            tmp_path / "one", ExportOptions(format="oci-archive")
        )
    descriptor, _, _ = documents(tmp_path / "one")
    assert descriptor["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
    assert len(files(tmp_path / "one")) == 5
    assert set(tree(tmp_path / "one", tmp_path / "rootfs")) == {b".", b"arm"}


def test_a_layer_that_is_there_twice_is_one_blob(tmp_path: Path) -> None:
    twice = archive(
        tmp_path / "image", [Layer(LAYERS[0], "gzip"), LAYERS[1], Layer(LAYERS[0], "gzip")]
    )
    for number, options in enumerate(({}, {"recompress": "zstd"}, {"recompress": "none"})):
        out = tmp_path / f"out-{number}"
        report = export(twice, out, **options)
        _, manifest, _ = documents(out)
        digests = [layer["digest"] for layer in manifest["layers"]]
        assert len(digests) == 3 and digests[0] == digests[2]
        with tarfile.open(out) as tar:
            names = tar.getnames()
        assert len(names) == len(set(names)) == 2 + 2 + 2 + 2
        assert len(report.written) == 3
        check_diff_ids(out)
    export(twice, tmp_path / "docker", "docker-archive")
    (item,) = json.loads(files(tmp_path / "docker")["manifest.json"])
    assert item["Layers"][0] == item["Layers"][2]
    assert len(files(tmp_path / "docker")) == 4


def test_one_content_in_two_compressions(tmp_path: Path) -> None:
    """Blobs that stay are two; where they are written anew they are one."""
    both = archive(tmp_path / "image", [Layer(LAYERS[0], "gzip"), Layer(LAYERS[0], "zstd")])
    export(both, tmp_path / "kept")
    _, manifest, _ = documents(tmp_path / "kept")
    assert len({layer["digest"] for layer in manifest["layers"]}) == 2
    export(both, tmp_path / "docker", "docker-archive")
    assert len(files(tmp_path / "docker")) == 3


def test_a_layer_is_named_by_its_bytes(tmp_path: Path) -> None:
    """Its media type says gzip, its bytes are zstd."""
    wrong = Layer(LAYERS[0], "zstd", build.LAYER_TYPES["gzip"])
    image = archive(tmp_path / "image", [wrong, LAYERS[1]])
    report = export(image, tmp_path / "out")
    assert [warning.code for warning in report.warnings] == ["compression"]
    _, manifest, _ = documents(tmp_path / "out")
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        build.LAYER_TYPES["zstd"],
        build.LAYER,
    ]
    check_diff_ids(tmp_path / "out")


DOCKER = "application/vnd.docker.image.rootfs."


def test_dockers_types_become_those_of_the_specification(tmp_path: Path) -> None:
    image = archive(
        tmp_path / "image",
        [
            Layer(LAYERS[0], "gzip", DOCKER + "diff.tar.gzip"),
            Layer(LAYERS[1], "gzip", DOCKER + "foreign.diff.tar.gzip", descriptor={"urls": ["u"]}),
        ],
        manifest={"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        descriptor={"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        config_descriptor={"mediaType": "application/vnd.docker.container.image.v1+json"},
    )
    report = export(image, tmp_path / "out")
    descriptor, manifest, _ = documents(tmp_path / "out")
    assert descriptor["mediaType"] == manifest["mediaType"] == build.MANIFEST
    assert manifest["config"]["mediaType"] == build.CONFIG
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        build.LAYER_TYPES["gzip"],
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ]
    assert manifest["layers"][1]["urls"] == ["u"]
    with ociroot.open(image) as source:
        assert report.image_id == str(source.image().image_id), "the configuration is the same"
        assert report.manifest != str(source.image().digest)


def test_a_digest_of_sha512(tmp_path: Path) -> None:
    """Its file's name does not fit in a header of tar."""
    image = archive(tmp_path / "image", LAYERS, algorithm="sha512")
    for form in ("oci-archive", "oci"):
        report = export(image, tmp_path / form, form)
        assert str(report.manifest).startswith("sha512:")
        documents(tmp_path / form)
        wanted, got = (
            tree(image, tmp_path / f"{form}-1"),
            tree(tmp_path / form, tmp_path / f"{form}-2"),
        )
        assert differences(wanted, got) == []


def test_layers_in_another_order(tmp_path: Path) -> None:
    """The order of the diff_ids holds, and the new manifest has it."""
    plain = [Layer(members) for members in LAYERS]
    ids = [build.digest(layer.unpacked()) for layer in plain]
    for compression in ("none", "gzip"):
        layers = [Layer(members, compression) for members in reversed(LAYERS)]
        image = archive(tmp_path / f"image-{compression}", layers, diff_ids=ids)
        for form in FORMATS:
            out = tmp_path / f"{compression}-{form}"
            report = export(image, out, form)
            assert [warning.code for warning in report.warnings] == ["layer-order"]
            if form != "docker-archive":
                check_diff_ids(out)
            assert (
                differences(
                    tree(image, tmp_path / f"{compression}-{form}-1"),
                    tree(out, tmp_path / f"{compression}-{form}-2"),
                )
                == []
            )
            with ociroot.open(out) as source:
                assert source.image().merged().warnings == ()


# -- what is written anew -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gzip:9", "zstd:19", "gzip", "none"])
@pytest.mark.parametrize("form", ["oci-archive", "oci"])
def test_recompress(image: Path, tmp_path: Path, method: str, form: str) -> None:
    report = export(image, tmp_path / "out", form, recompress=method)
    check_diff_ids(tmp_path / "out")
    _, manifest, _ = documents(tmp_path / "out")
    name = method.partition(":")[0]
    assert {layer["mediaType"] for layer in manifest["layers"]} == {build.LAYER_TYPES[name]}
    assert manifest["annotations"] == {"old": "kept"} and manifest["x-unknown"] is True
    assert not any("annotations" in layer for layer in manifest["layers"]), "they were of the blob"
    assert [layer.copied for layer in report.written] == [False, method == "none"]
    with ociroot.open(image) as source:
        assert report.image_id == str(source.image().image_id)
    assert differences(tree(image, tmp_path / "1"), tree(tmp_path / "out", tmp_path / "2")) == []


def test_annotations(image: Path, tmp_path: Path) -> None:
    report = export(image, tmp_path / "out", annotations={"new": "ü", "old": "changed"})
    _, manifest, _ = documents(tmp_path / "out")
    assert manifest["annotations"] == {"new": "ü", "old": "changed"}
    assert manifest["layers"][0]["annotations"] == {"stargz": "toc"}, "its blob is the same"
    with ociroot.open(image) as source:
        assert report.image_id == str(source.image().image_id)
        assert report.manifest != str(source.image().digest)


@pytest.mark.parametrize("form", FORMATS)
def test_squash(image: Path, tmp_path: Path, form: str) -> None:
    report = export(image, tmp_path / "out", form, squash=True)
    with ociroot.open(tmp_path / "out") as source:
        made = source.image()
        assert len(made.layers) == 1 and made.merged().warnings == ()
        assert str(made.image_id) == report.image_id
    assert differences(tree(image, tmp_path / "1"), tree(tmp_path / "out", tmp_path / "2")) == []
    found = files(tmp_path / "out")
    if form == "docker-archive":
        (item,) = json.loads(found["manifest.json"])
        config = json.loads(found[item["Config"]])
    else:
        _, manifest, config = documents(tmp_path / "out")
        assert manifest["layers"][0]["mediaType"] == build.LAYER_TYPES["gzip"]
        check_diff_ids(tmp_path / "out")
    assert config["config"] == CONFIG["config"] and config["x.vendor"] == CONFIG["x.vendor"]
    assert config["history"] == [
        *({**step, "empty_layer": True} for step in CONFIG["history"]),
        {"created": "2020-01-02T03:04:05Z", "created_by": "ociroot export --squash"},
    ]


def test_the_layer_of_squash_is_the_exported_tar(image: Path, tmp_path: Path) -> None:
    export(image, tmp_path / "out", squash=True, recompress="none")
    with ociroot.open(image) as source:
        flat = io.BytesIO()
        source.image().export(flat, ExportOptions(format="tar"))
    _, manifest, _ = documents(tmp_path / "out")
    assert blob(files(tmp_path / "out"), manifest["layers"][0]) == flat.getvalue()


# -- docker-archive -------------------------------------------------------------------------------


def test_a_docker_archive(image: Path, tmp_path: Path) -> None:
    report = export(image, tmp_path / "out", "docker-archive")
    found = files(tmp_path / "out")
    ids = [build.digest(Layer(members).unpacked()) for members in LAYERS]
    (item,) = json.loads(found["manifest.json"])
    assert item == {
        "Config": f"{hashlib.sha256(found[item['Config']]).hexdigest()}.json",
        "RepoTags": ["example.org/app:1"],
        "Layers": [f"{each.removeprefix('sha256:')}.tar" for each in ids],
    }
    assert set(found) == {"manifest.json", item["Config"], *item["Layers"]}
    for name in item["Layers"]:
        assert hashlib.sha256(found[name]).hexdigest() == name.removesuffix(".tar")
    assert report.manifest is None and report.image_id == f"sha256:{item['Config'][:64]}"
    assert [layer.copied for layer in report.written] == [False, True]


def test_a_tag_alone_is_no_name_for_docker(tmp_path: Path) -> None:
    name = {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    image = archive(tmp_path / "image", LAYERS, descriptor=name)
    export(image, tmp_path / "out", "docker-archive")
    (item,) = json.loads(files(tmp_path / "out")["manifest.json"])
    assert item["RepoTags"] is None


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_from_docker_and_back(tmp_path: Path, compression: build.Compression) -> None:
    layers = {
        f"{number}/layer.tar": build.compress(build.tar(members), compression)
        for number, members in enumerate(LAYERS)
    }
    docker = docker_archive(tmp_path / "docker", layers, tags=("app:1", "other/app:2"))
    export(docker, tmp_path / "oci", "oci")
    check_diff_ids(tmp_path / "oci")
    descriptor, manifest, _ = documents(tmp_path / "oci")
    assert {layer["mediaType"] for layer in manifest["layers"]} == {build.LAYER_TYPES[compression]}
    assert descriptor["annotations"] == {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.ref.name": "app:1",
    }
    export(tmp_path / "oci", tmp_path / "back", "docker-archive")
    config = next(content for name, content in files(docker).items() if name.endswith(".json"))
    assert config in files(tmp_path / "back").values(), "the image ID is the same"
    assert differences(tree(docker, tmp_path / "1"), tree(tmp_path / "back", tmp_path / "2")) == []


# -- what must fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recompress": "xz"}, "not with xz"),
        ({"recompress": "gzip:10"}, "1 to 9"),
        ({"recompress": "lz4"}, "unknown compression"),
        ({"annotations": {"k": "\udcff"}}, r"annotation '\\xff' is not UTF-8"),
        ({"compress": "gzip"}, "--recompress"),
        ({"filter": ociroot.PathFilter(excludes=[b"/x"])}, "--squash"),
        ({"tool": "tar2sqfs"}, "no program"),
        ({"newest": 0}, "--squash"),
        ({"form": "docker-archive", "recompress": "gzip"}, "not compressed"),
        ({"form": "docker-archive", "annotations": {"a": "b"}}, "no annotations"),
        ({"form": "tar", "squash": True}, "of an image"),
        ({"form": "tar", "recompress": "none"}, "of an image"),
        ({"form": "tar", "annotations": {"a": "b"}}, "of an image"),
        ({"form": "dir"}, "oci-archive, oci, docker-archive"),
    ],
)
def test_options_that_do_not_fit(
    image: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ociroot.UsageError, match=message):
        export(image, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar"]


def broken(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("options", [{}, {"squash": True}], ids=["kept", "squash"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_blob_that_is_not_what_it_should_be(
    tmp_path: Path, form: str, options: dict[str, Any], compression: build.Compression
) -> None:
    layer = Layer(LAYERS[0], compression)
    digest = build.digest(layer.packed())
    image = archive_of(
        tmp_path / "image", [Image([layer, LAYERS[1]])], blobs={digest: broken(layer.packed())}
    )
    with pytest.raises(ociroot.VerificationError, match="layer 1/2"):
        export(image, tmp_path / "out", form, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_wrong_diff_id(tmp_path: Path, form: str) -> None:
    """The blob's own digest is right, but it is not the layer of the configuration."""
    layers = [Layer(LAYERS[0], "gzip"), Layer(LAYERS[1], "gzip")]
    ids = [build.digest(b"other"), build.digest(layers[1].unpacked())]
    image = archive(tmp_path / "image", layers, diff_ids=ids)
    with pytest.raises(ociroot.VerificationError, match="diff_id"):
        export(image, tmp_path / "out", form)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("recompress", [None, "none"])
def test_one_blob_with_two_diff_ids(tmp_path: Path, form: str, recompress: str | None) -> None:
    """One of them is wrong, whichever layer is read first."""
    layer = Layer(LAYERS[0], "gzip")
    ids = [build.digest(layer.unpacked()), build.digest(b"other")]
    for name, wanted in (("last", ids), ("first", ids[::-1])):
        image = archive(tmp_path / name, [layer, layer], diff_ids=wanted)
        with pytest.raises(ociroot.VerificationError, match="diff_id"):
            export(image, tmp_path / "out", form, recompress=recompress)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("recompress", [None, "none"])
@pytest.mark.parametrize("second", ["none", "gzip"])
def test_two_blobs_with_one_diff_id(
    tmp_path: Path, form: str, recompress: str | None, second: build.Compression
) -> None:
    """The second one is read as well, also where the first one's file would do."""
    layers = [Layer(LAYERS[0], "gzip"), Layer(LAYERS[1], second)]
    image = archive(tmp_path / "image", layers, diff_ids=[build.digest(layers[0].unpacked())] * 2)
    with pytest.raises(ociroot.VerificationError, match="diff_id"):
        export(image, tmp_path / "out", form, recompress=recompress)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_to_a_stream_before_all_is_verified(tmp_path: Path) -> None:
    layers = [Layer(LAYERS[0], "gzip"), Layer(LAYERS[1], "gzip")]
    image = archive(tmp_path / "image", layers, diff_ids=[build.digest(b"1"), build.digest(b"2")])
    out = io.BytesIO()
    with pytest.raises(ociroot.VerificationError):
        export(image, out)
    assert out.getvalue() == b""


def test_what_is_there_is_replaced_only_when_told(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(ociroot.DestinationError, match="it exists"):
        export(image, out)
    assert out.read_text() == "mine"
    export(image, out, force=True)
    check_diff_ids(out)
    with pytest.raises(ociroot.DestinationError, match="the image that is read"):
        export(image, image, force=True)


@pytest.mark.root
@pytest.mark.parametrize("form", FORMATS)
def test_no_space(tmp_path: Path, form: str) -> None:
    need_root()
    noise = os.urandom(3 << 20)
    image = archive(tmp_path / "image", [Layer([file(b"f", noise)], "gzip")])
    with disk(tmp_path / "small", "ext4", "4M", "-q", "-m0", "-O", "^has_journal") as small:
        with pytest.raises(ociroot.DestinationError) as caught:
            export(image, small / "out", form, squash=True, annotations={})
            export(image, small / "more", form)
        assert caught.value.is_full
        assert all("ociroot-" not in name for name in map(str, small.iterdir()))


@pytest.mark.root
def test_blobs_share_their_blocks_where_the_file_system_can(tmp_path: Path) -> None:
    """From a layout to a layout on XFS nothing is written but the documents."""
    need_root()
    need_tools("mkfs.xfs")
    image = archive(tmp_path / "image", [Layer([file(b"f", os.urandom(60 << 20))])])
    with disk(tmp_path / "xfs", "xfs", "400M", "-q", "-m", "reflink=1") as place:
        build.unpacked(image, place / "layout")
        os.sync()
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
        export(place / "layout", place / "out", "oci")
        os.sync()
        assert free - os.statvfs(place).f_bavail * os.statvfs(place).f_bsize < 8 << 20
        assert next((place / "out/blobs/sha256").iterdir()).stat().st_nlink == 1
        check_diff_ids(place / "out")


# -- for whom -------------------------------------------------------------------------------------


def by_skopeo(place: Path, name: str, layout: Path) -> None:
    """Copy it with skopeo, which verifies what it copies, and unpack it with umoci."""
    run_tool("skopeo", "inspect", name)
    run_tool("skopeo", "copy", "--quiet", name, f"oci:{layout}:copied")
    run_tool("umoci", "unpack", "--image", f"{layout}:copied", place)


@pytest.mark.root
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("options", [{}, {"squash": True}], ids=["kept", "squash"])
def test_other_programs_take_it(
    image: Path, tmp_path: Path, form: str, options: dict[str, Any]
) -> None:
    """skopeo, umoci, podman and buildah read it, and make the same tree of it."""
    need_root()
    need_tools("skopeo", "umoci", "podman", "buildah")
    out = tmp_path / "out"
    export(image, out, form, **options)
    wanted = tree(image, tmp_path / "wanted")
    by_skopeo(tmp_path / "bundle", f"{form}:{out}", tmp_path / "copied")
    assert differences(wanted, snapshot(tmp_path / "bundle/rootfs")) == []
    if form == "oci":
        run_tool("umoci", "stat", "--image", f"{out}:example.org/app:1")
        run_tool("umoci", "unpack", "--image", f"{out}:example.org/app:1", tmp_path / "raw")
        assert differences(wanted, snapshot(tmp_path / "raw/rootfs")) == []
    with workshop() as place:
        podman = podman_in(place)
        if form == "oci":
            loaded = podman("pull", "--quiet", f"oci:{out}")
        else:
            loaded = podman("load", "--quiet", "--input", out).split()[-1]
            assert loaded == "example.org/app:1"
        mounted = Path(podman("image", "mount", loaded))
        assert {path.name for path in mounted.iterdir()} == {"a", "l"}
        assert (mounted / "a/two").read_bytes() == b"one" * 5000
        podman("image", "umount", "--force", loaded)
        podman("rmi", "--force", loaded)
        store = ("--root", place / "b", "--runroot", place / "br", "--storage-driver", "vfs")
        made = run_tool("buildah", *store, "from", f"{form}:{out}")
        run_tool("buildah", *store, "rm", made)


# -- the command ----------------------------------------------------------------------------------


def command(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ociroot", "export", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_command(image: Path, tmp_path: Path) -> None:
    done = command(
        *("--format", "oci-archive", "--recompress", "zstd:5", "--annotate", "a=b=c"),
        *("--annotate", "d=", "--json", image, tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    descriptor, manifest, _ = documents(tmp_path / "out")
    assert manifest["annotations"] == {"old": "kept", "a": "b=c", "d": ""}
    assert report["manifest"] == descriptor["digest"]
    assert [layer["digest"] for layer in report["written"]] == [
        layer["digest"] for layer in manifest["layers"]
    ]
    assert "2 layers, oci-archive zstd:5" in done.stderr
    assert command("--annotate", "a", image, tmp_path / "x").returncode == 2
    assert command("--format", "oci", image, "-").returncode == 2


def test_interrupted(tmp_path: Path) -> None:
    """Nothing is left, neither of an archive nor of a directory."""
    image = archive(tmp_path / "image", [[file(b"big", os.urandom(8 << 20) * 4)]])
    out = tmp_path / "out"
    out.mkdir()
    for form in FORMATS:
        arguments = ["--format", form, "--squash", "--quiet", image, out / "made"]
        process = subprocess.Popen(
            [sys.executable, "-m", "ociroot", "export", *map(str, arguments)]
        )
        while process.poll() is None and not list(out.iterdir()):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait() in (143, 0)
        if process.returncode == 143:
            assert list(out.iterdir()) == []
        elif out.joinpath("made").exists():
            made = out / "made"
            (shutil.rmtree if made.is_dir() else Path.unlink)(made)


def test_a_callable_is_told_of_the_progress(image: Path, tmp_path: Path) -> None:
    told: list[ociroot.Progress] = []
    note: Callable[[ociroot.Progress], None] = told.append
    with ociroot.open(image) as source:
        source.image().export(tmp_path / "out", ExportOptions(format="oci"), progress=note)
    assert told[-1].stage == "layers" and told[-1].done == told[-1].total > 0


# -- copying --------------------------------------------------------------------------------------


def test_what_was_copied_is_what_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to the source after the copy changes nothing; before, it is an error."""
    layer = Layer(LAYERS[0], "gzip")
    image = build.unpacked(archive(tmp_path / "image", [layer]), tmp_path / "layout")
    blob_file = image / "blobs/sha256" / build.digest(layer.packed()).removeprefix("sha256:")
    content = blob_file.read_bytes()
    copy = os.copy_file_range

    def changed(*arguments: Any) -> int:
        blob_file.write_bytes(broken(content))
        return copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "copy_file_range", changed)
        with pytest.raises(ociroot.VerificationError):
            export(image, tmp_path / "bad", "oci")
    blob_file.write_bytes(content)

    def changed_later(*arguments: Any) -> int:
        copied = copy(*arguments)
        blob_file.write_bytes(broken(content))
        return copied

    monkeypatch.setattr(os, "copy_file_range", changed_later)
    export(image, tmp_path / "good", "oci")
    check_diff_ids(tmp_path / "good")


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
@pytest.mark.parametrize("after", [0, 1000])
def test_where_the_kernel_cannot_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, after: int
) -> None:
    """As to another file system before Linux 5.19; or it ends early, or reading fails midway."""
    image = archive(tmp_path / "image", [Layer([file(b"noise", os.urandom(5 << 20))])])
    export(image, tmp_path / "wanted", form)
    copy = os.copy_file_range
    for number, failure in enumerate((errno.EXDEV, errno.EIO, None)):
        calls: list[int] = []

        def failing(
            source: int,
            to: int,
            size: int,
            offset: int,
            at: int,
            calls: list[int] = calls,
            failure: int | None = failure,
        ) -> int:
            calls.append(size)
            if len(calls) == 1 and after:
                return copy(source, to, after, offset, at)
            if failure is None:
                return 0
            raise OSError(failure, os.strerror(failure))

        monkeypatch.setattr(os, "copy_file_range", failing)
        export(image, tmp_path / str(number), form)
        assert calls
        assert files(tmp_path / str(number)) == files(tmp_path / "wanted")
