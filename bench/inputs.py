"""The inputs, built from real packages with ordinary clients; each is a list of plain layers.

They are built once and cached: one directory of tar files per input, base first. Packed files have
fixed times, so that the blobs are the same for the same packages.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .measure import Failed

__all__ = ["INPUTS", "layers_of"]

BUILT = 1_700_000_000  # seconds since 1970
NODE = {
    "@mui/material": "9.5.0",
    "antd": "6.6.8",
    "aws-sdk": "2.1693.0",
    "core-js": "3.51.0",
    "date-fns": "4.4.0",
    "eslint": "10.15.0",
    "jest": "30.5.2",
    "lodash": "4.18.1",
    "next": "16.4.6",
    "react": "19.3.1",
    "react-dom": "19.3.1",
    "rxjs": "7.8.2",
    "webpack": "5.112.2",
}
WHEELS = (
    "numpy==2.4.6",
    "scipy==1.17.1",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "polars==2.1.0",
    "scikit-learn==1.9.1",
    "matplotlib==3.11.2",
    "opencv-python-headless==5.0.0.93",
)
# Nine steps on the minbase tree: typical changes of images, large and small, and removals.
STEPS = (
    "apt-get update",
    "apt-get install -y --no-install-recommends ca-certificates curl",
    "apt-get install -y --no-install-recommends git",
    "apt-get install -y --no-install-recommends python3",
    "apt-get install -y --no-install-recommends gcc libc6-dev",
    "apt-get install -y --no-install-recommends vim-nox less",
    "apt-get purge -y git && apt-get autoremove -y",
    "chown -R 1000:1000 /usr/share/zoneinfo",
    "apt-get clean && rm -rf /var/lib/apt/lists/*",
)
# One setting per line, as in apt.conf; %_ is apt-config's space.
_NETWORK = '%F%_"%v";%n'
_TAR = ("tar", "--format=posix", "--sort=name", "--numeric-owner", "--pax-option=delete=[ac]time")


def layers_of(name: str, cache: Path, say: Callable[[str], None]) -> list[Path]:
    """Return the layers of an input; build them if necessary.

    Args:
        name: a key of ``INPUTS``.
        cache: the directory of the cached inputs.
        say: reports progress.

    Raises:
        Failed: they could not be built.
    """
    directory = cache / name
    if not directory.exists():
        say(f"making {name}")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as work:
            made = Path(work, "layers")
            made.mkdir()
            INPUTS[name](made, Path(work), cache)
            made.rename(directory)
    return sorted(directory.glob("*.tar"))


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        shown = " ".join(map(str, command))
        raise Failed(f"{shown}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return str(done.stdout).strip()


def _pack(tree: Path, prefix: str, out: Path) -> None:
    """Pack a tree below a path, owned by root and with one time."""
    below = tree.parent / "packed"
    (below / prefix).parent.mkdir(parents=True)
    tree.rename(below / prefix)
    fixed = ("--owner=0", "--group=0", "--mode=u+rwX,go+rX,go-w", f"--mtime=@{BUILT}")
    _run(*_TAR, *fixed, "-cf", out, "-C", below, prefix.partition("/")[0])


def _debian(out: Path, work: Path, cache: Path) -> None:
    """Build a minbase tree of the running release from the machine's apt sources."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    sources = _run(
        *("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"),
        *("Created-By: Packages", "Origin: Debian"),
    )
    network = _run("apt-config", "dump", "--no-empty", "--format", _NETWORK, "Acquire::http")
    _run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
        *(f"--aptopt={line}" for line in network.splitlines()),
        *(release.get("VERSION_CODENAME", "stable").strip('"'), out / "00.tar"),
        # If the machine has no sources, mmdebstrap chooses them.
        *(["-"] if sources else []),
        input=sources,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(BUILT)},
    )


def _node_modules(out: Path, work: Path, cache: Path) -> None:
    app = work / "app"
    app.mkdir()
    (app / "package.json").write_text(json.dumps({"private": True, "dependencies": NODE}))
    _run(
        *("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps"),
        *("--cache", work / "npm"),
        cwd=app,
    )
    _pack(app, "srv/app", out / "00.tar")


def _wheels(out: Path, work: Path, cache: Path) -> None:
    target = work / "site-packages"
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--target", target),
        *("--only-binary=:all:", "--no-compile", "--no-cache-dir", *WHEELS),
    )
    _pack(target, "usr/lib/python3/site-packages", out / "00.tar")


def _layers(out: Path, work: Path, cache: Path) -> None:
    """Build ten layers: the minbase tree, and nine operations of apt and the like on it."""
    (base,) = layers_of("debian", cache, lambda _: None)
    store, state = work / "store", work / "run"
    settings = ("--root", store, "--runroot", state, "--storage-driver", "vfs")
    buildah = functools.partial(_run, "buildah", *settings)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, base, "/")
    for number in range(len(STEPS) + 1):
        image = f"localhost/step-{number}"
        buildah("commit", "--quiet", "--rm", "--format", "oci", container, image)
        if number < len(STEPS):
            container = buildah("from", image)
            buildah(
                *("run", "--isolation", "chroot", "--network", "host", container, "--"),
                *("env", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", STEPS[number]),
            )
    layout = work / "layout"
    _run(
        *("skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers"),
        *(f"containers-storage:[vfs@{store}+{state}]{image}", f"oci:{layout}:latest"),
    )
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]).read_bytes())
    for number, layer in enumerate(manifest["layers"]):
        shutil.copyfile(_blob(layout, layer), out / f"{number:02}.tar")


def _blob(layout: Path, descriptor: dict[str, str]) -> Path:
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


#: The builder of each input: takes the directory for its layers, a work directory, and the cache.
INPUTS: dict[str, Callable[[Path, Path, Path], None]] = {
    "debian": _debian,
    "node_modules": _node_modules,
    "wheels": _wheels,
    "layers": _layers,
}
