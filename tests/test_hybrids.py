"""Archives that are an OCI image layout and a docker-archive at once: one image for all readers."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import ociroot
from ociroot.errors import MalformedImage, OcirootError, Unsupported, UsageError
from ociroot.limits import DEFAULTS
from ociroot.sources.detect import open_source

from .support import build
from .support.build import Layer, Member, archive, archive_of
from .support.counted import CountedSource

FULL, REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"
ONE = [Layer([Member(b"one", data=b"1")], "gzip"), Layer([Member(b"more", data=b"2")])]
TWO = [Layer([Member(b"two", data=b"3")])]
Document = dict[str, Any]


def path_of(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


class Made:
    """An image, and its entries in both documents."""

    def __init__(self, where: Path, layers: list[Layer], *tags: str, **overrides: Any) -> None:
        self.layers = layers
        self.overrides = overrides
        path = archive(where / "single", layers, **overrides)
        with tarfile.open(path) as tar:
            self.blobs = {
                "sha256:" + member.name.rpartition("/")[2]: tar.extractfile(member).read()  # type: ignore[union-attr]
                for member in tar
                if member.isfile() and member.name.startswith("blobs")
            }
            [self.entry] = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
        manifest = json.loads(self.blobs[self.entry["digest"]])
        self.config = manifest["config"]["digest"]
        self.item: Document = {
            "Config": path_of(self.config),
            "RepoTags": list(tags) or None,
            "Layers": [path_of(build.digest(layer.packed())) for layer in layers],
        }

    def entries(self) -> list[Document]:
        """Return its index entries as Docker writes them, one for each tag."""
        return [
            {
                **self.entry,
                "annotations": {
                    FULL: f"docker.io/library/{tag}",
                    REF: tag.rpartition(":")[2],
                },
            }
            for tag in self.item["RepoTags"] or ()
        ] or [self.entry]


def hybrid(
    path: Path,
    made: list[Made],
    *,
    entries: list[Document] | None,
    items: list[Document],
    layout: bool = True,
) -> Path:
    """Write an archive of images with both documents; entries=None writes `null`."""
    blobs = {digest: blob for each in made for digest, blob in each.blobs.items()}
    files: dict[bytes, bytes | None] = {b"manifest.json": json.dumps(items).encode()}
    if not layout:
        files[b"oci-layout"] = None
    index = {"manifests": entries}
    return archive_of(path, [], index=index, blobs=dict(blobs), files=files)


@pytest.fixture
def one(tmp_path: Path) -> Made:
    return Made(tmp_path, ONE, "one:1")


@pytest.fixture
def two(tmp_path: Path) -> Made:
    return Made(tmp_path, TWO, "two:1")


def files(path: Path, **choice: Any) -> list[bytes]:
    with ociroot.open(path) as source:
        return sorted(source.image(**choice).tree().root.entries)


def refused(path: Path, match: str, error: type[OcirootError] = MalformedImage) -> None:
    with pytest.raises(error, match=match), ociroot.open(path) as source:
        source.image()


@pytest.mark.parametrize("layout", [True, False])
@pytest.mark.parametrize("unpacked", [True, False])
def test_both_say_the_same(
    tmp_path: Path, one: Made, two: Made, layout: bool, unpacked: bool
) -> None:
    path = hybrid(
        tmp_path / "a",
        [one, two],
        entries=one.entries() + two.entries(),
        items=[two.item, one.item],
        layout=layout,
    )
    if unpacked:
        path = build.unpacked(path, tmp_path / "b")
    assert files(path, ref="one:1") == [b"more", b"one"]
    assert files(path, ref="two:1") == [b"two"]
    with ociroot.open(path) as source:
        assert [image.names for image in source.listing().images] == [
            ("docker.io/library/one:1", "1"),
            ("docker.io/library/two:1", "1"),
        ]


def test_a_layout_beside_another_manifest(tmp_path: Path, one: Made) -> None:
    """No other reader treats a directory as a docker-archive."""
    path = archive(tmp_path / "a", ONE, files={b"manifest.json": b' {"schemaVersion": 2}'})
    assert files(build.unpacked(path, tmp_path / "b")) == [b"more", b"one"]
    refused(path, "manifest.json: an image manifest", Unsupported)


# Entries that Docker omits.


@pytest.mark.parametrize("layout", [True, False])
def test_saved_by_digest_by_docker_25_0_0(tmp_path: Path, layout: bool) -> None:
    """Moby #47210: `"manifests": null`."""
    one = Made(tmp_path, ONE)
    path = hybrid(tmp_path / "a", [one], entries=None, items=[one.item], layout=layout)
    assert files(path) == [b"more", b"one"]
    assert files(path, digest=one.config) == [b"more", b"one"]
    with ociroot.open(path) as source:
        report = source.image().extract(tmp_path / "root", ociroot.ExtractOptions(strict=True))
    assert (report.manifest, report.image_id) == (None, one.config)
    assert [layer.compression for layer in report.layers] == ["gzip", "none"]


