"""Every local form of an image gives the same image; other input is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import ociroot
from ociroot.errors import (
    DestinationError,
    MalformedImage,
    OcirootError,
    SourceError,
    Unsupported,
    UsageError,
    VerificationError,
)

from .support import build
from .support.build import Image, Layer, Member, archive, archive_of, unpacked
from .support.counting import counting
from .support.docker import docker_archive
from .support.needs import need_tools

LAYERS = [
    Layer([Member(b"etc", "dir", mode=0o750), Member(b"etc/a", data=b"one")], "gzip"),
    Layer([Member(b"etc/.wh.a"), Member(b"etc/b", data=b"two" * 1000)], "zstd"),
]


def content(
    path: Path, where: Path, progress: ociroot.ProgressCallback | None = None, **options: Any
) -> dict[str, bytes]:
    """Extract the image of a source; return its files."""
    root = where / "extracted"
    chosen = ociroot.SourceOptions(**options)
    with ociroot.open(path, chosen, progress=progress) as source:
        source.image().extract(root, ociroot.ExtractOptions(replace_anything=True))
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    shutil.rmtree(root)
    return files


EXPECTED = {"etc/b": b"two" * 1000}


@pytest.fixture
def oci(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return archive(tmp_path / "made/image", LAYERS)


@pytest.fixture
def layout(oci: Path, tmp_path: Path) -> Path:
    """The same image as a directory."""
    return unpacked(oci, tmp_path / "layout")


def refused(path: Path, error: type[OcirootError], match: str, **options: Any) -> None:
    with (
        pytest.raises(error, match=match),
        ociroot.open(path, ociroot.SourceOptions(**options)) as source,
    ):
        source.image()


# Archives and layouts.


def test_a_layout_directory(layout: Path, tmp_path: Path) -> None:
    assert content(layout, tmp_path) == EXPECTED


def test_members_below_one_common_directory(layout: Path, tmp_path: Path) -> None:
    for base in ("layout", "./a/b/layout"):
        with tarfile.open(tmp_path / "image", "w") as members:
            members.add(layout, base)
        assert content(tmp_path / "image", tmp_path) == EXPECTED


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_blobs_that_are_links_to_other_members(layout: Path, tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "image", "w") as members:
        for number, file in enumerate(sorted(p for p in layout.rglob("*") if p.is_file())):
            info = members.gettarinfo(file, f"store/{number}")
            with file.open("rb") as data:
                members.addfile(info, data)
            link = tarfile.TarInfo(str(file.relative_to(layout)))
            link.type = kind
            up = "../" * link.name.count("/")
            link.linkname = f"store/{number}" if kind == tarfile.LNKTYPE else f"{up}store/{number}"
            members.addfile(link)
    assert content(tmp_path / "image", tmp_path) == EXPECTED


def test_links_of_an_archive_lead_nowhere_but_into_it(layout: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((layout / "index.json").read_bytes())
    (layout / "index.json").unlink()
    (layout / "aa").touch()
    for target in (str(secret), "../secret", "index.json"):
        with tarfile.open(tmp_path / "image", "w") as members:
            members.add(layout, ".")
            link = tarfile.TarInfo("index.json")
            link.type, link.linkname = tarfile.SYMTYPE, target
            members.addfile(link)
        refused(tmp_path / "image", MalformedImage, "no image|index.json")


def test_links_of_a_layout_may_stay_and_not_leave(layout: Path, tmp_path: Path) -> None:
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    kept = layout / "kept"
    blob.rename(kept)
    blob.symlink_to(kept)
    assert content(layout, tmp_path) == EXPECTED
    kept.rename(tmp_path / "outside")
    blob.unlink()
    blob.symlink_to(tmp_path / "outside")
    refused(layout, MalformedImage, "leads out of the layout")


def test_a_blob_that_is_a_fifo_is_not_waited_for(layout: Path) -> None:
    blob = next((layout / "blobs/sha256").iterdir())
    blob.unlink()
    os.mkfifo(blob)
    refused(layout, MalformedImage, "not a regular file")


def test_shared_blobs(layout: Path, oci: Path, tmp_path: Path) -> None:
    (layout / "blobs").rename(tmp_path / "blobs")
    refused(
        layout,
        Unsupported,
        "no container image in it: the blob sha256:.* is missing.*--shared-blob-dir",
    )
    assert content(layout, tmp_path, shared_blobs=tmp_path / "blobs") == EXPECTED
    refused(oci, SourceError, "shared blobs", shared_blobs=tmp_path / "blobs")


# docker-archives.


TARS = [layer.unpacked() for layer in LAYERS]


def test_a_docker_archive_of_1_10(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a", {"aa/layer.tar": TARS[0], "bb/layer.tar": TARS[1]})
    assert content(path, tmp_path) == EXPECTED
    with ociroot.open(path) as source:
        assert source.form == "docker-archive"
        image = source.image(strict=True)
        assert image.names == ("example.org/app:1",)
        assert image.manifest is None
        assert image.layers[0].digest is None
        assert image.layers[0].diff_id == image.config.rootfs.parsed_diff_ids[0]


def test_layers_that_are_links_to_another_layer(tmp_path: Path) -> None:
    path = docker_archive(
        tmp_path / "a",
        {"one.tar": TARS[0], "two.tar": TARS[1]},
        links={"aa/layer.tar": "../one.tar", "bb/layer.tar": "/two.tar"},
    )
    assert content(path, tmp_path) == EXPECTED


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_layers_in_a_docker_archive(tmp_path: Path, pack: Callable[..., bytes]) -> None:
    """As kaniko and bazel write them."""
    layers = {"one.tar.gz": pack(TARS[0]), "two.tar.gz": pack(TARS[1])}
    path = docker_archive(tmp_path / "a", layers, config_name="config.json")
    assert content(path, tmp_path) == EXPECTED


def test_names_with_a_leading_slash(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a", {"/one/layer.tar": TARS[0], "./two.tar": TARS[1]})
    assert content(path, tmp_path) == EXPECTED


def test_a_wrong_layer_of_a_docker_archive(tmp_path: Path) -> None:
    """Its layers have no digest; they are verified by the diff_ids."""
    right = [build.digest(tar) for tar in TARS]
    for blob in (TARS[1] + b"x", gzip.compress(TARS[1] + b"x")):
        path = docker_archive(tmp_path / "a", {"1": TARS[0], "2": blob}, diff_ids=right)
        with pytest.raises(VerificationError, match=r"layer 2/2 .*diff_id"):
            content(path, tmp_path)


def test_a_wrong_config_of_a_docker_archive(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a", {"1": TARS[0]}, config_name="0" * 64 + ".json")
    refused(path, VerificationError, "not that of the file name")


def test_a_layer_that_is_missing(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a", {"1": TARS[0]}, links={"l/layer.tar": "../nowhere"})
    refused(path, MalformedImage, "layer 1/1 .*l/layer.tar is missing")


# Compressed as a whole, and standard input.


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.ZstdCompressor().compress, lzma.compress, bz2.compress]
)
def test_archives_compressed_as_a_whole(
    oci: Path, tmp_path: Path, pack: Callable[..., bytes]
) -> None:
    raw = oci.read_bytes()
    path = tmp_path / "packed"
    path.write_bytes(pack(raw[:5000]) + pack(raw[5000:]))
    (tmp_path / "tmp").mkdir()
    seen: list[ociroot.Progress] = []
    assert content(path, tmp_path, tmpdir=tmp_path / "tmp", progress=seen.append) == EXPECTED
    size = path.stat().st_size
    assert seen[-1] == ociroot.Progress("source", done=size, total=size)
    assert list((tmp_path / "tmp").iterdir()) == []
    path.write_bytes(pack(raw)[:-20])
    refused(path, MalformedImage, r"truncated|follows")


def test_an_uncompressed_archive_needs_no_temporary_file(oci: Path, tmp_path: Path) -> None:
    assert content(oci, tmp_path, tmpdir="/nowhere") == EXPECTED


def test_a_temporary_directory_that_is_not_there(oci: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(gzip.compress(oci.read_bytes()))
    refused(tmp_path / "packed", DestinationError, "nowhere", tmpdir="/nowhere")


def extract_stdin(data: Any, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ociroot", "extract", "-", str(root)]
    if isinstance(data, bytes):
        return subprocess.run(command, input=data, capture_output=True, check=False)  # type: ignore[return-value]
    return subprocess.run(command, stdin=data, capture_output=True, check=False)  # type: ignore[return-value]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input(oci: Path, tmp_path: Path, pack: Callable[..., bytes]) -> None:
    """From a pipe, and from a regular file, which is read in place."""
    data = pack(oci.read_bytes())
    assert extract_stdin(data, tmp_path / "root").returncode == 0
    assert (tmp_path / "root/etc/b").read_bytes() == EXPECTED["etc/b"]
    with io.FileIO(oci) as file:
        assert extract_stdin(file, tmp_path / "root2").returncode == 0
    assert extract_stdin(b"", tmp_path / "root3").returncode == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "root", "root2"]


# Input that is not an image.


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"", MalformedImage, "empty"),
        (b"hsqs" + bytes(5000), Unsupported, "squashfs"),
        (bytes(1080) + b"\x53\xef" + bytes(3000), Unsupported, "ext4"),
        (b"PK\x03\x04" + bytes(1000), Unsupported, "zip"),
        (b'{"schemaVersion": 2}', Unsupported, "JSON"),
        (b"hello" * 500, MalformedImage, "not a tar archive"),
        (build.tar([Member(n) for n in (b"etc/passwd", b"usr/bin/sh")]), Unsupported, "root file"),
        (build.tar([Member(n) for n in (b"a/.wh.b", b"usr/bin/sh")]), Unsupported, "one layer"),
        (build.tar([Member(b"chart/Chart.yaml")]), Unsupported, "Helm"),
        (build.tar([Member(b"Files/x"), Member(b"Hives/y")]), Unsupported, "Windows"),
        (build.tar([Member(b"repositories"), Member(b"a/layer.tar")]), Unsupported, "1.10"),
        (build.tar([Member(b"index.json")]), MalformedImage, "not the oci-layout file"),
        (build.tar([Member(b"oci-layout")]), MalformedImage, "index.json is missing"),
        (build.tar([Member(b"x"), Member(b"index.json", "dir")]), MalformedImage, "no image"),
        (build.tar([]), MalformedImage, "it is empty"),
        (build.tar([Member(b"\xff\xfe")]), MalformedImage, "no image"),
        (gzip.compress(build.tar([Member(b"one")])), MalformedImage, "only one"),
    ],
)
def test_what_it_looks_like_instead(
    tmp_path: Path, content: bytes, error: type[OcirootError], match: str
) -> None:
    (tmp_path / "thing").write_bytes(content)
    refused(tmp_path / "thing", error, match)


def test_a_windows_image_is_shown_and_not_extracted(tmp_path: Path) -> None:
    path = archive(tmp_path / "image", [[Member(b"Files/x")]], platform=("windows", "amd64"))
    with ociroot.open(path) as source:
        image = source.image()
        assert image.config.os == "windows"
        for use in (lambda: image.extract(tmp_path / "root"), image.merged):
            with pytest.raises(Unsupported, match="Windows"):
                use()


def test_an_archive_of_very_many_members_is_no_image(tmp_path: Path) -> None:
    with (tmp_path / "many").open("wb") as file:
        for number in range(200_001):
            file.write(build.header(b"file%d" % number))
    refused(tmp_path / "many", OcirootError, "not an image; it begins with file0, file1")


# Selection of the image.


def named(*names: str, annotation: str = "org.opencontainers.image.ref.name") -> list[Image]:
    return [
        Image([[Member(name.encode())]], descriptor={"annotations": {annotation: name}})
        for name in names
    ]


@pytest.mark.parametrize("ref", ["docker.io/library/app:1", "library/app:1", "app:1"])
def test_names_full_and_short(tmp_path: Path, ref: str) -> None:
    names = ("docker.io/library/app:1", "docker.io/library/app:latest")
    path = archive_of(tmp_path / "a", named(*names, annotation="io.containerd.image.name"))
    with ociroot.open(path) as source:
        assert source.image(ref=ref).names == (names[0],)
        assert source.image(ref="app").names == (names[1],)


def test_a_choice_that_is_not_unique_says_how_to_choose(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a", named("one", "two"))
    with ociroot.open(path) as source:
        with pytest.raises(UsageError, match="several images") as caught:
            source.image()
        assert [choice[1:] for choice in caught.value.choices] == [
            ("one", "--ref one"),
            ("two", "--ref two"),
        ]
        digest = source.image(ref="two").digest
        assert source.image(digest=str(digest)[:20]).names == ("two",)
        assert source.image(digest=digest.encoded[:10]).names == ("two",)
        image_id = source.image(ref="one").image_id
        assert source.image(digest=str(image_id)).names == ("one",)
        for ref, start in (("three", ""), ("", "sha256:00"), ("two", "00")):
            with pytest.raises(UsageError, match="no image"):
                source.image(ref=ref, digest=start)
        with pytest.raises(UsageError, match="no digest"):
            source.image(digest="../..")


def test_one_image_of_two_names_is_one(tmp_path: Path) -> None:
    [image] = named("one")
    other = Image(
        image.layers, descriptor={"annotations": {"org.opencontainers.image.ref.name": "x"}}
    )
    with ociroot.open(archive_of(tmp_path / "a", [image, other])) as source:
        assert source.image().digest == source.image(ref="x").digest


def test_several_images_of_a_docker_archive(tmp_path: Path) -> None:
    one = docker_archive(tmp_path / "a", {"1": TARS[0]}, tags=("app:1", "app:latest"))
    with tarfile.open(one) as members:
        items = json.load(members.extractfile("manifest.json"))  # type: ignore[arg-type]
    with ociroot.open(one) as source:
        assert source.image(ref="app").names == ("app:1", "app:latest")
    assert items[0]["RepoTags"] == ["app:1", "app:latest"]


# Output of real tools.


@pytest.mark.parametrize("form", ["oci", "docker-archive", "dir-shared", "docker-compressed"])
def test_what_skopeo_writes(tmp_path: Path, form: str) -> None:
    need_tools("skopeo")
    # skopeo supports gzip but not zstd in docker-archives.
    source = archive(tmp_path / "image.tar", [Layer(one.content, "gzip") for one in LAYERS])
    shared = tmp_path / "shared"
    target, more, options = {
        "oci": (f"oci:{tmp_path}/out:app", [], {}),
        "docker-archive": (f"docker-archive:{tmp_path}/out:app:1", [], {}),
        "dir-shared": (
            f"oci:{tmp_path}/out:app",
            [f"--dest-shared-blob-dir={shared}"],
            {"shared_blobs": shared},
        ),
        "docker-compressed": (f"docker-archive:{tmp_path}/out:app:1", [], {}),
    }[form]
    command = ["skopeo", "copy", "-q", *more, f"oci-archive:{source}", target]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    out = tmp_path / "out"
    if form == "docker-compressed":
        subprocess.run(["gzip", "-S", ".z", out], check=True)
        out = tmp_path / "out.z"
    assert content(out, tmp_path, None, **options) == EXPECTED


def test_a_layout_of_more_blobs_than_may_be_open(tmp_path: Path) -> None:
    """Blobs are opened only while they are read."""
    layers = [[Member(b"%d" % n)] for n in range(100)]
    path = archive(tmp_path / "image.tar", layers)
    layout = tmp_path / "layout"
    layout.mkdir()
    subprocess.run(["tar", "-xf", path, "-C", layout], check=True)
    command = [
        sys.executable,
        "-m",
        "ociroot",
        "extract",
        "-q",
        str(layout),
        str(tmp_path / "root"),
    ]
    subprocess.run(
        command,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )
    assert len(list((tmp_path / "root").iterdir())) == 100


def test_a_document_of_many_names_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "a.tar", [[Member(b"a")]])
    with ociroot.open(path) as source:
        image = source.listing().images[0].descriptor
    assert image is not None
    entries = [
        {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.size,
            "annotations": {"org.opencontainers.image.ref.name": f"v{n}"},
        }
        for n in range(50)
    ]
    archive(path, [[Member(b"a")]], index={"manifests": entries})
    with ociroot.open(path) as source, counting(monkeypatch) as counts:
        assert len(source.listing().images) == 50
    assert counts.reads == 3
