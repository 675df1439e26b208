"""Images built by real tools, and the trees that other tools extract from them.

Everything is below one temporary directory: the storage of buildah and podman is set by `--root`
and `--runroot` with the vfs driver, and podman's locks are files there, too. Only their cache of
equal blobs in other compressions is outside.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import oddities
from .needs import need_tools
from .room import roomy_directory
from .snapshot import Snapshot, snapshot

TOOLS = (
    *("mmdebstrap", "apt-get", "dpkg-deb", "umoci", "skopeo", "buildah", "podman"),
    *("tar", "bsdtar", "setfacl"),
)
COMPRESSIONS = ("none", "gzip", "zstd")
PACKAGES = ("iputils-ping", "libcap2-bin", "less")
# One setting per line, as in apt.conf; %_ is apt-config's space.
NETWORK = '%F%_"%v";%n'
# A session needs about 5 GiB of disk at its peak.
ROOM = 8 * 2**30


@dataclass(frozen=True)
class Debian:
    """A minbase tree of the running release, and packages to install in it."""

    tree: Path
    packages: Path


@dataclass(frozen=True)
class RealImage:
    """One image in several forms."""

    name: str
    archives: dict[str, Path]
    workshop: Path = field(repr=False)

    @functools.cached_property
    def by_umoci(self) -> Snapshot:
        """Return the tree that `umoci unpack` extracts."""
        layout, bundle = self.workshop / f"{self.name}.oci", self.workshop / f"{self.name}.bundle"
        # umoci reads no archives and, before 0.5, no zstd.
        run("skopeo", "copy", "-q", f"oci-archive:{self.archives['gzip']}", f"oci:{layout}:latest")
        run("umoci", "unpack", "--image", f"{layout}:latest", bundle)
        tree = snapshot(bundle / "rootfs")
        shutil.rmtree(layout)
        shutil.rmtree(bundle)
        return tree

    @functools.cached_property
    def by_podman(self) -> Snapshot:
        """Return the tree of `podman pull` and `podman image mount`."""
        with podman_mounted(self.workshop, self.archives["gzip"]) as mounted:
            return snapshot(mounted)


def run(*command: str | Path, **options: object) -> str:
    """Run a program and return its output; a failure shows its messages."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        shown = " ".join(map(str, command))
        pytest.fail(f"{shown}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return str(done.stdout).strip()


def _storage(tool: str, workshop: Path) -> tuple[str | Path, ...]:
    store = workshop / f"{tool}-store"
    return (tool, "--root", store, "--runroot", workshop / f"{tool}-run", "--storage-driver", "vfs")


def podman_in(workshop: Path) -> Callable[..., str]:
    """Run podman with a storage and settings of its own."""
    settings = workshop / "containers.conf"
    settings.write_text(
        f'[engine]\nlock_type = "file"\ntmp_dir = "{workshop}/podman-tmp"\nevents_logger = "none"\n'
    )
    environment = os.environ | {"CONTAINERS_CONF": str(settings)}
    return functools.partial(run, *_storage("podman", workshop), env=environment)


@contextmanager
def podman_mounted(workshop: Path, archive: Path) -> Iterator[Path]:
    """Unpack an archive with podman into a storage of its own and mount the tree."""
    podman = podman_in(workshop)
    image = podman("pull", "--quiet", f"oci-archive:{archive}")
    try:
        yield Path(podman("image", "mount", image))
    finally:
        podman("image", "umount", "--force", image)
        podman("rmi", "--force", image)


@pytest.fixture(scope="session")
def workshop() -> Iterator[Path]:
    """A directory with space for trees, in memory if possible."""
    need_tools(*TOOLS)
    with roomy_directory(ROOM) as directory:
        yield directory


@pytest.fixture(scope="session")
def debian(workshop: Path) -> Debian:
    """Bootstrap a minbase tree of this machine's Debian from its own apt sources."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    suite = release.get("VERSION_CODENAME", "stable").strip('"')
    sources = run(
        *("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"),
        *("Created-By: Packages", "Origin: Debian"),
    )
    network = run("apt-config", "dump", "--no-empty", "--format", NETWORK, "Acquire::http")
    made = Debian(workshop / "debian", workshop / "packages")
    made.packages.mkdir()
    fetch = (
        'export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; apt-get clean;'
        f" apt-get --yes --no-install-recommends --download-only install {' '.join(PACKAGES)};"
        f' cp "$1"/var/cache/apt/archives/*.deb {made.packages}'
    )
    run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
        *(f"--aptopt={line}" for line in network.splitlines()),
        *(f"--customize-hook={fetch}", suite, made.tree),
        # If the machine has no sources, mmdebstrap chooses them.
        *(["-"] if sources else []),
        input=sources,
    )
    # umoci and buildah record whole seconds: one rounds, the other truncates.
    for path in (made.tree, *made.tree.rglob("*")):
        second = path.lstat().st_mtime_ns // 10**9
        os.utime(path, (second, second), follow_symlinks=False)
    for version in ("1", "2"):
        oddities.package(made.packages, version)
    return made


@pytest.fixture(scope="session")
def debian_by_umoci(workshop: Path, debian: Debian) -> RealImage:
    """Build the minbase tree in one layer, by `umoci insert`."""
    image = f"{workshop / 'debian_by_umoci.layout'}:latest"
    run("umoci", "init", "--layout", image.removesuffix(":latest"))
    run("umoci", "new", "--image", image)
    run("umoci", "insert", "--image", image, debian.tree, "/")
    return _copied_by_skopeo(workshop, "debian_by_umoci")


@pytest.fixture(scope="session")
def history_by_umoci(workshop: Path, debian_by_umoci: RealImage) -> RealImage:
    """Build five more layers, by `umoci repack` and the three forms of `umoci insert`."""
    layout = workshop / "history_by_umoci.layout"
    image, bundle = f"{layout}:latest", workshop / "history_by_umoci.bundle"
    shutil.copytree(workshop / "debian_by_umoci.layout", layout)
    run("umoci", "unpack", "--image", image, bundle)
    for change in (oddities.add_oddities, oddities.swap_types, oddities.remove):
        change(bundle / "rootfs")
        run("umoci", "repack", "--refresh-bundle", "--image", image, bundle)
    shutil.rmtree(bundle)
    new = workshop / "inserted"
    (new / "sub").mkdir(parents=True)
    (new / "sub/file").write_text("inserted")
    run("umoci", "insert", "--image", image, "--opaque", new, "/srv/made-again")
    run("umoci", "insert", "--image", image, "--whiteout", "/srv/untouched/file")
    # /lib is a link to usr/lib in the layers below.
    run("umoci", "insert", "--image", image, new / "sub/file", "/lib/through-a-link")
    for maker, options in {
        "tar": ["--format=posix", "--sparse", "--xattrs", "--xattrs-include=*"],
        "gnu": ["--format=gnu"],
        "bsdtar": ["--format=pax", "--xattrs", "--no-acls", "--no-fflags"],
    }.items():
        parent, layer = workshop / f"by-{maker}", workshop / f"by-{maker}.tar"
        tree = parent / f"srv/by-{maker}"
        tree.mkdir(parents=True)
        oddities.archive_by_tar(tree)
        tool = "tar" if maker == "gnu" else maker
        run(tool, *options, "-cf", layer, "-C", parent, f"srv/by-{maker}")
        run("umoci", "raw", "add-layer", "--image", image, layer)
    return _copied_by_skopeo(workshop, "history_by_umoci")


def _copied_by_skopeo(workshop: Path, name: str) -> RealImage:
    made = RealImage(name, {c: workshop / f"{name}.{c}.tar" for c in ("gzip", "zstd")}, workshop)
    for compression, archive in made.archives.items():
        _skopeo(f"oci:{workshop / name}.layout:latest", archive, compression)
    return made


def buildah_in(workshop: Path) -> Callable[..., str]:
    """Run buildah with a storage of its own."""
    return functools.partial(run, *_storage("buildah", workshop))


def _without_raising_limits() -> Iterator[str]:
    """Yield options of `buildah from` that avoid raising limits, which root may not be allowed."""
    processes = min(32768, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    yield f"--ulimit=nproc={processes}:{processes}"
    yield "--ulimit=nofile=1024:1024"


@pytest.fixture(scope="session")
def debian_by_buildah(workshop: Path, debian: Debian) -> RealImage:
    """Build the minbase tree in one layer, by `buildah mount` and `buildah commit`."""
    buildah = buildah_in(workshop)
    container = buildah("from", "scratch")
    # `buildah add` would change all owners to root.
    run("cp", "-a", f"{debian.tree}/.", buildah("mount", container))
    buildah("config", "--env", "ORIGIN=buildah", "--cmd", "/bin/sh", container)
    buildah("commit", "--rm", "--format", "oci", container, "localhost/debian")
    return _pushed_by_buildah(workshop, "debian_by_buildah", "localhost/debian")


@pytest.fixture(scope="session")
def history_by_buildah(workshop: Path, debian: Debian, debian_by_buildah: RealImage) -> RealImage:
    """Build four more layers: odd files, packages installed, upgraded and removed."""
    assert debian_by_buildah.archives  # the first layer is in buildah's storage
    buildah = buildah_in(workshop)
    first, last = (f"/packages/ociroot-probe_{version}_all.deb" for version in "12")
    others = [f"/packages/{path.name}" for path in debian.packages.glob("[!o]*.deb")]

    def dpkg(container: str, *arguments: str) -> None:
        volume = f"{debian.packages}:/packages:ro"
        command = ("dpkg", "--force-depends", *arguments)
        buildah("run", "--isolation", "chroot", "--volume", volume, container, "--", *command)

    def add(container: str, root: Path) -> None:
        oddities.add_oddities(root)

    def install(container: str, root: Path) -> None:
        dpkg(container, "--install", first, *others)

    def upgrade(container: str, root: Path) -> None:
        dpkg(container, "--install", last)
        oddities.swap_types(root)
        oddities.directory_to_file(root)

    def remove(container: str, root: Path) -> None:
        dpkg(container, "--purge", "less", "ociroot-probe")
        oddities.remove(root)

    image = "localhost/debian"
    for step in (add, install, upgrade, remove):
        container = buildah("from", *_without_raising_limits(), image)
        step(container, Path(buildah("mount", container)))
        image = f"localhost/{step.__name__}"
        buildah("commit", "--rm", "--format", "oci", container, image)
    return _pushed_by_buildah(workshop, "history_by_buildah", image)


def _pushed_by_buildah(workshop: Path, name: str, image: str) -> RealImage:
    made = RealImage(name, {c: workshop / f"{name}.{c}.tar" for c in COMPRESSIONS}, workshop)
    buildah_in(workshop)("push", "--quiet", image, f"oci-archive:{made.archives['gzip']}:latest")
    storage = f"[vfs@{workshop / 'buildah-store'}+{workshop / 'buildah-run'}]"
    _skopeo(f"oci-archive:{made.archives['gzip']}", made.archives["zstd"], "zstd")
    _skopeo(f"containers-storage:{storage}{image}", made.archives["none"], "none")
    return made


def _skopeo(source: str, archive: Path, compression: str) -> None:
    option = ["--dest-compress-format", compression]
    if compression == "none":
        option = ["--dest-oci-accept-uncompressed-layers"]
    run("skopeo", "copy", "--quiet", *option, source, f"oci-archive:{archive}:latest")