def test_its_layers_are_verified(tmp_path: Path) -> None:
    one = Made(tmp_path, ONE)
    one.item["Layers"].reverse()
    path = hybrid(tmp_path / "a", [one], entries=None, items=[one.item])
    with ociroot.open(path) as source:
        assert [w.code for w in source.image().merged().warnings] == ["layer-order"]
    one.item["Layers"] = one.item["Layers"][:1] * 2
    path = hybrid(tmp_path / "a", [one], entries=None, items=[one.item])
    with ociroot.open(path) as source, pytest.raises(OcirootError, match="diff_id"):
        source.image().merged()


def test_several_saved_by_digest(tmp_path: Path) -> None:
    """Moby #51389: only the first is in index.json."""
    one, two = Made(tmp_path, ONE), Made(tmp_path, TWO)
    items = [one.item, two.item]
    path = hybrid(tmp_path / "a", [one, two], entries=one.entries(), items=items)
    assert files(path, digest=one.entry["digest"]) == [b"more", b"one"]
    assert files(path, digest=two.config) == [b"two"]
    refused(path, "several images", UsageError)  # the one in index.json is not preferred


def test_a_tagged_one_and_one_saved_by_digest(tmp_path: Path, one: Made) -> None:
    two = Made(tmp_path, TWO)
    path = hybrid(tmp_path / "a", [one, two], entries=one.entries(), items=[two.item, one.item])
    assert files(path, ref="one:1") == [b"more", b"one"]
    assert files(path, digest=two.config) == [b"two"]


def test_a_manifest_without_layers(tmp_path: Path) -> None:
    """Moby #47065: the first versions of Docker 25 list them only in manifest.json."""
    one = Made(tmp_path, ONE, "one:1", manifest={"layers": None})
    path = hybrid(tmp_path / "a", [one], entries=one.entries(), items=[one.item])
    for choice in ({}, {"ref": "one:1"}, {"digest": one.entry["digest"]}, {"digest": one.config}):
        assert files(path, **choice) == [b"more", b"one"]
    with ociroot.open(path) as source:
        assert source.image().extract(tmp_path / "root").manifest == one.entry["digest"]
        [found] = source.listing().images
        assert found.size == sum(len(layer.packed()) for layer in ONE)
    other = {**one.item, "RepoTags": ["other:1"], "Layers": one.item["Layers"][::-1]}
    refused(
        hybrid(tmp_path / "a", [one], entries=one.entries(), items=[one.item, other]),
        "manifest.json: the layers of .* differ from those",
    )


def test_the_names_of_both_choose_an_image(tmp_path: Path, one: Made) -> None:
    path = hybrid(tmp_path / "a", [one], entries=[one.entry], items=[one.item])
    assert files(path, ref="one:1") == [b"more", b"one"]


# Contradictions.


@pytest.mark.parametrize("layout", [True, False])
def test_the_same_image_with_other_layers(tmp_path: Path, one: Made, layout: bool) -> None:
    right = one.item["Layers"]
    for wrong in (right[::-1], right[:1], right[:0]):
        item = {**one.item, "Layers": wrong}
        path = hybrid(tmp_path / "a", [one], entries=one.entries(), items=[item], layout=layout)
        refused(path, "manifest.json: the layers of sha256:.* differ from those of index.json")


