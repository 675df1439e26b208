"""The JSON documents: each rule of the specification, and the error when it is violated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.errors import (
    LimitExceeded,
    MalformedImage,
    OcirootError,
    SourceError,
    Unsupported,
    UsageError,
    VerificationError,
    printable,
)
from ociroot.limits import DEFAULTS
from ociroot.spec.config import chain_ids
from ociroot.spec.digest import Digest
from ociroot.spec.document import parse
from ociroot.spec.platform import Platform

from .support import build
from .support.build import HOST, Image, Member, archive, archive_of
from .support.needs import besides_owners

LAYER = [Member(b"file", data=b"content")]
ZEROS = "sha256:" + "0" * 64


def choose(path: Path, platform: str | None = None) -> ociroot.Image:
    with ociroot.open(path) as source:
        return source.image(platform=platform)


def refused(path: Path, error: type[OcirootError], match: str, platform: str | None = None) -> None:
    with pytest.raises(error, match=match) as caught:
        choose(path, platform)
    assert str(path) in str(caught.value), "the message names the file"


def test_the_documents_of_a_good_image(tmp_path: Path) -> None:
    config = {"config": {"Env": ["A=b"], "Cmd": ["/bin/sh"], "Labels": None}, "x-unknown": {"a": 1}}
    image = choose(archive(tmp_path / "a.tar", [LAYER, LAYER], config=config))
    assert image.config.config.env == ("A=b",)
    assert image.config.config.labels == {}, "null is equivalent to being absent"
    assert image.manifest is not None
    assert len(image.manifest.layers) == 2
    assert image.layers[0].diff_id == image.config.rootfs.parsed_diff_ids[0]
    assert image.image_id == image.manifest.config.parsed_digest


# JSON (considerations.md, "JSON").


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"a": 1, "a": 2}', "duplicate key"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate key"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": 1', "not JSON"),
        (b"", "not JSON"),
        (b'{"a": %s}' % (b"9" * 5000), "not JSON"),
    ],
)
def test_json_that_two_readers_could_read_differently(content: bytes, match: str) -> None:
    with pytest.raises(MalformedImage, match=match):
        parse(content, DEFAULTS)


def test_json_nested_deeply_is_a_limit() -> None:
    with pytest.raises(LimitExceeded, match="nested"):
        parse(b"[" * 200_000, DEFAULTS)
    with pytest.raises(LimitExceeded, match="bytes"):
        parse(b" " * (DEFAULTS.document + 1), DEFAULTS)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("null", "null"),
        ("{}", "an object"),
        ('"x"', "a string"),
        ("7", "a number"),
        ("true", "a b"),
    ],
)
def test_a_document_of_another_kind_is_named_as_json_has_it(
    tmp_path: Path, text: str, kind: str
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(build.tar([Member(b"manifest.json", data=text.encode())]))
    refused(path, MalformedImage, f"manifest.json: JSON: expected an array, found {kind}")
    content = text.encode() if text != "{}" else b"[]"
    refused(archive(path, [LAYER], index=content), MalformedImage, "expected an object, found")


# Go's encoding/json matches a key to a field that differs only in case, or that has the long s or
# the Kelvin sign instead of s and k; the last of two such keys wins. Others ignore it.


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"manifest": {"Layers": []}}, "Layers"),
        ({"manifest": {"Layers": None}}, "Layers"),
        ({"manifest": {"layer\u017f": []}}, "layer\u017f"),
        ({"manifest": {"CONFIG": {}}}, "CONFIG"),
        ({"config": {"rootf\u017f": {"type": "layers", "diff_ids": []}}}, "rootf\u017f"),
        ({"config": {"rootfs": {"type": "layers", "Diff_IDs": [], "diff_ids": []}}}, "Diff_IDs"),
        ({"config": {"config": {"Wor\u212aingDir": "/"}}}, "Wor\u212aingDir"),
        ({"config": {"config": {"env": ["A=1"]}}}, "env"),
        ({"config": {"history": [{"created": "x"}, {"Empty_Layer": True}]}}, "Empty_Layer"),
        ({"config_descriptor": {"Digest": ZEROS}}, "Digest"),
        ({"descriptor": {"platform": {"os": "a", "architecture": "b", "OS": "c"}}}, "OS"),
        ({"index": {"schemaversion": 2}}, "schemaversion"),
        ({"layout": {"imageLayoutVersion": "1.0.0", "ImageLayoutVersion": "2"}}, "ImageLayoutVer"),
    ],
    ids=str,
)
def test_a_key_that_some_readers_take_for_another(
    tmp_path: Path, overrides: dict[str, Any], key: str
) -> None:
    path = archive(tmp_path / "a.tar", [LAYER], **overrides)
    refused(path, MalformedImage, f"key '{key}.*some readers treat as")


@pytest.mark.parametrize("key", ["Manifests", "manife\u017ft\u017f"])
def test_an_index_and_a_manifest_at_once_for_some_readers(tmp_path: Path, key: str) -> None:
    path = archive(tmp_path / "a.tar", [LAYER], manifest={key: []})
    refused(path, MalformedImage, "both an index")


def test_keys_that_no_reader_takes_for_another(tmp_path: Path) -> None:
    """Docker's own fields, those of its first format, and keys that only look similar."""
    config = {
        "id": "1",
        "Id": "2",
        "parent": "3",
        "container_config": {"env": ["A=1"], "Env": ["A=2"]},
        "docker_version": "20.10",
        "con\ufb01g": 1,
        "\u1e9eize": 1,
        "Size": 5,
        "config": {
            "Env": ["A=3"],
            "Healthcheck": None,
            "OnBuild": None,
            "Labels": {"a": "", "A": ""},
        },
    }
    manifest = {"annotations": {"a": "1", "A": "2"}, "Subject": None, "layerz": 1}
    image = choose(archive(tmp_path / "a.tar", [LAYER], config=config, manifest=manifest))
    assert image.config.config.env == ("A=3",)
    assert image.config.config.labels == {"a": "", "A": ""}


