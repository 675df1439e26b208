"""The catalogue of a source: each document is read once and verified, and not kept.

The steps: read ``index.json``; follow it and nested indexes to manifests; exclude what is not an
image (attestations, artifacts); read the configuration of each image. Or read the ``manifest.json``
of a docker-archive, which refers to files by name. If a source has both,
:mod:`ociroot.images.hybrid` merges them. Unreadable items are listed as such; they are an error
only if they are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import msgspec

from ..errors import MalformedImage, OcirootError, VerificationError, located, printable, quoted
from ..sources.source import Roots, Source
from ..spec.config import Config
from ..spec.descriptor import CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES, Descriptor
from ..spec.digest import Digest
from ..spec.docker import ArchivedImage, decode_manifest
from ..spec.document import decode
from ..spec.index import Index
from ..spec.manifest import Manifest
from ..spec.platform import Platform
from .documents import Documents
from .found import ChosenImage, FoundImage, Listing, NonImage
from .hybrid import Stack, agree, put_together
from .names import full_name

__all__ = ["Catalog", "Entry"]

# The annotations with an image's name: the full name of containerd and Docker, and the one of the
# image-spec, which is often only a tag.
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_ATTESTATION = "vnd.docker.reference.type"
_SUBJECT = "vnd.docker.reference.digest"
# The annotations of an index that apply to all its items.
_INHERITED = (*_NAMES, _ATTESTATION, _SUBJECT)

T = TypeVar("T")


class Entry(NamedTuple):
    """An item of an index that is not an index itself, not read yet.

    Attributes:
        descriptor: its descriptor; None if that is malformed.
        names: its names.
        subject: for an attestation, the digest of the image that it describes; else None.
        error: the reason why its index or descriptor is unreadable, or None.
    """

    descriptor: Descriptor | None
    names: tuple[str, ...]
    subject: str | None = None
    error: OcirootError | None = None

    def may_be_for(self, platforms: Container[tuple[str, str]]) -> bool:
        """Return whether it may be an image for one of these (system, architecture) pairs."""
        if self.subject is not None or self.descriptor is None:
            return False
        platform = self.descriptor.platform
        return platform is None or platform.family in platforms


class Catalog:
    """The catalogue of a source. Each document is read once, however many names it has.

    Attributes:
        source: the source.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._documents = Documents(source)
        self._read: dict[Hashable, Any] = {}

    @cached_property
    def _roots(self) -> Roots:
        return self.source.roots()

    @property
    def is_archive(self) -> bool:
        """Whether the source has the ``manifest.json`` of a docker-archive."""
        return self._roots.manifest is not None

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The items of the source's index and of nested indexes.

        Raises:
            MalformedImage: the index violates the specification.
            LimitExceeded: too many descriptors, indexes nested too deeply, a document too large.
        """
        return tuple(self._followed(self._roots.index)) if self._roots.index is not None else ()

    def listing(self) -> Listing:
        """Return all items of the source.

        Raises:
            MalformedImage: a root document violates the specification, or ``index.json`` and
                ``manifest.json`` contradict each other.
            LimitExceeded: too many descriptors, or too many bytes of documents.
        """
        listed: Sequence[FoundImage | NonImage] = [self._listed(entry) for entry in self.entries]
        if self.is_archive:
            archived = [self._archived(item) for item in self._items()]
            both = self._roots.index is not None
            listed = put_together(listed, archived, self._stack_of) if both else archived
        return Listing.of(listed)

    def listing_of(self, entries: Sequence[Entry]) -> Listing | None:
        """Return a listing of some entries, without reading the others.

        If there is a ``manifest.json`` as well, the entries for the platforms of its images are
        included.

        Returns:
            The listing; None if these entries do not suffice to merge both documents.

        Raises:
            MalformedImage: the two documents contradict each other.
        """
        if not self.is_archive:
            return Listing.of([self._listed(entry) for entry in entries])
        archived = [self._archived(item) for item in self._items()]
        platforms = {each.platform.family for each in archived if isinstance(each, FoundImage)}
        wanted = set(map(id, entries))
        listed = [
            self._listed(entry)
            for entry in self.entries
            if id(entry) in wanted or entry.may_be_for(platforms)
        ]
        names = {full_name(name) for each in self.entries for name in each.names[:1]}
        return Listing.of(listed) if agree(listed, archived, names, self._stack_of) else None

    def load(self, found: FoundImage) -> ChosenImage:
        """Read the documents of an image.

        Args:
            found: the image from a listing.
        """
        documents = Documents(self.source)
        manifest = None
        if found.descriptor is not None:
            manifest = documents.read(found.descriptor, Manifest)
            config = documents.read(manifest.config, Config)
        else:
            image_id, config = documents.read_archived(found.config_name)
            if image_id != found.image_id:
                raise VerificationError(
                    "the file changed while it was read", member=found.config_name
                )
        fields = {name: getattr(found, name) for name in FoundImage.__struct_fields__}
        return ChosenImage(**fields, config=config, manifest=manifest)

    def _once(self, read: Callable[[Any], T], what: Any, key: Hashable) -> T | OcirootError:
        """Call a function once per key; return its result or its error.

        Only the result is cached, not the document: there can be thousands.
        """
        if key not in self._read:
            self._read[key] = self._attempt(read, what)
        outcome: T | OcirootError = self._read[key]
        return outcome

    def _attempt(self, read: Callable[[Any], T], what: Any) -> T | OcirootError:
        """Call a function; return its result or its error.

        Raises:
            LimitExceeded: the limit ``documents`` is exceeded, so no further document can be read.
        """
        try:
            return read(what)
        except OcirootError as error:
            if self._documents.exhausted:
                raise
            # Without its traceback, which would keep the document in memory.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)

    # An OCI image layout.

    def _followed(self, root: str) -> Iterator[Entry]:
        """Follow the indexes, beginning with the root document of this name."""
        limits = self.source.limits
        seen: set[Hashable] = set()
        count = 0
        todo: list[tuple[Iterator[tuple[int, Any]], dict[str, str]]] = [
            (enumerate(self._top(root)), {})
        ]
        while todo:
            children, above = todo[-1]
            number, item = next(children, (-1, None))
            if number < 0:
                todo.pop()
                continue
            count += 1
            limits.check("descriptors", count)
            descriptor = self._attempt(Index.descriptor, item)
            if isinstance(descriptor, OcirootError):
                where = root if len(todo) == 1 else f"an index of {root}"
                yield self._broken(item, number, descriptor, where)
                continue
            said = {k: descriptor.annotations.get(k, above.get(k)) for k in _INHERITED}
            known = {name: text for name, text in said.items() if text is not None}
            self._documents.count(sum(map(len, known.values())))
            # One image may be listed under several names, and for several platforms.
            if (key := (_key(descriptor), descriptor.platform, *said.values())) in seen:
                continue
            seen.add(key)
            index = None
            if descriptor.media_type in INDEX_TYPES:
                limits.check("index_depth", len(todo) + 1)
                index = self._attempt(self._nested, descriptor)
            if isinstance(index, Index):
                todo.append((enumerate(index.manifests), known))
                continue
            names = tuple(dict.fromkeys(known[name] for name in _NAMES if known.get(name)))
            is_attestation = descriptor.is_attestation or _ATTESTATION in known
            subject = known.get(_SUBJECT, "") if is_attestation else None
            yield Entry(descriptor, names, subject, index)

    def _broken(self, item: Any, number: int, error: OcirootError, where: str) -> Entry:
        """Return the entry of a malformed descriptor, with its position in the error."""
        place = f"`$.manifests[{number}]"
        path = "`$" in error.problem
        error.problem = (
            error.problem.replace("`$", place, 1) if path else f"{error.problem} - at {place}`"
        )
        self._documents.count(len(error.problem))
        return Entry(
            None,
            _names_in(item),
            error=error.locate(member=where),
        )

    def _top(self, root: str) -> tuple[Any, ...]:
        with located(member=root):
            content = self._documents.content(root) or b""
            top = decode(content, Index, self.source.limits)
            if top.media_type and top.media_type not in INDEX_TYPES:
                raise MalformedImage(
                    f"mediaType is {quoted(top.media_type[:200])}, not that of an index"
                )
        return top.manifests

    def _nested(self, descriptor: Descriptor) -> Index | None:
        if self.source.blob(descriptor) is None:
            return None
        return self._documents.read(descriptor, Index)

    def _listed(self, entry: Entry) -> FoundImage | NonImage:
        """Return the item of an entry.

        image-layout.md, "index.json file": "An encountered `mediaType` that is unknown MUST NOT
        generate an error."
        """
        if (descriptor := entry.descriptor) is None:
            assert entry.error is not None  # noqa: S101
            return self._other(NonImage("", "", 0, names=entry.names), entry.error)
        what = self._what(entry, descriptor)
        if isinstance(what, FoundImage):
            platform = descriptor.platform or what.platform
            self._count_platform(platform)
            return msgspec.structs.replace(
                what, names=entry.names, platform=platform, descriptor=descriptor
            )
        if isinstance(what, str):
            self._documents.count(len(what))
        other = NonImage(
            "",
            descriptor.digest,
            descriptor.size,
            entry.subject or "",
            entry.names,
            descriptor.platform,
        )
        return self._other(other, what)

    def _what(self, entry: Entry, descriptor: Descriptor) -> FoundImage | OcirootError | str:
        """Return the image without its names, or the reason why it is unreadable, or its kind."""
        if entry.subject is not None:
            return "attestation"
        if entry.error is not None:
            return entry.error
        if descriptor.media_type in INDEX_TYPES:
            return "missing"
        if not descriptor.media_type:
            return MalformedImage("its descriptor has no media type")
        if descriptor.media_type not in MANIFEST_TYPES:
            return descriptor.media_type
        what = self._once(self._manifest, descriptor, ("manifest", _key(descriptor)))
        is_image = isinstance(what, FoundImage)
        return descriptor.artifact_type if is_image and descriptor.artifact_type else what

    def _manifest(self, descriptor: Descriptor) -> FoundImage | str:
        """Read a manifest and, if it is of an image, its configuration."""
        if self.source.blob(descriptor) is None:
            return "missing"
        manifest = self._documents.read(descriptor, Manifest)
        if manifest.artifact_type or manifest.config.media_type not in CONFIG_TYPES:
            return manifest.artifact_type or manifest.config.media_type
        platform = self._once(self._platform, manifest.config, ("config", _key(manifest.config)))
        if isinstance(platform, OcirootError):
            raise platform
        size = sum(layer.size for layer in manifest.layers)
        return FoundImage((), platform, manifest.config.parsed_digest, size=size)

    def _platform(self, descriptor: Descriptor) -> Platform:
        return self._documents.read(descriptor, Config).platform

    # A docker-archive.

    def _items(self) -> tuple[ArchivedImage, ...]:
        with located(member="manifest.json"):
            content = self._documents.content("manifest.json") or b""
            items = decode_manifest(content, self.source.limits)
            self.source.limits.check("descriptors", len(items))
        return items

    def _archived(self, item: ArchivedImage) -> FoundImage | NonImage:
        """Return the listed item for an item of ``manifest.json``."""
        what = self._attempt(self._archived_image, item)
        if isinstance(what, FoundImage):
            self._count_platform(what.platform)
            return what
        return self._other(NonImage("", "", 0, names=item.repo_tags), what)

    def _archived_image(self, item: ArchivedImage) -> FoundImage | str:
        config = self._once(self._archived_config, item.config, ("archived", item.config))
        if isinstance(config, OcirootError):
            raise config
        image_id, platform = config
        self.source.limits.check("layers", len(item.layers))
        blobs = [self.source.member(name) for name in item.layers]
        return FoundImage(
            item.repo_tags,
            platform,
            image_id,
            config_name=item.config,
            members=item.layers,
            size=sum(blob.size for blob in blobs if blob is not None),
        )

    def _archived_config(self, name: str) -> tuple[Digest, Platform]:
        image_id, config = self._documents.read_archived(name)
        return image_id, config.platform

    # Either.

    def _other(self, other: NonImage, what: OcirootError | str) -> NonImage:
        """Set the kind and the error of an item that is not an image."""
        if isinstance(what, OcirootError):
            where = f"{printable(what.member[:200])}: " if what.member else ""
            kind = f"unreadable: {where}{what.problem}"
            return msgspec.structs.replace(other, kind=kind, error=what)
        missing = self.source.missing(Digest.parse(other.digest)) if what == "missing" else None
        return msgspec.structs.replace(other, kind=what, error=missing)

    def _count_platform(self, platform: Platform) -> None:
        """Count the platform of each image, which may be shared by many images."""
        shown = (platform.os, platform.architecture, platform.variant, platform.os_version)
        self._documents.count(sum(map(len, shown)))

    def _stack_of(self, image: FoundImage) -> Stack:
        """Return the blobs of an image's layers."""
        if image.descriptor is None:
            return tuple(map(self.source.member, image.members))
        stack = self._once(self._layers, image.descriptor, ("layers", _key(image.descriptor)))
        if isinstance(stack, OcirootError):
            raise stack
        return stack

    def _layers(self, descriptor: Descriptor) -> Stack:
        layers = self._documents.read(descriptor, Manifest).layers
        self.source.limits.check("layers", len(layers))
        return tuple(self.source.blob(layer) for layer in layers)


def _names_in(item: Any) -> tuple[str, ...]:
    """Return the names in a malformed descriptor."""
    annotations = item.get("annotations") if isinstance(item, dict) else None
    found = [annotations.get(name) for name in _NAMES] if isinstance(annotations, dict) else []
    return tuple(dict.fromkeys(name for name in found if name and isinstance(name, str)))


def _key(descriptor: Descriptor) -> Hashable:
    """Return the key under which a document is cached."""
    return (descriptor.digest, descriptor.media_type, descriptor.size)