@pytest.mark.parametrize("layout", [True, False])
@pytest.mark.parametrize("tag", ["one:1", "docker.io/library/one:1", "docker.io/one:1"])
def test_another_image_under_one_name(
    tmp_path: Path, one: Made, two: Made, layout: bool, tag: str
) -> None:
    item = {**two.item, "RepoTags": ["x:1", tag]}
    made = [one, two]
    path = hybrid(tmp_path / "a", made, entries=one.entries(), items=[item], layout=layout)
    refused(path, f"manifest.json: {tag} is sha256:.*, but another image in index.json")
    # Both documents list both images, with exchanged names.
    items = [{**one.item, "RepoTags": ["two:1"]}, {**two.item, "RepoTags": ["one:1"]}]
    entries = one.entries() + two.entries()
    path = hybrid(tmp_path / "a", made, entries=entries, items=items, layout=layout)
    refused(path, "manifest.json: two:1 is sha256:.*, but another image in index.json")


def test_a_name_that_is_no_image_in_the_other(tmp_path: Path, one: Made, two: Made) -> None:
    """What is an artifact to us can be an image to others."""
    [entry] = one.entries()
    entry["artifactType"] = "application/x"
    item = {**two.item, "RepoTags": ["one:1"]}
    path = hybrid(tmp_path / "a", [one, two], entries=[entry], items=[item])
    refused(path, "manifest.json: one:1 is sha256:.*, but another image in index.json")


def test_one_name_for_several_platforms(tmp_path: Path) -> None:
    """`ctr images export` lists one of them in manifest.json."""
    made = [
        Made(tmp_path, layers, "one:1", platform=("linux", each))
        for layers, each in ((ONE, "s390x"), (TWO, "ppc64le"))
    ]
    entries = [entry for each in made for entry in each.entries()]
    path = hybrid(tmp_path / "a", made, entries=entries, items=[made[1].item])
    assert files(path, platform="linux/s390x") == [b"more", b"one"]
    assert files(path, platform="linux/ppc64le") == [b"two"]


def test_what_cannot_be_read_may_be_a_contradiction(tmp_path: Path, one: Made, two: Made) -> None:
    """Another reader may be able to read it, and get another image."""
    bad = Made(tmp_path, TWO, "bad:1", config={"Rootfs": {}})
    path = hybrid(tmp_path / "a", [one, bad], entries=one.entries(), items=[bad.item])
    refused(path, "manifest.json: an image that index.json does not list is unreadable: .*Rootfs")
    path = hybrid(tmp_path / "a", [one, bad], entries=bad.entries(), items=[one.item])
    refused(path, "manifest.json: index.json does not list .* unreadable: .*Rootfs")
    path = hybrid(
        tmp_path / "a", [one, bad], entries=one.entries() + bad.entries(), items=[one.item]
    )
    assert files(path) == [b"more", b"one"], "in index.json alone it is a neighbour like others"


@pytest.mark.parametrize("document", ["index.json", "manifest.json"])
@pytest.mark.parametrize("layout", [True, False])
def test_one_that_is_broken(tmp_path: Path, one: Made, document: str, layout: bool) -> None:
    path = hybrid(tmp_path / "a", [one], entries=one.entries(), items=[one.item], layout=layout)
    with tarfile.open(path) as old, tarfile.open(tmp_path / "b", "w") as new:
        for member in filter(tarfile.TarInfo.isfile, old):
            content = b"{" if member.name == document else old.extractfile(member).read()  # type: ignore[union-attr]
            info = tarfile.TarInfo(member.name)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    refused(tmp_path / "b", f"{document}: not JSON")


# A member that some readers do not see, or for which they see another one.

