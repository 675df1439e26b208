"""The limits on what an image may consume, each with its default and its option.

A few bytes of a hostile image can cost any amount of time, space or memory. Each module enforces
the limits on what it consumes.
"""

from __future__ import annotations

import msgspec

from .errors import LimitExceeded

__all__ = ["DEFAULTS", "MEANINGS", "RATIO_FROM", "UNIT", "LimitMeaning", "Limits"]

#: Uncompressed bytes below which the limit ``ratio`` is not enforced.
RATIO_FROM = 1 << 30
#: Uncompressed bytes per gzip member, zstd frame and the like that is not counted.
UNIT = 4 << 10


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The maximum that an image may consume of each resource.

    Attributes:
        size: bytes of all files of the root file system; a sparse file counts the blocks of 4096
            bytes that contain data. None: the free space of the destination, less a reserve.
        spool: bytes of the temporary file for an archive that is compressed as a whole or read
            from a pipe, and of the one for the compressed layers of a
            :class:`~ociroot.FileSystem`. None: the free space of its directory, less a reserve.
        file_size: bytes of one file, holes included.
        entries: entries of all layers, and the parent directories that they imply.
        layers: layers.
        path: bytes of one path. PATH_MAX of Linux is 4096, but a tree can be deeper than that.
        depth: directory nesting depth, and names walked for one path.
        steps: names walked for the paths of all entries. Through symbolic links, a path of a few
            bytes can take many steps.
        extension: bytes of the extended headers (pax records, long names) of one entry. Go's
            reader, which containerd, podman and umoci use, has the same bound.
        records: pax records, sparse runs, and headers without an entry in all layers; the first
            16 of each entry are not counted.
        xattrs: extended attributes of one entry.
        xattr_size: bytes of one extended attribute's value (XATTR_SIZE_MAX of Linux is 65536).
        sparse_runs: runs of data in one sparse file.
        memory: approximate bytes of memory for the merged tree.
        document: bytes of one JSON document. The distribution-spec ("Pushing Manifests") has
            registries accept manifests of up to 4 megabytes.
        documents: bytes of all JSON documents of a source, and of the descriptors listed from
            its indexes.
        nesting: nesting depth of arrays and objects in a JSON document.
        index_depth: nesting depth of indexes.
        descriptors: descriptors examined while following indexes.
        members: members of the image archive; a long name counts as several.
        window: bytes of memory that a zstd frame or an xz stream needs for decompression.
        ratio: uncompressed bytes of all layers, or of a compressed archive, per compressed byte;
            enforced beyond ``RATIO_FROM`` uncompressed bytes.
        units: gzip members, zstd frames and the like in all layers, or in a compressed archive;
            one per ``UNIT`` uncompressed bytes is not counted.
        listing: bytes of the paths that one command prints or writes to an archive. A tree of a few
            kilobytes can have a million paths of a megabyte each.
    """

    size: int | None = None
    spool: int | None = None
    file_size: int = 1 << 40
    entries: int = 10_000_000
    layers: int = 512
    path: int = 64 << 10
    depth: int = 4096
    steps: int = 20_000_000
    extension: int = 1 << 20
    records: int = 4_000_000
    xattrs: int = 100
    xattr_size: int = 64 << 10
    sparse_runs: int = 1 << 18
    memory: int = 4 << 30
    document: int = 4 << 20
    documents: int = 32 << 20
    nesting: int = 100
    index_depth: int = 8
    descriptors: int = 10_000
    members: int = 200_000
    window: int = 128 << 20
    ratio: int = 500
    units: int = 1_000_000
    listing: int = 2 << 30

    def __post_init__(self) -> None:
        for name, value in msgspec.structs.asdict(self).items():
            if value is None and name in ("size", "spool"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"the limit {name} is {value!r}, and must be an integer")
            if value < 1:
                raise ValueError(f"the limit {name} is {value}, and must be 1 or more")

    def __repr__(self) -> str:
        given = msgspec.structs.asdict(self)
        fields = [each for each in msgspec.structs.fields(self) if given[each.name] != each.default]
        return f"Limits({', '.join(f'{each.name}={given[each.name]!r}' for each in fields)})"

    @staticmethod
    def meanings() -> dict[str, LimitMeaning]:
        """Return what each limit counts, by the limit's name: for options and their help."""
        return MEANINGS.copy()

    def check(self, name: str, value: int) -> None:
        """Compare a value with a limit.

        Args:
            name: the limit's name.
            value: what the image needs.

        Raises:
            LimitExceeded: the value is greater than the limit.
        """
        limit = getattr(self, name)
        if limit is not None and value > limit:
            raise self.exceeded(name, value)

    def exceeded(self, name: str, value: int | None = None) -> LimitExceeded:
        """Return the error for a limit that is exceeded.

        Args:
            name: the limit's name.
            value: what the image needs; None if only known to be more than the limit.
        """
        limit = getattr(self, name)
        came = f"{value} exceeds the limit of" if value is not None else "more than the limit of"
        option = "--max-" + name.replace("_", "-")
        return LimitExceeded(
            f"{MEANINGS[name].what}: {came} {limit}",
            remedy=f"{option} raises the limit",
        )


class LimitMeaning(msgspec.Struct, frozen=True):
    """What a limit counts.

    Attributes:
        what: the quantity, as messages and the help name it.
        unit: ``bytes``, or empty for a plain number.
    """

    what: str
    unit: str = ""


#: What each limit counts, for messages and for the help of the options.
MEANINGS = {
    "size": LimitMeaning("bytes of all files", "bytes"),
    "spool": LimitMeaning("bytes of the temporary file for decompressed data", "bytes"),
    "file_size": LimitMeaning("bytes of one file", "bytes"),
    "entries": LimitMeaning("entries of all layers"),
    "layers": LimitMeaning("layers"),
    "path": LimitMeaning("bytes of a path", "bytes"),
    "depth": LimitMeaning("directory nesting depth"),
    "steps": LimitMeaning("names walked for all paths"),
    "extension": LimitMeaning("bytes of one entry's extended headers", "bytes"),
    "records": LimitMeaning("pax records and sparse runs of all layers, beyond 16 per entry"),
    "xattrs": LimitMeaning("extended attributes of one entry"),
    "xattr_size": LimitMeaning("bytes of an extended attribute", "bytes"),
    "sparse_runs": LimitMeaning("runs of data in a sparse file"),
    "memory": LimitMeaning("bytes of memory for the merged tree", "bytes"),
    "document": LimitMeaning("bytes of a JSON document", "bytes"),
    "documents": LimitMeaning("bytes of all JSON documents", "bytes"),
    "nesting": LimitMeaning("nesting depth of a JSON document"),
    "index_depth": LimitMeaning("nesting depth of indexes"),
    "descriptors": LimitMeaning("descriptors in the indexes"),
    "members": LimitMeaning("members of the archive"),
    "window": LimitMeaning("bytes of memory for decompression", "bytes"),
    "ratio": LimitMeaning("uncompressed bytes per compressed byte"),
    "units": LimitMeaning(
        "gzip members and zstd frames, beyond one per 4 KiB of uncompressed data"
    ),
    "listing": LimitMeaning("bytes of the paths in a listing", "bytes"),
}

#: The default limits.
DEFAULTS = Limits()
