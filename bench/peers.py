"""The measured programs, each as a shell script that a user would write.

The image's paths are substituted in a script, which extracts to ``{out}``, an existing empty
directory; ``TMPDIR`` is beside it on the same file system.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .images import Image, stored
from .measure import Failed, Run, run, script_path

__all__ = ["BEFORE", "OURS", "PEERS", "Peer", "compile_floor", "measure", "script", "usable"]

ALL = ("gzip", "zstd", "none")


@dataclass(frozen=True)
class Peer:
    """A program that extracts images.

    Attributes:
        name: its name in the tables.
        script: the shell script; lines with ``{blob}`` are repeated for each blob.
        compressions: the compressions that it is measured with.
        tools: the programs that it requires.
        against: our variant that reads the same form of the image.
        tree: the path of the root file system below ``{out}``.
    """

    name: str
    script: str
    compressions: tuple[str, ...] = ALL
    tools: tuple[str, ...] = ()
    against: str = "ociroot"
    tree: str = "rootfs"


_STORE = "--root {out}/store --runroot {out}/run --storage-driver vfs"
_TAR = "tar --numeric-owner -C {out}/rootfs -xpf"
_LAYOUT = "ociroot on a layout"
#: The name of the other version of ociroot.
BEFORE = "before"

#: Ours: the archive read in place, and the layout.
OURS = (
    Peer("ociroot", "{python} -m ociroot extract --quiet {archive} {out}/rootfs"),
    Peer(_LAYOUT, "{python} -m ociroot extract --quiet {layout} {out}/rootfs"),
)
PEERS = (
    *OURS,
    Peer("floor", "mkdir {out}/rootfs; {floor} {archive} {out}/rootfs {stored} >{out}/digests"),
    Peer(
        "floor -s",
        "mkdir {out}/rootfs; {floor} -s {archive} {out}/rootfs {stored} >{out}/digests",
    ),
    Peer(
        "umoci unpack",
        "umoci unpack --image {layout}:latest {out}/bundle",
        *(("gzip", "none"), ("umoci",), _LAYOUT, "bundle/rootfs"),
    ),
    Peer(
        "umoci raw unpack",
        "umoci raw unpack --image {layout}:latest {out}/rootfs",
        *(("gzip", "none"), ("umoci",), _LAYOUT),
    ),
    Peer(
        "skopeo + umoci",
        "skopeo copy -q {plain} oci-archive:{archive} oci:{out}/layout:latest\n"
        "umoci unpack --image {out}/layout:latest {out}/bundle",
        *(("gzip", "none"), ("skopeo", "umoci"), "ociroot", "bundle/rootfs"),
    ),
    Peer(
        "podman",
        f"podman {_STORE} pull -q oci-archive:{{archive}} >{{out}}/id\n"
        f"mounted=$(podman {_STORE} image mount $(cat {{out}}/id))\n"
        "ln -s $mounted {out}/rootfs",
        tools=("podman",),
    ),
    Peer(
        "buildah",
        f"buildah {_STORE} from -q oci-archive:{{archive}} >{{out}}/id\n"
        f"mounted=$(buildah {_STORE} mount $(cat {{out}}/id))\n"
        "ln -s $mounted {out}/rootfs",
        tools=("buildah",),
    ),
    Peer("gzip | tar", f"gzip -dc {{blob}} | {_TAR} -", ("gzip",), ("gzip", "tar")),
    Peer("pigz | tar", f"pigz -dc {{blob}} | {_TAR} -", ("gzip",), ("pigz", "tar")),
    Peer("zstd | tar", f"zstd -dcq {{blob}} | {_TAR} -", ("zstd",), ("zstd", "tar")),
    Peer("tar", f"{_TAR} {{blob}}", ("none",), ("tar",)),
    Peer("bsdtar", "bsdtar --numeric-owner -C {out}/rootfs -xpf {blob}", tools=("bsdtar",)),
    Peer("naive tarfile", "mkdir {out}/rootfs; {python} {naive} {archive} {out}/rootfs"),
)
# Kept out of the home directories of the machine: locks and caches of podman's own.
_SETTINGS = """[engine]
lock_type = "file"
tmp_dir = "{out}/podman-tmp"
events_logger = "none"
"""


def usable(names: Iterable[str] | None, compression: str, before: Path | None = None) -> list[Peer]:
    """Return the peers that support a compression.

    Args:
        names: the peers to choose from; None: all. Ours are always included.
        compression: the compression of the layers.
        before: the Python of an environment that holds another version of ociroot, measured too.
    """
    ours = {each.name for each in OURS}
    another = f"{shlex.quote(str(before))} -m ociroot extract --quiet {{archive}} {{out}}/rootfs"
    return [
        peer
        for peer in (*PEERS, *([Peer(BEFORE, another)] if before is not None else []))
        if compression in peer.compressions
        and (names is None or peer.name in {*ours, *names, BEFORE})
    ]


def script(peer: Peer, image: Image, out: Path, floor: Path) -> str:
    """Return a peer's script for an image."""
    quoted = {
        "archive": image.archive,
        "layout": image.layout,
        "out": out,
        "floor": floor,
        "python": sys.executable,
        "naive": script_path("naive.py"),
    }
    fields = {name: shlex.quote(str(value)) for name, value in quoted.items()}
    plain = image.compression == "none"
    fields["plain"] = "--dest-oci-accept-uncompressed-layers" if plain else ""
    fields["stored"] = " ".join(map(str, stored(image))) if "{stored}" in peer.script else ""
    if "{blob}" not in peer.script:
        return peer.script.format(**fields)
    lines = [peer.script.format(**fields, blob=shlex.quote(str(blob))) for blob in image.blobs]
    return "\n".join([f"mkdir {fields['out']}/rootfs", *lines])


def measure(peer: Peer, image: Image, out: Path, floor: Path) -> Run:
    """Run a peer once.

    Args:
        peer: the peer.
        image: the image to extract.
        out: a directory to create for its output.
        floor: the compiled lower bound.

    Raises:
        Failed: it failed.
    """
    (out / "tmp").mkdir(parents=True)
    (out / "containers.conf").write_text(_SETTINGS.format(out=out))
    environment = {"TMPDIR": str(out / "tmp"), "CONTAINERS_CONF": str(out / "containers.conf")}
    return run(script(peer, image, out, floor), environment)


def compile_floor(directory: Path) -> Path:
    """Compile the floor; return the program.

    Raises:
        Failed: it cannot be compiled here.
    """
    program = directory / "floor"
    compiler = os.environ.get("CC", "cc")
    libraries = ("-lisal", "-lzstd", "-lcrypto", "-lpthread")
    done = subprocess.run(
        [*shlex.split(compiler), "-O2", "-o", program, script_path("floor.c"), *libraries],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"{compiler}: exit {done.returncode}\n{done.stderr}")
    return program