DOCUMENTS = ["index.json", "manifest.json", "oci-layout"]
AGAIN: dict[str, Member] = {
    "a file": Member(b"NAME", data=b"{}"),
    "from the root": Member(b"/NAME", data=b"{}"),
    "by another way": Member(b"./x/../NAME", data=b"{}"),
    "sparse": Member(
        b"NAME", data=b"{}", pax={b"GNU.sparse.size": b"2", b"GNU.sparse.map": b"0,2"}
    ),
    "a hard link": Member(b"NAME", "link", target=b"elsewhere"),
    "a symbolic link": Member(b"NAME", "symlink", target=b"elsewhere"),
    "a symbolic link to nothing": Member(b"NAME", "symlink", target=b"nowhere"),
    "a FIFO": Member(b"NAME", "fifo"),
    "a device": Member(b"NAME", "char"),
    "a directory": Member(b"NAME", "dir"),
}


def with_more(path: Path, *members: Member, before: bool = False) -> None:
    """Add members to an archive."""
    old, new = path.read_bytes().rstrip(b"\0"), b"".join(map(build.entry, members))
    old += bytes(-len(old) % build.BLOCK)
    path.write_bytes((new + old if before else old + new) + bytes(2 * build.BLOCK))


def renamed(member: Member, name: str) -> Member:
    return Member(**{**vars(member), "name": member.name.replace(b"NAME", name.encode())})


# A file that replaces an empty directory is the same file for all readers.
@pytest.mark.parametrize(
    ("again", "before"),
    [(again, before) for again in AGAIN for before in (False, True)][:-1],
)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_there_twice(
    tmp_path: Path, one: Made, name: str, again: str, before: bool
) -> None:
    path = hybrid(tmp_path / "a", [one], entries=one.entries(), items=[one.item])
    with_more(path, Member(b"elsewhere", data=b"{}"), renamed(AGAIN[again], name), before=before)
    refused(path, f"{name}: duplicate member")


