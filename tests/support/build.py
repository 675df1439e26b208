"""Build layers and oci-archives for tests byte by byte, so that they can also be malformed.

`tarfile` normalises names and refuses hostile values; the header writer here writes the bytes that
it is given. Nothing of ociroot is used.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform as machine
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import zstandard

Kind = Literal["file", "dir", "symlink", "link", "char", "block", "fifo"]
Format = Literal["pax", "gnu", "ustar"]
Compression = Literal["none", "gzip", "zstd"]
Document = dict[str, Any]

TYPEFLAGS: dict[str, bytes] = {
    "file": b"0",
    "link": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
BLOCK = 512
RECORD = 10240
DEFAULT_MTIME = 1_500_000_000  # not 0, the time of a directory without an entry

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_TYPES: dict[str, str] = {"none": LAYER, "gzip": LAYER + "+gzip", "zstd": LAYER + "+zstd"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
HOST_ARCHITECTURE = _ARCHITECTURES.get(machine.machine(), machine.machine())
HOST = ("linux", HOST_ARCHITECTURE)


@dataclass(frozen=True)
class Member:
    """One entry of a layer; names and targets are written as they are."""

    name: bytes
    kind: Kind = "file"
    data: bytes = b""
    mode: int | None = None  # 0755 for directories, 0777 for symbolic links, else 0644
    uid: int = field(default_factory=os.geteuid)
    gid: int = field(default_factory=os.getegid)
    mtime: Fraction | int = DEFAULT_MTIME
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    pax: dict[bytes, bytes] = field(default_factory=dict)  # more pax records, put last
    typeflag: bytes | None = None  # instead of that of the kind

    @property
    def permissions(self) -> int:
        """The mode in the header."""
        if self.mode is not None:
            return self.mode
        return {"dir": 0o755, "symlink": 0o777}.get(self.kind, 0o644)


@dataclass(frozen=True)
class Layer:
    """A changeset, and how it is stored as a blob."""

    content: bytes | Sequence[Member]  # the bytes of the tar archive, or its members
    compression: Compression = "none"
    media_type: str | None = None  # None: the one that fits the compression
    format: Format = "pax"
    blob: bytes | None = None  # these bytes instead of the compressed tar
    descriptor: Document = field(default_factory=dict)  # overrides in the manifest

    def unpacked(self) -> bytes:
        """The uncompressed tar, whose digest is the diff_id."""
        if isinstance(self.content, bytes):
            return self.content
        return tar(self.content, self.format)

    def packed(self) -> bytes:
        """The blob."""
        return self.blob if self.blob is not None else compress(self.unpacked(), self.compression)


@dataclass(frozen=True)
class Image:
    """One image of an archive: layers, and overrides of every document about them.

    A dict overrides members of the document, where the value `...` removes one; bytes replace the
    whole document.
    """

    layers: Sequence[Layer | bytes | Sequence[Member]]
    config: Document | bytes | None = None
    diff_ids: Sequence[str] | None = None
    manifest: Document | bytes | None = None
    platform: tuple[str, ...] = HOST  # os, architecture and optionally variant
    descriptor: Document = field(default_factory=dict)  # of the manifest, in the index
    config_descriptor: Document = field(default_factory=dict)
    algorithm: str = "sha256"


def file(name: bytes, data: bytes = b"", **rest: Any) -> Member:
    """Return a regular file."""
    return Member(name, "file", data, **rest)


def directory(name: bytes, **rest: Any) -> Member:
    """A directory."""
    return Member(name, "dir", **rest)


def symlink(name: bytes, target: bytes, **rest: Any) -> Member:
    """A symbolic link."""
    return Member(name, "symlink", target=target, **rest)


def link(name: bytes, target: bytes, **rest: Any) -> Member:
    """A hard link."""
    return Member(name, "link", target=target, **rest)


def seconds(nanoseconds: int) -> Fraction:
    """Convert nanoseconds to an mtime in seconds."""
    return Fraction(nanoseconds, 1_000_000_000)


def compress(data: bytes, compression: Compression) -> bytes:
    """Return one gzip member or zstd frame, or the data itself; deterministic."""
    if compression == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return data


def digest(data: bytes, algorithm: str = "sha256") -> str:
    """Return a digest in the form of documents."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def describe(media_type: str, data: bytes, algorithm: str = "sha256", **rest: Any) -> Document:
    """Return a valid descriptor of the data, with `rest` added."""
    size = len(data)
    return {"mediaType": media_type, "digest": digest(data, algorithm), "size": size, **rest}


# -- tar -------------------------------------------------------------------------------------------


def tar(members: Iterable[Member], format: Format = "pax") -> bytes:
    """Return the members as a tar archive, with an end marker and padded to a record."""
    out = io.BytesIO()
    for member in members:
        out.write(entry(member, format))
    out.write(bytes(2 * BLOCK))
    out.write(bytes(-out.tell() % RECORD))
    return out.getvalue()


