"""A broken image does not prevent the use of another one; it is listed, and fails if chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ociroot
from ociroot.cli import command
from ociroot.errors import (
    LimitExceeded,
    MalformedImage,
    OcirootError,
    Unsupported,
    UsageError,
    VerificationError,
)

from .support import build
from .support.build import HOST, Image, Layer, Member, archive, archive_of
from .support.docker import docker_archive

ZEROS = "sha256:" + "0" * 64
NAME = "org.opencontainers.image.ref.name"
GOOD = [Member(b"good", data=b"good")]
BAD = [Member(b"bad", data=b"bad")]


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"annotations": {NAME: name}, **more}


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr of a command."""
    result = CliRunner().invoke(command, list(map(str, arguments)))
    error = result.exception
    if isinstance(error, OcirootError):
        return error.exit_code, result.stdout, f"{result.stderr}{error}"
    return result.exit_code, result.stdout, result.stderr


def digest_of(path: Path, ref: str) -> str:
    """Return the digest of the listed item with a name."""
    with ociroot.open(path) as source:
        listing = source.listing()
    found = [str(image.digest) for image in listing.images if ref in image.names]
    found += [other.digest for other in listing.others if ref in other.names]
    return found[0]


# For each defect: overrides of the image, the error, and its message.
WAYS: dict[str, tuple[dict[str, Any], type[OcirootError], str]] = {
    "an artifact with an image's config type": ({"config": b"{}"}, MalformedImage, "architecture"),
    "no configuration": ({"config_descriptor": {"digest": ZEROS}}, MalformedImage, "is missing"),
    "a wrong size": ({"descriptor": called("bad", size=7)}, VerificationError, "says 7"),
    "too large": ({"descriptor": called("bad", size=1 << 40)}, LimitExceeded, "--max-document"),
    "no JSON": ({"manifest": b"hello"}, MalformedImage, "not JSON"),
    "another schema": ({"manifest": {"schemaVersion": 1}}, MalformedImage, "schemaVersion is 1"),
    "an index, too": ({"manifest": {"manifests": []}}, MalformedImage, "both an index"),
    "a key of two fields": ({"manifest": {"Layers": []}}, MalformedImage, "some readers treat as"),
    "lazy layers": ({"config": {"rootfs": {"type": "x", "diff_ids": []}}}, Unsupported, "rootfs"),
    "an unknown digest": ({"config_descriptor": {"digest": "md5:1"}}, Unsupported, "md5"),
    "nested too deeply": ({"config": {"a": [[[[[[]]]]]]}}, LimitExceeded, "--max-nesting"),
}


# Defects of the descriptor itself: there is no digest to choose it by.
BROKEN: dict[str, tuple[dict[str, Any], type[OcirootError], str]] = {
    "a digest of another algorithm": (
        {"descriptor": called("bad", digest="md5:1")},
        Unsupported,
        "md5",
    ),
    "no digest": ({"descriptor": called("bad", digest="sha256:zz")}, MalformedImage, "hex"),
    "a negative size": ({"descriptor": called("bad", size=-1)}, MalformedImage, "manifests.0"),
    "a type that is none": (
        {"descriptor": called("bad", mediaType=7)},
        MalformedImage,
        "mediaType",
    ),
    "a key of its own": ({"descriptor": called("bad", Digest="x")}, MalformedImage, "some readers"),
    "a platform that is none": (
        {"descriptor": called("bad", platform=[])},
        MalformedImage,
        "platform",
    ),
}


