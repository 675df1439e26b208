"""One image in every form that real tools write: the same tree and the same output."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ociroot

from .support.needs import need_tools
from .support.real import buildah_in, podman_in, run
from .support.snapshot import Snapshot, differences, snapshot

pytestmark = pytest.mark.root

FORMS = (
    "skopeo-oci-archive",
    "skopeo-layout",
    "skopeo-docker-archive",
    "umoci-layout",
    "buildah-oci-archive",
    "buildah-layout",
    "buildah-docker-archive",
    "podman-docker-archive",
    "podman-oci-archive",
    "podman-several",
)
NAME = "localhost/forms:1"


class Forms:
    """The image, its forms, and podman's view of its tree."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.options: dict[str, dict[str, str]] = {"podman-several": {"ref": "forms:1"}}

    def path(self, form: str) -> Path:
        return self.where / form


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    need_tools("buildah", "podman", "skopeo", "umoci")
    where = tmp_path_factory.mktemp("forms")
    made = Forms(where)
    buildah, podman = buildah_in(where), podman_in(where)

    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text("NAME=forms\n")
    (root / "gone").write_text("gone")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(os.urandom(300_000))
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "bin").symlink_to("usr/bin")
    buildah("config", "--env", "FORM=1", "--cmd", "/bin/tool", container)
    buildah("commit", "--rm", "--format", "oci", container, "localhost/base")
    top = buildah("from", "localhost/base")
    root = Path(buildah("mount", top))
    (root / "gone").unlink()
    (root / "etc/os-release").write_text("NAME=forms\nVERSION=2\n")
    os.link(root / "usr/bin/tool", root / "usr/bin/twin")
    buildah("commit", "--rm", "--format", "oci", top, NAME)

    path = made.path
    buildah("push", "-q", NAME, f"oci-archive:{path('buildah-oci-archive')}:1")
    buildah("push", "-q", NAME, f"oci:{path('buildah-layout')}:1")
    buildah("push", "-q", NAME, f"docker-archive:{path('buildah-docker-archive')}:{NAME}")
    source = f"oci-archive:{path('buildah-oci-archive')}"
    run("skopeo", "copy", "-q", source, f"oci-archive:{path('skopeo-oci-archive')}")
    run("skopeo", "copy", "-q", source, f"oci:{path('skopeo-layout')}:1")
    docker = f"docker-archive:{path('skopeo-docker-archive')}:{NAME}"
    run("skopeo", "copy", "-q", source, docker)
    run("skopeo", "copy", "-q", source, f"oci:{path('umoci-layout')}:1")
    run("umoci", "tag", "--image", f"{path('umoci-layout')}:1", "again")
    podman("pull", "-q", source)
    image = podman("images", "--quiet", "--no-trunc").splitlines()[0]
    podman("tag", image, NAME)
    podman("save", "-q", "--format", "docker-archive", "-o", path("podman-docker-archive"), NAME)
    podman("save", "-q", "--format", "oci-archive", "-o", path("podman-oci-archive"), NAME)
    base = where / "base"
    buildah("push", "-q", "localhost/base", f"oci-archive:{base}")
    other = podman("pull", "-q", f"oci-archive:{base}").splitlines()[-1]
    podman("tag", other, "localhost/other:1")
    podman("save", "-q", "-m", "-o", path("podman-several"), NAME, "localhost/other:1")
    return made


@pytest.fixture(scope="module")
def mounted(forms: Forms) -> Any:
    """Return the tree as podman mounts it."""
    podman = podman_in(forms.where)
    yield Path(podman("image", "mount", NAME))
    podman("image", "umount", "--force", NAME)


@pytest.fixture(scope="module")
def extracted(forms: Forms, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    root = tmp_path_factory.mktemp("extracted") / "root"
    with ociroot.open(forms.path("buildah-oci-archive")) as source:
        source.image().extract(root)
    return snapshot(root)


def command(*arguments: str | Path) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "ociroot", *arguments], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(
    forms: Forms, extracted: Snapshot, tmp_path: Path, form: str
) -> None:
    options = forms.options.get(form, {})
    with ociroot.open(forms.path(form)) as source:
        image = source.image(**options)  # type: ignore[arg-type]
        image.extract(tmp_path / "root", ociroot.ExtractOptions(strict=True))
    assert differences(extracted, snapshot(tmp_path / "root")) == []

    reference = json.loads(command("inspect", "--json", forms.path("buildah-oci-archive")))
    choice = [f"--{key}={value}" for key, value in options.items()]
    shown = json.loads(command("inspect", "--json", *choice, forms.path(form)))
    # The layers are compressed in one form and not in another; their content is the same.
    for part in ("image_id", "config", "chain_ids", "history", "platform"):
        assert shown["image"][part] == reference["image"][part], part
    diff_ids = [[each["diff_id"] for each in s["image"]["layers"]] for s in (shown, reference)]
    assert diff_ids[0] == diff_ids[1]


def test_skopeo_and_we_mean_the_same_by_a_name(forms: Forms) -> None:
    for name in (
        f"oci:{forms.path('skopeo-layout')}:1",
        f"oci:{forms.path('skopeo-layout')}",
        f"oci:{forms.path('umoci-layout')}:again",
        f"oci-archive:{forms.path('buildah-oci-archive')}:1",
        f"oci-archive:{forms.path('skopeo-oci-archive')}",
        f"docker-archive:{forms.path('skopeo-docker-archive')}:{NAME}",
        f"docker-archive:{forms.path('podman-several')}:{NAME}",
        f"docker-archive:{forms.path('podman-several')}:localhost/other:1",
    ):
        theirs = subprocess.run(
            ["skopeo", "inspect", "--config", "--raw", name], stdout=subprocess.PIPE, check=True
        ).stdout
        with ociroot.open(name) as source:
            image_id = source.image().image_id
        assert str(image_id) == "sha256:" + hashlib.sha256(theirs).hexdigest()


def test_the_names_are_those_that_the_tools_gave(forms: Forms) -> None:
    for form, names in (
        ("buildah-layout", {"1"}),
        ("umoci-layout", {"1", "again"}),
        ("podman-docker-archive", {NAME}),
        ("podman-several", {NAME, "localhost/other:1"}),
    ):
        with ociroot.open(forms.path(form)) as source:
            assert {name for image in source.listing().images for name in image.names} == names


def test_looking_agrees_with_podman(forms: Forms, mounted: Path, tmp_path: Path) -> None:
    image = forms.path("podman-docker-archive")
    listed = json.loads(command("ls", "-Ra", "--json", image))
    shown = snapshot(mounted)
    assert {each["path"][1:].encode() for each in listed} == shown.keys() - {b"."}
    for each in listed:
        record = shown[each["path"][1:].encode()]
        assert each["type"] == record.kind
        assert each.get("size", 0) == record.size
        if record.kind == "file":
            content = json.loads(command("cat", "--json", image, each["path"]))[0]["content"]
            assert base64.b64decode(content) == (mounted / each["path"][1:]).read_bytes()
    command("cp", f"{image}:/usr", tmp_path / "usr")
    assert differences(snapshot(mounted / "usr"), snapshot(tmp_path / "usr")) == []
    diff = command("diff", image, forms.path("skopeo-layout"))
    assert diff == b""