def entry(member: Member, format: Format = "pax") -> bytes:
    """Return the headers and the data of a member."""
    typeflag = member.typeflag or TYPEFLAGS[member.kind]
    records: dict[bytes, bytes] = {}
    before = b""
    name, prefix, target = member.name, b"", member.target

    if format == "gnu":
        # The link name comes first, as GNU tar writes it.
        if len(target) > 100:
            before += _gnu_long(b"K", target)
        if len(name) > 100:
            before += _gnu_long(b"L", name)
    elif format == "ustar":
        name, prefix = _split(name)
        _must(len(target) <= 100, "ustar: link name too long", member)
    else:
        if len(name) > 100 or not name.isascii():
            records[b"path"] = name
        if len(target) > 100 or not target.isascii():
            records[b"linkpath"] = target

    mtime = member.mtime
    whole = mtime.numerator // mtime.denominator
    if format == "pax":
        for key, value in ((b"uid", member.uid), (b"gid", member.gid)):
            if not 0 <= value < 8**7:
                records[key] = b"%d" % value
        if whole != mtime or not 0 <= whole < 8**11:
            records[b"mtime"] = _decimal(mtime)
        for key, content in member.xattrs.items():
            records[b"SCHILY.xattr." + key] = content
        records.update(member.pax)
    else:
        _must(not member.xattrs and not member.pax, f"{format}: no place for these", member)
        _must(whole == mtime or format == "gnu", "ustar: no fractions", member)

    def number(value: int, width: int) -> bytes:
        if 0 <= value < 8 ** (width - 1):
            return b"%0*o\0" % (width - 1, value)
        if format == "pax" and width != 8:
            return b"%0*o\0" % (width - 1, 0)  # it is in the pax record
        _must(format != "ustar", "ustar: number out of range", member)
        return base256(value, width)

    if records:
        before += _pax_header(records)
    head = header(
        name[:100],
        typeflag,
        mode=b"%07o\0" % member.permissions,
        uid=b"0000000\0" if b"uid" in records else number(member.uid, 8),
        gid=b"0000000\0" if b"gid" in records else number(member.gid, 8),
        size=number(len(member.data), 12),
        mtime=number(whole, 12),
        target=target[:100],
        magic=b"ustar  \0" if format == "gnu" else b"ustar\x0000",
        devmajor=number(member.rdev[0], 8),
        devminor=number(member.rdev[1], 8),
        prefix=prefix,
    )
    return before + head + padded(member.data)