def two(path: Path, overrides: dict[str, Any]) -> Path:
    """Write a broken image, `bad`, followed by a valid one, `good`."""
    bad = {"descriptor": called("bad"), **overrides}
    return archive_of(path, [Image([BAD], **bad), Image([GOOD], descriptor=called("good"))])


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_neighbour(tmp_path: Path, way: str) -> None:
    overrides, error, says = WAYS[way]
    path = two(tmp_path / "a.tar", overrides)
    limits = ociroot.Limits(nesting=4)
    with ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source:
        good = source.image()
        assert good.names == ("good",)
        for choice in ({"ref": "good"}, {"digest": str(good.digest)}, {"platform": "/".join(HOST)}):
            assert source.image(**choice).digest == good.digest  # type: ignore[arg-type]
        assert list(good.tree().root.entries) == [b"good"]
        listing = source.listing()
    assert [image.names for image in listing.images] == [("good",)]
    [other] = listing.others
    assert other.kind.startswith("unreadable: ")
    assert other.names == ("bad",)
    for choice in ({"ref": "bad"}, {"digest": digest_of(path, "bad")}):
        with (
            ociroot.open(path, ociroot.SourceOptions(limits=limits)) as source,
            pytest.raises(error, match=says) as caught,
        ):
            source.image(**choice)  # type: ignore[arg-type]
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_descriptor(tmp_path: Path, way: str) -> None:
    overrides, error, says = BROKEN[way]
    path = two(tmp_path / "a.tar", overrides)
    with ociroot.open(path) as source:
        good = source.image()
        for choice in ({"ref": "good"}, {"digest": str(good.digest)}, {"platform": "/".join(HOST)}):
            assert source.image(**choice).digest == good.digest  # type: ignore[arg-type]
        assert good.names == ("good",)
        [other] = source.listing().others
        assert (other.names, other.is_unreadable) == (("bad",), True)
        with pytest.raises(error, match=says) as caught:
            source.image(ref="bad")
    assert "manifests[0]" in str(caught.value)
    code, shown, _ = run("inspect", path)
    assert (code, "  unreadable: index.json: " in shown) == (0, True)
    assert run("verify", path)[0] == 0
    assert run("verify", "--all", path)[0] == error.exit_code


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_neighbour_is_shown_and_verified(tmp_path: Path, way: str) -> None:
    overrides, error, _ = WAYS[way]
    path = two(tmp_path / "a.tar", overrides)
    nesting = ["--max-nesting", "4"]
    code, shown, _ = run("inspect", *nesting, path)
    assert (code, "  unreadable: " in shown) == (0, True)
    assert run("inspect", *nesting, "--ref", "good", path)[0] == 0
    others = json.loads(run("inspect", *nesting, "--json", path)[1])["others"]
    assert [other["names"] for other in others] == [["bad"]]
    assert run("verify", *nesting, path)[0] == 0
    code, outcomes, _ = run("verify", *nesting, "--all", "--json", path)
    assert code == error.exit_code
    [good, bad] = json.loads(outcomes)
    assert good["ok"]
    assert not bad["ok"]
    assert bad["exit_code"] == error.exit_code
    assert bad["error"].startswith(f"{path}, ")
    assert bad["digest"] == others[0]["digest"]


def test_a_nested_index_that_is_broken(tmp_path: Path) -> None:
    content = b'{"schemaVersion": 2, "manifests": 7}'
    nested = build.describe(build.INDEX, content, annotations={NAME: "bad"})
    path = archive(tmp_path / "a.tar", [GOOD], descriptor=called("good"))
    with ociroot.open(path) as source:
        good = source.image().digest
    entry = build.describe(build.MANIFEST, b"", **called("good"))
    with ociroot.open(path) as source:
        descriptor = source.listing().images[0].descriptor
    assert descriptor is not None
    entry |= {"digest": descriptor.digest, "size": descriptor.size}
    archive(path, [GOOD], index={"manifests": [nested, entry]}, blobs={nested["digest"]: content})
    with ociroot.open(path) as source:
        assert source.image().digest == source.image(ref="good").digest == good
        with pytest.raises(MalformedImage, match=r"index sha256:.*manifests"):
            source.image(ref="bad")
        assert [other.names for other in source.listing().others] == [("bad",)]


def test_the_platform_that_is_asked_for_is_the_broken_one(tmp_path: Path) -> None:
    """The platform is in its descriptor, so no image of another platform is chosen."""
    images = [
        Image([BAD], config=b"{}", platform=("linux", "s390x")),
        Image([GOOD], platform=("linux", "ppc64le")),
    ]
    path = archive_of(tmp_path / "a.tar", images)
    with ociroot.open(path) as source:
        assert str(source.image(platform="linux/ppc64le").platform) == "linux/ppc64le"
        with pytest.raises(MalformedImage, match="architecture"):
            source.image(platform="linux/s390x")
        with pytest.raises(UsageError, match="no image for linux/386; there is linux/ppc64le"):
            source.image(platform="linux/386")


