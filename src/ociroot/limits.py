"""What an image may ask for at most: the limits, each with its default and the option that sets it.

An image says what it likes of its sizes and numbers, and a few bytes of it can stand for as much
work, space or memory as whoever made it wishes. Each module enforces the limits on what it
consumes.
"""

from __future__ import annotations

import msgspec

from .errors import LimitExceeded

__all__ = ["DEFAULTS", "MEANINGS", "RATIO_FROM", "UNIT", "Limits", "Meaning"]

#: Bytes that any compressed data may give, whatever its ratio.
RATIO_FROM = 1 << 30
#: Uncompressed bytes for which a gzip member, zstd frame or the like is not counted.
UNIT = 4 << 10


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much an image may ask for.

    Attributes:
        size: bytes of all files of the root file system, of a sparse file those of all blocks of
            4096 bytes that hold data; None: what the destination has free, less a reserve.
        spool: bytes that an archive takes which is compressed as a whole, or comes through a pipe;
            None: what its directory has free, less a reserve.
        file_size: bytes of one file, its holes included.
        entries: entries of all layers, and the directories that they imply.
        layers: layers.
        path: bytes of one path. Linux takes 4095 at once, but a tree can be deeper than that.
        depth: directory nesting depth, and names on the way to a directory.
        steps: names that are looked up on the way to paths, of all entries together: through
            symbolic links, few bytes can stand for a long way.
        extension: bytes of the extended headers (pax records, long names) of one entry. Go's
            reader, which containerd, podman and umoci use, has the same bound.
        records: pax records of all layers, runs of their sparse files, and headers that are no
            entries; but for 16 of each entry.
        xattrs: extended attributes of one entry.
        xattr_size: bytes of one extended attribute's value (Linux has an XATTR_SIZE_MAX of 65536).
        sparse_runs: runs of data in one sparse file.
        memory: bytes of memory that the merged tree takes, roughly.
        document: bytes of one JSON document. The distribution-spec ("Pushing Manifests") has
            registries accept manifests of up to 4 megabytes.
        documents: bytes of all JSON documents of a source, and of what its indexes say of them.
        nesting: arrays and objects in each other in a JSON document.
        index_depth: indexes in each other.
        descriptors: descriptors that are looked at while following indexes.
        members: members of the archive that the image lies in; a long name counts as several.
        window: bytes of memory that a frame of zstd, or a stream of xz, may ask for.
        ratio: uncompressed bytes of all layers, or of a compressed archive, for each byte of the
            file that they come out of, where there are more than ``RATIO_FROM``.
        units: gzip members, zstd frames and the like in all layers, or in a compressed archive,
            beyond one for each ``UNIT`` bytes that come out.
        listing: bytes of the paths that one command prints. A tree of a few kilobytes can have a
            million of them, of a megabyte each.
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
            if value is not None and value < 1:
                raise ValueError(f"the limit {name} is {value}, and must be 1 or more")

    def check(self, name: str, value: int) -> None:
        """Hold a value against a limit.

        Args:
            name: the limit's name.
            value: what the image asks for.

        Raises:
            LimitExceeded: it is more.
        """
        limit = getattr(self, name)
        if limit is not None and value > limit:
            raise self.exceeded(name, value)

    def exceeded(self, name: str, value: int | None = None) -> LimitExceeded:
        """Return what to raise when a limit is exceeded.

        Args:
            name: the limit's name.
            value: what the image asks for; None: more, and nobody knows how much.
        """
        limit = getattr(self, name)
        came = f"{value} exceeds the limit of" if value is not None else "more than the limit of"
        option = "--max-" + name.replace("_", "-")
        return LimitExceeded(
            f"{MEANINGS[name].what}: {came} {limit}",
            remedy=f"{option} raises the limit",
        )


class Meaning(msgspec.Struct, frozen=True):
    """What a limit counts.

    Attributes:
        what: in the words of a message.
        unit: ``bytes``, or empty for a plain number.
    """

    what: str
    unit: str = ""


#: What each limit counts, for messages and for the help of the options.
MEANINGS = {
    "size": Meaning("bytes of all files", "bytes"),
    "spool": Meaning("bytes of a compressed archive, uncompressed", "bytes"),
    "file_size": Meaning("bytes of one file", "bytes"),
    "entries": Meaning("entries of all layers"),
    "layers": Meaning("layers"),
    "path": Meaning("bytes of a path", "bytes"),
    "depth": Meaning("directory nesting depth"),
    "steps": Meaning("names looked up on the way to paths"),
    "extension": Meaning("bytes of one entry's extended headers", "bytes"),
    "records": Meaning("pax records and sparse runs of all layers, beyond 16 for each entry"),
    "xattrs": Meaning("extended attributes of one entry"),
    "xattr_size": Meaning("bytes of an extended attribute", "bytes"),
    "sparse_runs": Meaning("runs of data in a sparse file"),
    "memory": Meaning("bytes of memory for the tree", "bytes"),
    "document": Meaning("bytes of a JSON document", "bytes"),
    "documents": Meaning("bytes of all JSON documents", "bytes"),
    "nesting": Meaning("levels of a JSON document"),
    "index_depth": Meaning("indexes in each other"),
    "descriptors": Meaning("descriptors in the indexes"),
    "members": Meaning("members of the archive"),
    "window": Meaning("bytes of memory to decompress", "bytes"),
    "ratio": Meaning("uncompressed bytes for each compressed one"),
    "units": Meaning("gzip members and zstd frames, beyond one for each 4 KiB that comes out"),
    "listing": Meaning("bytes of the paths in a listing", "bytes"),
}

#: The limits that hold when nobody says otherwise.
DEFAULTS = Limits()