def header(
    name: bytes,
    typeflag: bytes = b"0",
    *,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    size: bytes | int = 0,
    mtime: bytes = b"00000000000\0",
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    devmajor: bytes = b"0000000\0",
    devminor: bytes = b"0000000\0",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """Return a header block from raw fields, with the correct checksum unless one is given."""
    if isinstance(size, int):
        size = b"%011o\0" % size
    start = name.ljust(100, b"\0") + mode + uid + gid + size + mtime
    end = typeflag + target.ljust(100, b"\0") + magic + bytes(64) + devmajor + devminor
    end += prefix.ljust(155, b"\0")
    total = sum(start) + 8 * 0x20 + sum(end)
    block = start + (b"%06o\0 " % total if checksum is None else checksum) + end
    if len(block) != 500:
        raise ValueError(f"a field of {name!r} has the wrong width")
    return block.ljust(BLOCK, b"\0")


def padded(data: bytes) -> bytes:
    """Return the data padded to a block."""
    return data + bytes(-len(data) % BLOCK)


def base256(value: int, width: int) -> bytes:
    """Return a number in GNU tar's base-256: first bit set, then two's complement."""
    raw = bytearray(value.to_bytes(width, "big", signed=True))
    raw[0] |= 0x80
    return bytes(raw)


def pax_records(records: dict[bytes, bytes]) -> bytes:
    """Return records of length, key and value; the length includes itself."""
    lines = []
    for key, value in records.items():
        rest = b" %b=%b\n" % (key, value)
        length = len(rest)
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        lines.append(b"%d%b" % (length, rest))
    return b"".join(lines)


def pax_global(records: dict[bytes, bytes]) -> bytes:
    """Return a global extended header."""
    data = pax_records(records)
    return header(b"pax_global_header", b"g", size=len(data)) + padded(data)


def _pax_header(records: dict[bytes, bytes]) -> bytes:
    data = pax_records(records)
    return header(b"PaxHeaders.0/member", b"x", size=len(data)) + padded(data)


def _gnu_long(typeflag: bytes, text: bytes) -> bytes:
    head = header(b"././@LongLink", typeflag, size=len(text) + 1, magic=b"ustar  \0")
    return head + padded(text + b"\0")


def _split(name: bytes) -> tuple[bytes, bytes]:
    if len(name) <= 100:
        return name, b""
    for at in range(min(155, len(name) - 1), 0, -1):
        if name[at : at + 1] == b"/" and 0 < len(name) - at - 1 <= 100:
            return name[at + 1 :], name[:at]
    raise ValueError(f"ustar: name too long: {name!r}")


def _decimal(value: Fraction | int) -> bytes:
    sign = b"-" if value < 0 else b""
    nanoseconds = abs(Fraction(value)) * 10**9
    if nanoseconds.denominator != 1:
        raise ValueError(f"finer than a nanosecond: {value}")
    whole, rest = divmod(int(nanoseconds), 10**9)
    return sign + b"%d" % whole + (b".%09d" % rest).rstrip(b"0").rstrip(b".")


def _must(condition: bool, what: str, member: Member) -> None:
    if not condition:
        raise ValueError(f"{what}: {member}")


# -- archives --------------------------------------------------------------------------------------


def archive(
    path: Path,
    layers: Sequence[Layer | bytes | Sequence[Member]],
    *,
    config: Document | bytes | None = None,
    diff_ids: Sequence[str] | None = None,
    manifest: Document | bytes | None = None,
    platform: tuple[str, ...] = HOST,
    descriptor: Document | None = None,
    config_descriptor: Document | None = None,
    algorithm: str = "sha256",
    **rest: Any,
) -> Path:
    """Write an oci-archive with one image (`rest` goes to `archive_of`)."""
    image = Image(
        layers,
        config,
        diff_ids,
        manifest,
        platform,
        descriptor or {},
        config_descriptor or {},
        algorithm,
    )
    return archive_of(path, [image], **rest)


def archive_of(
    path: Path,
    images: Sequence[Image],
    *,
    index: Document | bytes | None = None,
    layout: Document | bytes | None = None,
    blobs: dict[str, bytes | None] | None = None,
    prefix: bytes = b"",
    directories: bool = True,
    files: dict[bytes, bytes | None] | None = None,
) -> Path:
    """Write an oci-archive of several images.

    `blobs` adds blobs or replaces their content, by digest, and `files` does so by name; None
    removes one. `prefix` precedes every name (`b"./"`), and `directories` adds entries for the
    directories.
    """
    store: dict[str, bytes | None] = {}
    manifests = [_add_image(store, image) for image in images]
    store.update(blobs or {})
    top = _document({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, index)
    content: dict[bytes, bytes | None] = {
        b"oci-layout": _document({"imageLayoutVersion": "1.0.0"}, layout),
        b"index.json": top,
    }
    for name, blob in store.items():
        content[b"blobs/" + name.replace(":", "/", 1).encode()] = blob
    content.update(files or {})
    with path.open("wb") as out:
        if directories:
            algorithms = {name.partition(":")[0].encode() for name in store}
            for name_ in [b"blobs/", *(b"blobs/%b/" % one for one in sorted(algorithms))]:
                out.write(entry(Member(prefix + name_, "dir"), "ustar"))
        for member, data in content.items():
            if data is not None:
                out.write(entry(Member(prefix + member, data=data), "gnu"))
        out.write(bytes(2 * BLOCK))
        out.write(bytes(-out.tell() % RECORD))
    return path


def unpacked(archive: Path, layout: Path) -> Path:
    """Unpack an oci-archive to a layout directory."""
    # Debian 12's Python has no extraction filters; later versions warn without one.
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                path = layout / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    return layout


def as_layer(layer: Layer | bytes | Sequence[Member]) -> Layer:
    """Return the layer itself, or an uncompressed one from its bytes or members."""
    return layer if isinstance(layer, Layer) else Layer(layer)


def _add_image(store: dict[str, bytes | None], image: Image) -> Document:
    """Add an image's blobs to the store; return the descriptor of its manifest."""

    def put(media_type: str, data: bytes, overrides: Document) -> Document:
        store[digest(data, image.algorithm)] = data
        return _override(describe(media_type, data, image.algorithm), overrides)

    layers = [as_layer(layer) for layer in image.layers]
    descriptors = []
    for layer in layers:
        media_type = layer.media_type or LAYER_TYPES[layer.compression]
        descriptors.append(put(media_type, layer.packed(), layer.descriptor))
    diff_ids = image.diff_ids
    if diff_ids is None:
        diff_ids = [digest(layer.unpacked()) for layer in layers]
    keys = ("os", "architecture", "variant")
    platform = dict(zip(keys, image.platform, strict=False))
    config: Document = {
        "created": "2024-01-01T00:00:00Z",
        **platform,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    config_blob = _document(config, image.config)
    manifest: Document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(CONFIG, config_blob, image.config_descriptor),
        "layers": descriptors,
    }
    blob = _document(manifest, image.manifest)
    return put(MANIFEST, blob, {"platform": platform, **image.descriptor})


def _override(document: Document, overrides: Document) -> Document:
    return {key: value for key, value in {**document, **overrides}.items() if value is not ...}


def _document(document: Document, overrides: Document | bytes | None) -> bytes:
    if isinstance(overrides, bytes):
        return overrides
    return json.dumps(_override(document, overrides or {})).encode()