def test_only_bad_ones_are_an_error_of_the_first(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.tar", [Image([BAD], config=b"{}"), Image([BAD], config=b"[]")])
    with ociroot.open(path) as source, pytest.raises(MalformedImage, match="architecture"):
        source.image()
    assert run("verify", "--all", path)[0] == 3
    assert run("inspect", path)[0] == 3


def test_a_bad_neighbour_in_a_docker_archive(tmp_path: Path) -> None:
    tar = build.tar(GOOD)
    more = {"broken": b"{}"}
    path = docker_archive(tmp_path / "a", {"one.tar": tar}, tags=("good:1",), more=more)
    listed = json.loads(_member(path, "manifest.json"))
    bad = {"Config": "broken", "RepoTags": ["bad:1"], "Layers": []}
    missing = {"Config": "nowhere", "RepoTags": ["gone:1"], "Layers": []}
    members = [
        Member(n.encode(), data=_member(path, n))
        for n in ("one.tar", "broken", listed[0]["Config"])
    ]
    manifest = json.dumps([bad, *listed, missing]).encode()
    path.write_bytes(build.tar([*members, Member(b"manifest.json", data=manifest)]))
    with ociroot.open(path) as source:
        assert source.image().names == ("good:1",)
        assert [other.names for other in source.listing().others] == [("bad:1",), ("gone:1",)]
        with pytest.raises(MalformedImage, match=r"broken: .*architecture"):
            source.image(ref="bad:1")
        with pytest.raises(MalformedImage, match=r"nowhere: the configuration is missing"):
            source.image(ref="gone:1")


def _member(path: Path, name: str) -> bytes:
    import tarfile

    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_an_artifact_is_told_as_what_it_is(tmp_path: Path) -> None:
    chart = {"mediaType": "application/vnd.cncf.helm.config.v1+json"}
    path = two(tmp_path / "a.tar", {"config_descriptor": chart})
    with ociroot.open(path) as source:
        assert source.image().names == ("good",)
        with pytest.raises(UsageError, match=r"no image named 'bad', only application/vnd.cncf"):
            source.image(ref="bad")


def test_a_bad_one_of_several_names_is_reported_once(tmp_path: Path) -> None:
    bad = [Image([BAD], config=b"{}", descriptor=called(name)) for name in ("a", "b")]
    path = archive_of(tmp_path / "a.tar", [*bad, Image([GOOD])])
    outcomes = json.loads(run("verify", "--all", "--json", path)[1])
    assert [outcome["ok"] for outcome in outcomes] == [True, False]


# Missing blobs.


def test_only_missing_says_what_and_where_it_may_be(tmp_path: Path) -> None:
    images = [Image([GOOD], platform=("linux", each)) for each in ("s390x", "ppc64le")]
    path = archive_of(tmp_path / "a.tar", images)
    with ociroot.open(path) as source:
        digests = [str(image.digest) for image in source.listing().images]
    archive_of(path, images, blobs=dict.fromkeys(digests))
    with ociroot.open(path) as source:
        with pytest.raises(
            Unsupported, match=f"the blob {digests[0]} is missing and 1 more"
        ) as caught:
            source.image()
        assert "--shared-blob-dir" not in str(caught.value), "an archive shares no blobs"
        with pytest.raises(MalformedImage, match=f"the blob {digests[1]} is missing"):
            source.image(digest=digests[1])
    assert run("verify", "--all", path)[0] == 5
    archive_of(path, images, blobs={digests[1]: None})
    says = f"{digests[1]}, is missing; there is linux/s390x"
    with ociroot.open(path) as source, pytest.raises(UsageError, match=says):
        source.image(platform="linux/ppc64le")
    assert run("verify", "--all", path)[0] == 0, "what was not saved is no fault"


def test_a_missing_index(tmp_path: Path) -> None:
    nested = build.describe(build.INDEX, b"{}")
    path = archive(tmp_path / "a.tar", [GOOD], index={"manifests": [nested]})
    with ociroot.open(path) as source:
        assert [other.kind for other in source.listing().others] == ["missing"]
        with pytest.raises(Unsupported, match=f"{nested['digest']} is missing"):
            source.image()


def test_a_list_of_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [GOOD], index={"manifests": []})
    with ociroot.open(path) as source, pytest.raises(Unsupported, match="it: its list is empty"):
        source.image()


# Two images of one name.


def twins(path: Path, **second: Any) -> Path:
    return archive_of(path, [Image([GOOD]), Image(**{"layers": [BAD], **second})])


def test_two_images_of_one_name_are_the_first_with_a_warning(tmp_path: Path) -> None:
    path = twins(tmp_path / "a.tar")
    with ociroot.open(path) as source:
        image = source.image()
        assert list(image.tree().root.entries) == [b"good"]
        assert [(warning.code, warning.breach) for warning in image.warnings] == [
            ("same-name", True)
        ]
        with pytest.raises(MalformedImage, match="--strict"):
            source.image(strict=True)
    assert "warning: another image has the same name" in run("extract", path, tmp_path / "b")[2]
    assert run("extract", "--strict", path, tmp_path / "c")[0] == 3


def test_one_image_in_two_compressions_is_one(tmp_path: Path) -> None:
    """As `podman push --add-compression zstd` lists it."""
    path = twins(tmp_path / "a.tar", layers=[Layer(GOOD, "zstd")])
    with ociroot.open(path) as source:
        assert len({image.digest for image in source.listing().images}) == 2
        assert source.image(strict=True).warnings == ()