# Digests (descriptor.md, "Digests").


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha512:" + "a" * 64,
        "sha256:../../../../etc/passwd",
        "sha256:" + "a" * 64 + "\n",
        "sha256",
        "",
        ":",
        "../x:" + "a" * 64,
    ],
)
def test_a_digest_is_checked_before_it_is_a_name(text: str) -> None:
    with pytest.raises(MalformedImage, match="digest"):
        Digest.parse(text)


def test_other_algorithms_are_not_supported() -> None:
    with pytest.raises(Unsupported, match="blake3"):
        Digest.parse("blake3:" + "a" * 64)


def test_chain_ids() -> None:
    one, two = Digest.of(b"1"), Digest.of(b"2")
    assert chain_ids((one, two)) == (one, Digest.of(f"{one} {two}".encode()))


# The rules of each document.


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        ({"manifest": {"schemaVersion": 1}}, MalformedImage, "schemaVersion"),
        ({"manifest": {"schemaVersion": ...}}, MalformedImage, "schemaVersion"),
        ({"manifest": {"manifests": []}}, MalformedImage, "both an index"),
        ({"manifest": {"mediaType": build.INDEX}}, MalformedImage, "mediaType"),
        ({"manifest": {"layers": "none"}}, MalformedImage, r"\$.layers"),
        ({"manifest": {"config": None}}, MalformedImage, "config"),
        ({"manifest": b"[]"}, MalformedImage, "object"),
        ({"manifest": b"\0"}, MalformedImage, "JSON"),
        ({"config": {"rootfs": {"type": "lazy", "diff_ids": []}}}, Unsupported, "rootfs.type"),
        ({"config": {"rootfs": ...}}, MalformedImage, "rootfs"),
        ({"config": {"architecture": 7}}, MalformedImage, "architecture"),
        ({"diff_ids": []}, MalformedImage, "1 layers, but the config has 0 diff_ids"),
        ({"diff_ids": ["sha256:zz"]}, MalformedImage, "hex digits"),
        ({"descriptor": {"size": -1}}, MalformedImage, "size -1"),
        ({"descriptor": {"size": 1}}, VerificationError, "descriptor says 1"),
        ({"config_descriptor": {"size": 1}}, VerificationError, "descriptor says 1"),
        ({"descriptor": {"size": 1 << 40}}, LimitExceeded, "exceeds the limit of"),
        ({"descriptor": {"digest": "sha256:../x"}}, MalformedImage, "digest"),
        ({"config_descriptor": {"digest": ZEROS}}, MalformedImage, "is missing"),
        ({"index": {"schemaVersion": 3}}, MalformedImage, "schemaVersion"),
        ({"index": {"layers": []}}, MalformedImage, "both an index"),
        ({"index": {"mediaType": build.MANIFEST}}, MalformedImage, "index.json"),
        (
            {"index": b'{"schemaVersion": 2, "schemaVersion": 2}'},
            MalformedImage,
            "index.json.*duplicate key",
        ),
        ({"index": b" " * (DEFAULTS.document + 9)}, LimitExceeded, "index.json"),
        ({"layout": {"imageLayoutVersion": "2.0.0"}}, Unsupported, "2.0.0"),
        ({"layout": b"{}"}, MalformedImage, "oci-layout"),
    ],
    ids=str,
)
def test_a_broken_document(
    tmp_path: Path, overrides: dict[str, Any], error: type[OcirootError], match: str
) -> None:
    refused(archive(tmp_path / "a.tar", [LAYER], **overrides), error, match)


