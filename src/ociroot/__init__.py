"""Turn a container image that lies in a file into a root file system.

    import ociroot

    with ociroot.open("image.tar") as source:
        image = source.image(platform="linux/amd64")
        report = image.extract("rootfs")
    print(report.config.config.entrypoint, report.config.config.cmd)

Everything that goes wrong is an :class:`OcirootError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Image, Layer, Merged, OpenedSource, open
    from .errors import (
        DestinationError,
        LimitExceeded,
        MalformedImage,
        OcirootError,
        SourceError,
        Unsupported,
        UsageError,
        VerificationError,
    )
    from .extract import Report
    from .limits import Limits
    from .listing import ChosenImage, FoundImage, Listing, Other
    from .merge import LayerReport, Progress
    from .nodes import Directory, Node
    from .notices import Warning
    from .spec.config import Config
    from .spec.descriptor import Descriptor
    from .spec.digest import Digest
    from .spec.manifest import Manifest
    from .spec.platform import Platform
    from .tar.entry import Entry
    from .tree import Tree

__all__ = [
    "ChosenImage",
    "Config",
    "Descriptor",
    "DestinationError",
    "Digest",
    "Directory",
    "Entry",
    "FoundImage",
    "Image",
    "Layer",
    "LayerReport",
    "LimitExceeded",
    "Limits",
    "Listing",
    "MalformedImage",
    "Manifest",
    "Merged",
    "Node",
    "OcirootError",
    "OpenedSource",
    "Other",
    "Platform",
    "Progress",
    "Report",
    "SourceError",
    "Tree",
    "Unsupported",
    "UsageError",
    "VerificationError",
    "Warning",
    "__version__",
    "open",
]

__version__ = "0.1.0"

# Where each name comes from, imported when it is asked for: all of it takes 60 ms, which `ociroot
# --help` need not wait for.
_HOMES = {
    "ChosenImage": "listing",
    "Config": "spec.config",
    "Descriptor": "spec.descriptor",
    "DestinationError": "errors",
    "Digest": "spec.digest",
    "Directory": "nodes",
    "Entry": "tar.entry",
    "FoundImage": "listing",
    "Image": "api",
    "Layer": "api",
    "LayerReport": "merge",
    "LimitExceeded": "errors",
    "Limits": "limits",
    "Listing": "listing",
    "MalformedImage": "errors",
    "Manifest": "spec.manifest",
    "Merged": "api",
    "Node": "nodes",
    "OcirootError": "errors",
    "OpenedSource": "api",
    "Other": "listing",
    "Platform": "spec.platform",
    "Progress": "merge",
    "Report": "extract",
    "SourceError": "errors",
    "Tree": "tree",
    "Unsupported": "errors",
    "UsageError": "errors",
    "VerificationError": "errors",
    "Warning": "notices",
    "open": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
