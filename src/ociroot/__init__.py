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
    from .api.exporting import ExportReport
    from .api.extraction import Report
    from .api.fileinfo import FileInfo
    from .api.filesystem import FilePredicate, FileSystem
    from .api.image import Image
    from .api.layer import Layer
    from .api.merged import Merged
    from .api.options import ExportOptions, ExtractOptions, SourceOptions
    from .api.owners import AppliedOwners, apply_owners
    from .api.paths import AnyPath
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
        printable,
    )
    from .images.found import (
        ChosenImage,
        FoundImage,
        Listing,
        NonImage,
    )
    from .images.select import ImageSelector
    from .layers.changeset import LayerChange
    from .limits import LimitMeaning, Limits
    from .notices import ImageWarning
    from .outputs.ids import IdMap, IdRange, OwnerMap
    from .outputs.oci.documents import WrittenLayer
    from .outputs.policy import OutputPolicy
    from .outputs.stream.output import Writable
    from .outputs.userns import enter_user_namespace, subordinate_owners
    from .progress import Progress, ProgressCallback
    from .publish.directory import tmpdir_for
    from .rootfs.compare import (
        ConfigDifference,
        Difference,
        Snapshot,
        compare_configs,
    )
    from .rootfs.filter import PathFilter
    from .rootfs.glob import PathPattern, is_glob
    from .rootfs.lookup import Place
    from .rootfs.merge import LayerReport
    from .rootfs.nodes import Directory, Node
    from .rootfs.operations import NoOperations, Operations
    from .rootfs.search import LayerEvent
    from .rootfs.tree import Tree
    from .rootfs.usage import (
        DirectoryUsage,
        FileUsage,
        LayerUsage,
        Usage,
    )
    from .rootfs.walking import DirectoryListing
    from .sources.transports import image_exists
    from .spec.config import (
        Config,
        ExecutionParameters,
        History,
        RootFS,
    )
    from .spec.descriptor import Descriptor
    from .spec.digest import Digest
    from .spec.manifest import Manifest
    from .spec.platform import Platform
    from .tar.entry import Entry, Kind
    from .tar.names import as_bytes, as_text
    from .tar.sparse import Segments
    from .tar.stream import Data

__all__ = [
    "AnyPath",
    "AppliedOwners",
    "ChosenImage",
    "ClosedSource",
    "Config",
    "ConfigDifference",
    "Data",
    "Descriptor",
    "DestinationError",
    "Difference",
    "Digest",
    "Directory",
    "DirectoryListing",
    "DirectoryUsage",
    "Entry",
    "ExecutionParameters",
    "ExportOptions",
    "ExportReport",
    "ExtractOptions",
    "FileInfo",
    "FilePredicate",
    "FileSystem",
    "FileUsage",
    "FoundImage",
    "History",
    "IdMap",
    "IdRange",
    "Image",
    "ImageSelector",
    "ImageWarning",
    "Kind",
    "Layer",
    "LayerChange",
    "LayerEvent",
    "LayerReport",
    "LayerUsage",
    "LimitExceeded",
    "LimitMeaning",
    "Limits",
    "Listing",
    "MalformedImage",
    "Manifest",
    "Merged",
    "NoOperations",
    "Node",
    "NonImage",
    "OcirootError",
    "OpenedSource",
    "Operations",
    "OutputPolicy",
    "OwnerMap",
    "PathError",
    "PathFilter",
    "PathIsDirectory",
    "PathNotDirectory",
    "PathNotFound",
    "PathPattern",
    "Place",
    "Platform",
    "Progress",
    "ProgressCallback",
    "Report",
    "RootFS",
    "Segments",
    "Snapshot",
    "SourceError",
    "SourceOptions",
    "Tree",
    "Unsupported",
    "Usage",
    "UsageError",
    "VerificationError",
    "Writable",
    "WrittenLayer",
    "__version__",
    "apply_owners",
    "as_bytes",
    "as_text",
    "compare_configs",
    "enter_user_namespace",
    "image_exists",
    "is_glob",
    "open",
    "printable",
    "subordinate_owners",
    "tmpdir_for",
]

__version__ = "0.1.0"

# The module of each name, imported on first use: all of them take 60 ms, which `ociroot --help`
# need not wait for.
_HOMES = {
    "AnyPath": "api.paths",
    "AppliedOwners": "api.owners",
    "ChosenImage": "images.found",
    "ClosedSource": "errors",
    "Config": "spec.config",
    "ConfigDifference": "rootfs.compare",
    "Data": "tar.stream",
    "Descriptor": "spec.descriptor",
    "DestinationError": "errors",
    "Difference": "rootfs.compare",
    "Digest": "spec.digest",
    "Directory": "rootfs.nodes",
    "DirectoryListing": "rootfs.walking",
    "DirectoryUsage": "rootfs.usage",
    "Entry": "tar.entry",
    "ExecutionParameters": "spec.config",
    "ExtractOptions": "api.options",
    "ExportOptions": "api.options",
    "ExportReport": "api.exporting",
    "FileInfo": "api.fileinfo",
    "FileSystem": "api.filesystem",
    "FilePredicate": "api.filesystem",
    "FileUsage": "rootfs.usage",
    "FoundImage": "images.found",
    "History": "spec.config",
    "IdMap": "outputs.ids",
    "IdRange": "outputs.ids",
    "Image": "api.image",
    "ImageSelector": "images.select",
    "ImageWarning": "notices",
    "Kind": "tar.entry",
    "Layer": "api.layer",
    "LayerChange": "layers.changeset",
    "LayerEvent": "rootfs.search",
    "LayerReport": "rootfs.merge",
    "LayerUsage": "rootfs.usage",
    "LimitExceeded": "errors",
    "LimitMeaning": "limits",
    "Limits": "limits",
    "Listing": "images.found",
    "MalformedImage": "errors",
    "Manifest": "spec.manifest",
    "Merged": "api.merged",
    "NoOperations": "rootfs.operations",
    "Node": "rootfs.nodes",
    "NonImage": "images.found",
    "OcirootError": "errors",
    "OpenedSource": "api.source",
    "Operations": "rootfs.operations",
    "OutputPolicy": "outputs.policy",
    "OwnerMap": "outputs.ids",
    "PathError": "errors",
    "PathFilter": "rootfs.filter",
    "PathIsDirectory": "errors",
    "PathNotDirectory": "errors",
    "PathNotFound": "errors",
    "PathPattern": "rootfs.glob",
    "Place": "rootfs.lookup",
    "Platform": "spec.platform",
    "Progress": "progress",
    "ProgressCallback": "progress",
    "Report": "api.extraction",
    "RootFS": "spec.config",
    "Segments": "tar.sparse",
    "Snapshot": "rootfs.compare",
    "SourceError": "errors",
    "SourceOptions": "api.options",
    "Tree": "rootfs.tree",
    "Unsupported": "errors",
    "Usage": "rootfs.usage",
    "UsageError": "errors",
    "VerificationError": "errors",
    "Writable": "outputs.stream.output",
    "WrittenLayer": "outputs.oci.documents",
    "apply_owners": "api.owners",
    "as_bytes": "tar.names",
    "as_text": "tar.names",
    "compare_configs": "rootfs.compare",
    "enter_user_namespace": "outputs.userns",
    "image_exists": "sources.transports",
    "is_glob": "rootfs.glob",
    "open": "api.source",
    "printable": "errors",
    "subordinate_owners": "outputs.userns",
    "tmpdir_for": "publish.directory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
