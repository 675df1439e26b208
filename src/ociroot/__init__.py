"""Turn a container image that lies in a file into a root file system.

    import ociroot

    with ociroot.open("image.tar") as source:
        image = source.image(platform="linux/amd64")
        report = image.extract("rootfs")
    print(report.config.config.entrypoint, report.config.config.cmd)

Everything that goes wrong is an :class:`OcirootError`.
"""

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
from .listing import FoundImage, Listing, Other
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