def test_a_manifest_with_another_digest(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [LAYER])
    with ociroot.open(path) as source:
        descriptor = source.listing().images[0].descriptor
    assert descriptor is not None
    archive(path, [LAYER], blobs={descriptor.digest: b"{}".ljust(descriptor.size)})
    refused(path, VerificationError, f"the digest is sha256:.*, not {descriptor.digest}")


def test_sha512_all_the_way(tmp_path: Path) -> None:
    layer = build.Layer(LAYER, "gzip")
    diff_ids = [build.digest(layer.unpacked(), "sha512")]
    path = archive(tmp_path / "a.tar", [layer], algorithm="sha512", diff_ids=diff_ids)
    with ociroot.open(path) as source:
        report = source.image().extract(tmp_path / "root")
    assert str(report.manifest).startswith("sha512:")
    assert (tmp_path / "root/file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("overrides", "error", "path"),
    [
        ({"descriptor": {"size": -1}}, MalformedImage, r"size -1.*\$.manifests\[0\]"),
        ({"descriptor": {"digest": "sha256:x"}}, MalformedImage, r"hex.*\$.manifests\[0\]"),
        ({"config_descriptor": {"digest": "md5:1"}}, Unsupported, r"md5.*\$.config"),
        ({"diff_ids": ["sha256:zz"]}, MalformedImage, r"hex.*\$.rootfs"),
        ({"config": {"rootfs": {"type": "x", "diff_ids": []}}}, Unsupported, r"type.*\$.rootfs"),
        ({"config": {"config": {"Env": "A=1"}}}, MalformedImage, r"array.*\$.config.Env"),
    ],
    ids=str,
)
def test_a_message_names_the_place_in_the_document(
    tmp_path: Path, overrides: dict[str, Any], error: type[OcirootError], path: str
) -> None:
    refused(archive(tmp_path / "a.tar", [LAYER], **overrides), error, path)


# Rules on layers that the documents alone decide.


@pytest.mark.parametrize(
    ("media_type", "match"),
    [
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted.*decrypt"),
        ("application/vnd.oci.empty.v1+json", "media type"),
        ("text/plain\x1b[31m", r"media type.*x1b"),
    ],
)
def test_unknown_layer_types(tmp_path: Path, media_type: str, match: str) -> None:
    layer = build.Layer(LAYER, media_type=media_type)
    refused(archive(tmp_path / "a.tar", [layer]), Unsupported, match)


DOCKER = "application/vnd.docker.image.rootfs."