def test_two_platforms_or_names_are_no_two_of_one_name(tmp_path: Path) -> None:
    other = "arm" if HOST[1] == "amd64" else "amd64"
    with ociroot.open(twins(tmp_path / "a.tar", platform=("linux", other))) as source:
        assert source.image(strict=True).warnings == ()
    path = twins(tmp_path / "b.tar", descriptor=called("other"))
    with ociroot.open(path) as source, pytest.raises(UsageError, match="several images"):
        source.image()


def test_two_images_of_a_docker_archive_with_one_tag(tmp_path: Path) -> None:
    """`docker load` assigns the tag to the last image, others to the first."""
    tars = [build.tar(GOOD), build.tar(BAD)]
    items, members = [], []
    for number, tar in enumerate(tars):
        one = docker_archive(tmp_path / "a", {f"{number}.tar": tar}, tags=("app:1",))
        [item] = json.loads(_member(one, "manifest.json"))
        items.append(item)
        members += [
            Member(n.encode(), data=_member(one, n)) for n in (f"{number}.tar", item["Config"])
        ]
    members.append(Member(b"manifest.json", data=json.dumps(items).encode()))
    path = tmp_path / "b"
    path.write_bytes(build.tar(members))
    with ociroot.open(path) as source:
        with pytest.raises(UsageError, match="several images") as caught:
            source.image(ref="app:1")
        for _, _, option in caught.value.choices:
            assert source.image(digest=option.split()[1]).names == ("app:1",)


def listed(path: Path, *images: Image) -> Path:
    """Write an archive whose images all have the name `one`, with their own platforms."""
    named = [
        Image(**{**vars(each), "descriptor": {**called("one"), **each.descriptor}})
        for each in images
    ]
    return archive_of(path, named)


def test_the_first_one_is_not_passed_over_for_being_unreadable(tmp_path: Path) -> None:
    """Another reader would use it: image-index.md, "the first matching entry SHOULD be used"."""
    bad, good = Image([BAD], config=b"{}"), Image([GOOD])
    far = Image([GOOD], platform=("linux", "s390x"))
    for number, images in enumerate(([bad, good], [bad, far], [far, bad])):
        path = listed(tmp_path / f"{number}.tar", *images)
        for choice in ({}, {"ref": "one"}):
            with ociroot.open(path) as source, pytest.raises(MalformedImage, match="architecture"):
                source.image(**choice)  # type: ignore[arg-type]


def test_an_unreadable_one_that_is_not_the_first_stops_nothing(tmp_path: Path) -> None:
    bad, good = Image([BAD], config=b"{}"), Image([GOOD])
    nowhere = Image([BAD], config=b"{}", descriptor={"platform": ...})
    far = Image([BAD], config=b"{}", platform=("linux", "s390x"))
    for number, images in enumerate(([good, bad], [nowhere, good], [far, good])):
        path = listed(tmp_path / f"{number}.tar", *images)
        for choice in ({}, {"ref": "one"}, {"platform": "/".join(HOST)}):
            with ociroot.open(path) as source:
                image = source.image(**choice)  # type: ignore[arg-type]
                assert list(image.tree().root.entries) == [b"good"]


def test_a_descriptor_that_names_the_platform_comes_first(tmp_path: Path) -> None:
    """Containerd and skopeo use a descriptor without a platform only if no other matches."""
    silent = Image([BAD], descriptor={"platform": ...})
    path = listed(tmp_path / "a.tar", silent, Image([GOOD]))
    with ociroot.open(path) as source:
        image = source.image()
        assert list(image.tree().root.entries) == [b"good"]
        assert [warning.code for warning in image.warnings] == ["same-name"]
    with ociroot.open(listed(tmp_path / "b.tar", silent)) as source:
        assert list(source.image().tree().root.entries) == [b"bad"]


def test_a_broken_index_is_not_passed_over(tmp_path: Path) -> None:
    """Another reader may treat what is in its place as an image."""
    host = dict(zip(("os", "architecture"), HOST, strict=True))
    for number, broken in enumerate(
        (
            build.describe(build.INDEX, b"{}", platform=host),
            build.describe("", b"{}", platform=host),
        )
    ):
        path = archive(tmp_path / "a.tar", [GOOD])
        with ociroot.open(path) as source:
            descriptor = source.listing().images[0].descriptor
        assert descriptor is not None
        good = build.describe(build.MANIFEST, b"", platform=host)
        good |= {"digest": descriptor.digest, "size": descriptor.size}
        for order, fails in (([broken, good], True), ([good, broken], False)):
            path = archive(
                tmp_path / f"{number}.tar",
                [GOOD],
                index={"manifests": order},
                blobs={broken["digest"]: b"{}"},
            )
            with ociroot.open(path) as source:
                if fails:
                    with pytest.raises(MalformedImage):
                        source.image()
                else:
                    assert list(source.image().tree().root.entries) == [b"good"]
