"""Turn a container image file into a root file system.

    import ociroot

    with ociroot.open("image.tar") as source:
        image = source.image(platform="linux/amd64")
        report = image.extract("rootfs")
    print(report.config.config.entrypoint, report.config.config.cmd)

Every error is an :class:`OcirootError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.extraction import Report
    from .api.fileinfo import FileInfo
    from .api.filesystem import FileSystem
    from .api.image import Image
    from .api.layer import Layer
    from .api.merged import Merged
    from .api.source import OpenedSource, open
    from .errors import (
        ClosedSource,
        DestinationError,
        LimitExceeded,
        MalformedImage,
        OcirootError,
        PathError,
        PathIsDirectory,
        PathNotDirectory,
        PathNotFound,
        SourceError,
        Unsupported,
        UsageError,
        VerificationError,
    )
    from .images.found import ChosenImage, FoundImage, Listing, NonImage
    from .limits import Limits
    from .notices import ImageWarning
    from .progress import Progress
    from .rootfs.merge import LayerReport
    from .rootfs.nodes import Directory, Node
    from .rootfs.tree import Tree
    from .spec.config import Config
    from .spec.descriptor import Descriptor
    from .spec.digest import Digest
    from .spec.manifest import Manifest
    from .spec.platform import Platform
    from .tar.entry import Entry

__all__ = [
    "ChosenImage",
    "ClosedSource",
    "Config",
    "Descriptor",
    "DestinationError",
    "Digest",
    "Directory",
    "Entry",
    "FileInfo",
    "FileSystem",
    "FoundImage",
    "Image",
    "ImageWarning",
    "Layer",
    "LayerReport",
    "LimitExceeded",
    "Limits",
    "Listing",
    "MalformedImage",
    "Manifest",
    "Merged",
    "Node",
    "NonImage",
    "OcirootError",
    "OpenedSource",
    "PathError",
    "PathIsDirectory",
    "PathNotDirectory",
    "PathNotFound",
    "Platform",
    "Progress",
    "Report",
    "SourceError",
    "Tree",
    "Unsupported",
    "UsageError",
    "VerificationError",
    "__version__",
    "open",
]

__version__ = "0.1.0"

# The module of each name, imported on first use: all of them take 60 ms, which `ociroot --help`
# need not wait for.
_HOMES = {
    "ChosenImage": "images.found",
    "ClosedSource": "errors",
    "Config": "spec.config",
    "Descriptor": "spec.descriptor",
    "DestinationError": "errors",
    "Digest": "spec.digest",
    "Directory": "rootfs.nodes",
    "Entry": "tar.entry",
    "FileInfo": "api.fileinfo",
    "FileSystem": "api.filesystem",
    "FoundImage": "images.found",
    "Image": "api.image",
    "ImageWarning": "notices",
    "Layer": "api.layer",
    "LayerReport": "rootfs.merge",
    "LimitExceeded": "errors",
    "Limits": "limits",
    "Listing": "images.found",
    "MalformedImage": "errors",
    "Manifest": "spec.manifest",
    "Merged": "api.merged",
    "Node": "rootfs.nodes",
    "NonImage": "images.found",
    "OcirootError": "errors",
    "OpenedSource": "api.source",
    "PathError": "errors",
    "PathIsDirectory": "errors",
    "PathNotDirectory": "errors",
    "PathNotFound": "errors",
    "Platform": "spec.platform",
    "Progress": "progress",
    "Report": "api.extraction",
    "SourceError": "errors",
    "Tree": "rootfs.tree",
    "Unsupported": "errors",
    "UsageError": "errors",
    "VerificationError": "errors",
    "open": "api.source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