@pytest.mark.parametrize(
    "media_type",
    [
        build.LAYER + "+gzip",
        build.LAYER.replace("layer.", "layer.nondistributable.") + "+gzip",
        DOCKER + "diff.tar.gzip",
        DOCKER + "foreign.diff.tar.gzip",
    ],
)
def test_known_layer_types(tmp_path: Path, media_type: str) -> None:
    layer = build.Layer(LAYER, "gzip", media_type=media_type)
    path = archive(tmp_path / "a.tar", [layer])
    with ociroot.open(path) as source:
        report = source.image().extract(tmp_path / "root", ociroot.ExtractOptions(strict=True))
    assert report.layers[0].media_type == media_type
    assert besides_owners(w.code for w in report.warnings) == []


def test_a_layer_that_is_not_there(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [LAYER], blobs={build.digest(build.tar(LAYER)): None})
    refused(path, MalformedImage, "layer 1/1 .*is missing")


def test_a_layer_of_another_size(tmp_path: Path) -> None:
    layer = build.Layer(LAYER, descriptor={"size": 7})
    refused(archive(tmp_path / "a.tar", [layer]), VerificationError, "layer 1/1 .*says 7")


# Selection of the image.


def images(*platforms: str) -> list[Image]:
    return [
        Image([[Member(b"for", data=text.encode())]], platform=tuple(text.split("/")))
        for text in platforms
    ]


def test_one_image_for_another_platform_is_taken_with_a_note(tmp_path: Path) -> None:
    image = choose(archive_of(tmp_path / "a.tar", images("linux/s390x")))
    assert str(image.platform) == "linux/s390x"
    assert [warning.code for warning in image.warnings] == ["platform"]