@pytest.mark.parametrize("again", ["sparse", "a FIFO", "a device"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_no_plain_file(tmp_path: Path, one: Made, name: str, again: str) -> None:
    """Some readers follow it, and others treat it as missing."""
    path = archive(tmp_path / "a", ONE, files={name.encode(): None})
    with_more(path, renamed(AGAIN[again], name))
    refused(path, f"{name}: not a plain file")


def test_a_twin_below_the_common_directory_or_behind_a_link(tmp_path: Path, one: Made) -> None:
    path = hybrid(tmp_path / "a", [one], entries=one.entries(), items=[one.item])
    build.unpacked(path, tmp_path / "below/top")
    packed = tmp_path / "b"
    for arcname in ("top", "."):
        with tarfile.open(packed, "w") as tar:
            tar.add(tmp_path / "below/top", arcname)
        assert files(packed) == [b"more", b"one"]
        with_more(packed, Member(f"{arcname}/manifest.json".encode(), data=b"[]"))
        refused(packed, "manifest.json: duplicate member")
    # A link to one of two.
    path = hybrid(tmp_path / "a", [one], entries=one.entries(), items=[one.item])
    content = json.dumps([one.item]).encode()
    twins = [Member(b"real", data=content), Member(b"real", data=b"[]")]
    link = Member(b"manifest.json", "symlink", target=b"real")
    path = archive(tmp_path / "a", ONE)
    with_more(path, *twins, link)
    refused(path, "real: duplicate member")


def test_a_configuration_that_is_there_twice(tmp_path: Path) -> None:
    """A docker-archive does not define which of two applies."""
    from .support.docker import docker_archive

    path = docker_archive(tmp_path / "a", {"l": build.tar([Member(b"f")])}, config_name="c.json")
    with_more(path, Member(b"c.json", data=b"{}"))
    refused(path, "c.json: duplicate member")


# The platform is chosen from the descriptors of index.json, where that is right.


PLATFORMS = [("linux", name) for name in ("amd64", "arm64", "s390x", "ppc64le", "riscv64", "386")]


@pytest.fixture
def many(tmp_path: Path) -> list[Made]:
    """An image for each of some platforms, all of them by one name."""
    return [
        Made(tmp_path, [Layer([Member(b"is-" + name.encode())])], "many:1", platform=(system, name))
        for system, name in PLATFORMS
    ]


def entries_of(many: list[Made]) -> list[Document]:
    return [entry for each in many for entry in each.entries()]


def counted(path: Path) -> CountedSource:
    return CountedSource(open_source(path, limits=DEFAULTS))


@pytest.mark.parametrize("wanted", ["linux/amd64", "linux/s390x"])
def test_documents_of_other_platforms_are_not_read(
    tmp_path: Path, many: list[Made], wanted: str
) -> None:
    path = hybrid(tmp_path / "a", many, entries=entries_of(many), items=[many[0].item])
    source = counted(path)
    image = ociroot.OpenedSource(source).image(platform=wanted)
    assert str(image.platform) == wanted
    neither = [
        made
        for made, (_, name) in zip(many, PLATFORMS, strict=True)
        if name not in ("amd64", wanted.removeprefix("linux/"))
    ]
    assert len(neither) >= 4
    for made in neither:
        assert not source.reads[made.entry["digest"]] and not source.reads[made.config]
    assert source.reads["index.json"] == source.reads["manifest.json"] == 1


def test_a_name_that_means_another_image_of_a_platform(tmp_path: Path, many: list[Made]) -> None:
    """It is refused whatever platform is chosen, as when all is read."""
    other = Made(tmp_path, ONE, "many:1", platform=("linux", "amd64"))
    path = hybrid(tmp_path / "a", [*many, other], entries=entries_of(many), items=[other.item])
    for wanted in ("linux/amd64", "linux/s390x"):
        refused_for(path, wanted, "but another image in index.json")


def test_other_layers_of_another_platform(tmp_path: Path, many: list[Made]) -> None:
    item = {**many[0].item, "Layers": many[1].item["Layers"]}
    path = hybrid(tmp_path / "a", many, entries=entries_of(many), items=[item])
    for wanted in ("linux/amd64", "linux/s390x"):
        refused_for(path, wanted, "differ from those of index.json")


@pytest.mark.parametrize("known", [True, False])
def test_a_second_name_that_means_an_image_of_another_platform(
    tmp_path: Path, many: list[Made], known: bool
) -> None:
    """What index.json calls by it is not read, for its platform is neither; but its name is.

    That the image has that name as a second one in index.json, too, does not help.
    """
    item = {**many[0].item, "RepoTags": ["many:1", "rare:1"]}
    rare = Made(tmp_path, ONE, "rare:1", platform=("linux", "mips64le"))
    first, *others = entries_of(many)
    if known:
        first["annotations"][REF] = "rare:1"
    entries = [first, *others, *rare.entries()]
    path = hybrid(tmp_path / "a", [*many, rare], entries=entries, items=[item])
    for wanted in ("linux/amd64", "linux/s390x"):
        refused_for(path, wanted, r"rare:1 is .* but another image in index.json")


def test_an_image_that_only_one_of_the_documents_has(tmp_path: Path, many: list[Made]) -> None:
    """It may be the one that is wanted: all is read."""
    only = Made(tmp_path, ONE, "only:1", platform=("linux", "s390x"))
    items = [many[0].item, only.item]
    path = hybrid(tmp_path / "a", [*many, only], entries=entries_of(many), items=items)
    with ociroot.open(path) as source:
        with pytest.raises(UsageError, match="several images for linux/s390x"):
            source.image(platform="linux/s390x")
        assert source.image(platform="linux/s390x", ref="only:1").names == ("only:1",)


def test_a_name_that_only_manifest_json_has(tmp_path: Path, many: list[Made]) -> None:
    item = {**many[0].item, "RepoTags": ["many:1", "many:latest"]}
    path = hybrid(tmp_path / "a", many, entries=entries_of(many), items=[item])
    with ociroot.open(path) as source:
        assert "many:latest" in source.image(platform="linux/amd64").names
        assert "many:latest" in source.image(platform="linux/amd64", ref="many:latest").names


def refused_for(path: Path, wanted: str, match: str) -> None:
    with ociroot.open(path) as source:
        with pytest.raises(MalformedImage, match=match):
            source.image(platform=wanted)
        with pytest.raises(MalformedImage, match=match):
            source.listing()
