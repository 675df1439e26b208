"""The pipeline: reads, hashes, decompresses and verifies layers on threads.

    reader     reads a blob in chunks and hashes them          → the digest
    decoder    decompresses them, and fans the result out to   → the compression, the size
    hasher     hashes the uncompressed bytes, and keeps them   → the diff_id, the spool
               where a spool is given
    (caller)   parses and writes, on the caller's own thread

Each stage passes chunks of 1 MiB to the next through a bounded channel, and continues with the next
layer while the caller still processes the last one: the slots of the channels bound the memory. The
codecs and hashlib release the GIL while they process a chunk. Every byte is read and decompressed
once.

A damaged blob first causes an error such as malformed gzip data or a bad header. Its digest is only
known at its end: after a failure the reader continues to there, so that nothing is read twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from ..compression import CHUNK, Meter, decompress, sniff
from ..errors import OcirootError, Unsupported, VerificationError
from ..images.layers import LayerBlob
from ..limits import Limits
from ..sources.blob import checked_chunks
from ..spec.descriptor import LAYER_TYPES
from ..spec.digest import Digest
from .channel import Channel, Closed

if TYPE_CHECKING:
    from .spool import LayerSpool

__all__ = ["LayerContent", "Pipeline", "wrong_digest"]

# Chunks between two stages: at most 4 MiB of compressed and 16 MiB of uncompressed bytes.
_PACKED_SLOTS = 4
_SLOTS = 16
# Smaller outputs are joined: a thread that calls many short functions competes with the writer for
# the GIL.
_GATHER = CHUNK // 4
# How many milliseconds a thread may take to begin.
_MOMENTS = 1000


class LayerContent(msgspec.Struct, frozen=True):
    """The properties of a layer that has been read to its end.

    Attributes:
        layer: the layer as the documents describe it.
        diff_id: the digest of its uncompressed content.
        compression: ``gzip``, ``zstd`` or ``none``.
        unpacked_size: bytes of its uncompressed content.
    """

    layer: LayerBlob
    diff_id: Digest
    compression: str
    unpacked_size: int

    @property
    def as_declared(self) -> bool:
        """Whether its compression is the one that its media type declares."""
        media_type = self.layer.media_type
        return not media_type or LAYER_TYPES[media_type] == self.compression

    def verify(self) -> None:
        """Compare its diff_id with that of the config.

        Raises:
            VerificationError: they differ.
        """
        if self.diff_id != self.layer.diff_id:
            raise VerificationError(
                f"the diff_id is {self.diff_id}, not {self.layer.diff_id}", layer=self.layer.label
            )


class _EndOfBlob(NamedTuple):
    digest: Digest | None  # None: there is no expected digest


class _StartOfLayer(NamedTuple):
    layer: LayerBlob
    kept: bool  # whether its bytes are written to the spool


class _EndOfLayer(NamedTuple):
    compression: str
    unpacked_size: int
    diff_id: Digest | None  # None: the hasher computes it


class Pipeline:
    """Reads layers sequentially; a context manager that stops its threads.

    For each layer in turn: iterate :meth:`chunks` to its end, then call :meth:`finish`.
    """

    def __init__(
        self,
        layers: Sequence[LayerBlob],
        limits: Limits,
        spool: LayerSpool | None = None,
    ) -> None:
        """Create a pipeline.

        Args:
            layers: the layers in reading order.
            limits: bound the memory and the output of decompression.
            spool: keeps the uncompressed bytes of compressed layers; None: they are not kept.
        """
        self._layers = layers
        self._limits = limits
        self._spool = spool
        self._packed: Channel[bytes | _EndOfBlob] = Channel(_PACKED_SLOTS)
        self._unpacked: Channel[bytes | _EndOfLayer] = Channel(_SLOTS)
        self._to_hash: Channel[bytes | _StartOfLayer | None] = Channel(_SLOTS)
        self._diff_ids: Channel[Digest] = Channel(len(layers) + 1)
        # The indexes of the layers whose blobs have been read to the end and verified.
        self._read_whole: Channel[int] = Channel(len(layers) + 1)
        self._channels = (
            self._packed,
            self._unpacked,
            self._to_hash,
            self._diff_ids,
            self._read_whole,
        )
        self._next = 0
        self._end: _EndOfLayer | None = None
        self._closed = False
        # Whether the rest of the blob is only hashed, and no longer decompressed.
        self._hashes_only = False
        #: Bytes of the blobs read so far.
        self.bytes_read = 0
        self._threads = [
            threading.Thread(target=self._run, args=stage, name=f"ociroot-{name}", daemon=True)
            for name, stage in (
                ("reader", (self._read, self._packed, self._read_whole)),
                ("decoder", (self._decode, self._unpacked, self._to_hash)),
                ("hasher", (self._hash, self._diff_ids, self._unpacked)),
            )
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.close()
            raise OcirootError(f"cannot read the layers: {error}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads, and wait for their ends."""
        self._closed = True
        for channel in self._channels:
            channel.close()
            channel.fail(Closed())
        for thread in self._threads:
            _join(thread)

    # The caller's side.

    def chunks(self, tick: Callable[[], None] | None = None) -> Iterator[bytes]:
        """Yield the uncompressed bytes of the next layer.

        Args:
            tick: called before each chunk.

        Raises:
            OcirootError: the layer's bytes cannot be read or decompressed.
        """
        while True:
            item = self._unpacked.get()
            if isinstance(item, _EndOfLayer):
                self._end = item
                return
            if tick is not None:
                tick()
            yield item

    def finish(self) -> LayerContent:
        """Return the properties of the layer after all its chunks have been read.

        The digest of the blob has been verified; the caller verifies the diff_id.
        """
        assert self._end is not None, "chunks() has not been read to its end"  # noqa: S101
        end, layer = self._end, self._layers[self._next]
        diff_id = end.diff_id or self._diff_ids.get()
        self._next += 1
        self._end = None
        return LayerContent(layer, diff_id, end.compression, end.unpacked_size)

    def read_rest(self) -> LayerContent | None:
        """Read the current layer to its end after it could not be applied.

        Returns:
            Its properties; None if it cannot be decompressed, or its digest is wrong.
        """
        try:
            if self._end is None:
                for _ in self.chunks():
                    pass
            return self.finish()
        except OcirootError:
            return None

    def find_wrong_digest(self) -> VerificationError | None:
        """Read the current blob to its end after a failure, and nothing after that.

        It is hashed but not decompressed. Its length is bounded by the size in its descriptor.

        Returns:
            The error if its digest is wrong; None if the digest is correct or unknown, or the blob
            cannot be read.
        """
        if self._layers[self._next].digest is None:
            return None
        self._hashes_only = True
        self._packed.close()
        try:
            while self._read_whole.get() < self._next:
                pass
        except VerificationError as error:
            return error
        except OcirootError:
            return None
        finally:
            self._closed = True
        return None

    # The stages, each on a thread of its own.

    def _run(self, stage: Callable[[], None], *outputs: Channel[Any]) -> None:
        try:
            stage()
        except BaseException as error:  # raised again in the caller
            for channel in outputs:
                channel.fail(error)

    def _read(self) -> None:
        for place, layer in enumerate(self._layers):
            wanted = layer.digest
            hasher = wanted.hasher() if wanted is not None else None
            for chunk in checked_chunks(layer.blob, CHUNK):
                if self._closed:
                    raise Closed
                if not chunk:
                    continue  # to a decoder, it would be the end of the data
                self.bytes_read += len(chunk)
                self._hand_on(chunk)
                if hasher is not None:
                    hasher.update(chunk)
            if wanted is not None and hasher is not None:
                found = Digest(wanted.algorithm, hasher.hexdigest())
                if found != wanted:
                    raise wrong_digest(layer, found)
            self._read_whole.put(place)
            if self._hashes_only:
                return  # the next one is not needed
            self._hand_on(_EndOfBlob(wanted))

    def _hand_on(self, item: bytes | _EndOfBlob) -> None:
        if self._hashes_only:
            return
        try:
            self._packed.put(item)
        except Closed:
            if self._closed:
                raise

    def _blob(self) -> Iterator[bytes]:
        """Yield the chunks of one blob; afterwards its digest is in ``self._digest``."""
        while not isinstance(item := self._packed.get(), _EndOfBlob):
            yield item
        self._digest = item.digest

    def _decode(self) -> None:
        # A manifest may repeat a layer many times, and the archive may be compressed as well.
        meter = Meter(self._limits, max((layer.stored_size for layer in self._layers), default=0))
        for layer in self._layers:
            chunks = self._blob()
            head = next(chunks, b"")
            while 0 < len(head) < 8 and (more := next(chunks, b"")):
                head += more
            compression = sniff(head)
            if compression not in ("gzip", "zstd", "none"):
                raise Unsupported(f"compressed with {compression} (layers have gzip, zstd or none)")
            kept = self._spool is not None and self._spool.wants(layer, compression)
            # The digest of a plain layer is its diff_id.
            hashed = (
                kept
                or compression != "none"
                or layer.digest is None
                or layer.digest.algorithm != layer.diff_id.algorithm
            )
            if hashed:
                self._to_hash.put(_StartOfLayer(layer, kept))
            size = 0
            blob = chain((head,), chunks)
            for chunk in _gathered(decompress(compression, blob, self._limits, meter)):
                size += len(chunk)
                if compression == "none":
                    meter.give(len(chunk))
                if hashed:
                    self._to_hash.put(chunk)
                self._unpacked.put(chunk)
            for _ in chunks:
                pass  # the digest includes padding after the compressed data
            if hashed:
                self._to_hash.put(None)
            self._unpacked.put(_EndOfLayer(compression, size, None if hashed else self._digest))

    def _hash(self) -> None:
        while True:
            start = self._to_hash.get()
            if not isinstance(start, _StartOfLayer):
                raise TypeError(start)
            layer, spool = start.layer, self._spool if start.kept else None
            if spool is not None and not spool.begin(layer):
                spool = None
            hasher = layer.diff_id.hasher()
            while isinstance(chunk := self._to_hash.get(), bytes):
                hasher.update(chunk)
                if spool is not None:
                    spool.write(chunk)
            if spool is not None:
                spool.end()
            self._diff_ids.put(Digest(layer.diff_id.algorithm, hasher.hexdigest()))


def _join(thread: threading.Thread) -> None:
    """Wait for the end of a thread, if it was started.

    A signal handler may raise in ``Thread.start``, before the new thread has begun: it can be
    joined only a moment later. In a window of a few instructions it is listed but never begins.
    """
    for _ in range(_MOMENTS):
        try:
            thread.join()
        except RuntimeError:  # it has not begun
            if thread not in threading.enumerate():
                return
            time.sleep(0.001)
        else:
            return


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Join small chunks: eStargz has a gzip member for each file."""
    parts: list[bytes] = []
    length = 0
    for chunk in chunks:
        if not parts and len(chunk) >= _GATHER:
            yield chunk
            continue
        if chunk:
            parts.append(chunk)
            length += len(chunk)
        if length >= _GATHER:
            yield b"".join(parts)
            parts, length = [], 0
    if parts:
        yield b"".join(parts)


def wrong_digest(layer: LayerBlob, digest: Digest) -> VerificationError:
    """Return the error for a blob whose digest differs from its descriptor's."""
    return VerificationError(
        f"the digest of the blob is {digest}, not {layer.digest}", layer=layer.label
    )
