"""What is really wrong with a layer that could not be read as what it should be.

A damaged blob shows first as broken gzip data or a bad header. Then its digest decides what the
error is. It is found by reading on to the blob's end, however large the blob is: a limit that was
exceeded may be the damage, too, and no more is read than for a layer that is sound.
"""

from __future__ import annotations

from ..compression import CHUNK
from ..errors import LimitExceeded, MalformedImage, OcirootError, Unsupported, VerificationError
from ..images.layers import LayerBlob
from ..spec.digest import Digest
from .pipeline import Pipeline, wrong_digest

__all__ = ["diagnose", "digest_of"]

# What a layer's content is refused for; the others are not about what it holds.
_OF_CONTENT = (MalformedImage, Unsupported, LimitExceeded)


def diagnose(
    layer: LayerBlob, error: OcirootError, pipeline: Pipeline | None = None
) -> OcirootError:
    """Say what is really wrong when a layer could not be read as what it should be.

    Args:
        layer: the layer that was being read.
        error: what its content was refused for.
        pipeline: what it was being read by, which reads on in the same blob; None: of a layer that
            was read in place, only headers were read, and now it is read whole.

    Returns:
        The error, or a VerificationError in its place when the blob's digest is not the one wanted.
    """
    error.locate(layer=layer.label)
    if not isinstance(error, _OF_CONTENT) or layer.digest is None:
        return error
    if pipeline is not None:
        return pipeline.find_wrong_digest() or error
    try:
        digest_of(layer)
    except VerificationError as found:
        return found
    except OcirootError:
        pass  # it cannot be read any more
    return error


def digest_of(layer: LayerBlob) -> Digest:
    """Read a blob to its end, and return its digest.

    Raises:
        VerificationError: it is not the one wanted.
        SourceError: it cannot be read.
    """
    wanted = layer.digest or layer.diff_id
    hasher = wanted.hasher()
    for chunk in layer.blob.chunks(CHUNK):
        hasher.update(chunk)
    found = Digest(wanted.algorithm, hasher.hexdigest())
    if layer.digest is not None and found != wanted:
        raise wrong_digest(layer, found)
    return found