def test_asked_for_and_not_there_lists_what_is(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.tar", images("linux/s390x", "linux/arm/v7"))
    refused(
        path, UsageError, "no image for linux/ppc64le; .*linux/s390x, linux/arm/v7", "linux/ppc64le"
    )
    one = archive_of(tmp_path / "b.tar", images("linux/s390x"))
    refused(one, UsageError, "no image for linux/amd64", "linux/amd64")


def test_the_default_is_this_machine(tmp_path: Path) -> None:
    here = str(Platform.of_this_machine())
    path = archive_of(tmp_path / "a.tar", images("linux/s390x", "windows/amd64", here))
    assert str(choose(path).platform) == here


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm64", ["linux/arm64/v8", "linux/arm/v7"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/arm64", "linux/arm/v8"], "linux/arm64"),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/x86_64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/arm64/v8.2", ["linux/arm64/v8.1", "linux/arm64/v9"], "linux/arm64/v8.1"),
        ("linux/arm64/v9.0", ["linux/arm64/v8", "linux/arm64/v8.5"], "linux/arm64/v8.5"),
        ("linux/ppc64le/power9", ["linux/ppc64le/power8", "linux/ppc64le/power9"], None),
        ("arm64", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("aarch64", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("arm/v6", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"], "linux/arm/v6"),
        ("armhf", ["linux/arm/v7", "linux/arm64"], "linux/arm/v7"),
        ("AMD64", ["windows/amd64", "linux/amd64"], "linux/amd64"),
        ("riscv64", ["linux/amd64", "linux/riscv64"], "linux/riscv64"),
    ],
)
def test_platforms(tmp_path: Path, wanted: str, there: list[str], chosen: str | None) -> None:
    path = archive_of(tmp_path / "a.tar", images(*there))
    assert str(choose(path, wanted).platform) == (chosen or wanted)


@pytest.mark.parametrize(
    "text", ["linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "", "arm128", "v7", "arm/"]
)
def test_what_is_no_platform(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="os/arch"):
        choose(archive(tmp_path / "a.tar", [LAYER]), text)


def test_images_of_two_names_are_not_chosen_between(tmp_path: Path) -> None:
    two = [
        Image(
            [[Member(name)]],
            descriptor={"annotations": {"org.opencontainers.image.ref.name": name.decode()}},
        )
        for name in (b"one", b"two")
    ]
    path = archive_of(tmp_path / "a.tar", two)
    refused(path, UsageError, "several images .* one, .* two")


def test_attestations_and_artifacts_are_never_the_image(tmp_path: Path) -> None:
    here = images("/".join(HOST))
    attestation = Image(
        [LAYER],
        platform=("unknown", "unknown"),
        descriptor={"annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
    )
    chart = Image(
        [LAYER], config_descriptor={"mediaType": "application/vnd.cncf.helm.config.v1+json"}
    )
    path = archive_of(tmp_path / "a.tar", [attestation, chart, *here])
    assert str(choose(path).platform) == "/".join(HOST)
    refused(
        archive_of(tmp_path / "b.tar", [attestation, chart]),
        Unsupported,
        "no container image.*helm",
    )


def nested(path: Path, depth: int) -> None:
    """Write an archive whose image is nested in this many indexes."""
    inner = archive(path, [LAYER])
    with ociroot.open(inner) as source:
        image = source.listing().images[0].descriptor
    assert image is not None
    store: dict[str, bytes | None] = {}
    entry: dict[str, Any] = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": image.size,
    }
    for _ in range(depth):
        content = json.dumps(
            {"schemaVersion": 2, "mediaType": build.INDEX, "manifests": [entry, entry]}
        ).encode()
        entry = build.describe(build.INDEX, content)
        store[entry["digest"]] = content
    archive(path, [LAYER], index={"manifests": [entry]}, blobs=store)


def test_nested_indexes(tmp_path: Path) -> None:
    nested(tmp_path / "a.tar", 5)
    assert choose(tmp_path / "a.tar").layers
    nested(tmp_path / "b.tar", 30)
    refused(tmp_path / "b.tar", LimitExceeded, "nesting depth of indexes")


def test_an_image_of_which_only_one_platform_was_saved(tmp_path: Path) -> None:
    """Its index still lists the other platforms (image-layout.md: blobs MAY be missing)."""
    both = images("linux/amd64", "linux/arm64")
    path = archive_of(tmp_path / "a.tar", both)
    other = choose(path, "linux/arm64")
    archive_of(path, both, blobs={str(other.digest): None})
    assert str(choose(path).platform) == "linux/amd64"
    refused(path, UsageError, "there is linux/amd64", "linux/arm64")


# The archive.


@pytest.mark.parametrize("prefix", [b"./", b"/", b"././"])
def test_member_names(tmp_path: Path, prefix: bytes) -> None:
    assert choose(archive(tmp_path / "a.tar", [LAYER], prefix=prefix)).layers


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"", MalformedImage, "empty"),
        (b"\x1f\x8b" + bytes(600), MalformedImage, "malformed gzip"),
        (b"hello, world\n" * 100, MalformedImage, "not a tar archive"),
        (build.tar([Member(b"etc/passwd")]), MalformedImage, "contains no image, only etc/passwd"),
        (build.tar([Member(b"manifest.json", data=b"[]")]), Unsupported, "no container image"),
        (build.tar([Member(b"oci-layout", data=b"{}")])[:513], MalformedImage, "truncated"),
    ],
)
def test_what_is_no_oci_archive(
    tmp_path: Path, content: bytes, error: type[OcirootError], match: str
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    refused(path, error, match)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "absent", SourceError, "No such file")
    refused(tmp_path, MalformedImage, "contains no image: it is empty")
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path / "fifo", SourceError, "regular file")


def test_names_in_messages_are_safe_for_a_terminal() -> None:
    assert printable(b"a\x1b[31mred\n\xff") == r"a\x1b[31mred\n\xff"
    assert printable("ünï") == "ünï"


def test_null_in_a_map_keeps_its_name(tmp_path: Path) -> None:
    """Go's decoder, and so every container runtime, keeps the port and the volume."""
    parameters = {
        "ExposedPorts": {"80/tcp": None},
        "Volumes": {"/data": None, "/x": {}},
        "Labels": {"a": None, "b": "c"},
        "User": None,
        "Env": None,
    }
    config = choose(archive(tmp_path / "a.tar", [[]], config={"config": parameters})).config.config
    assert config.exposed_ports == {"80/tcp": {}}
    assert config.volumes == {"/data": {}, "/x": {}}
    assert config.labels == {"a": "", "b": "c"}
    assert (config.user, config.env) == ("", ())
    path = archive(tmp_path / "b.tar", [[]], config={"config": {"Volumes": None}})
    assert choose(path).config.config.volumes == {}
