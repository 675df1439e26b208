"""Diagnosis of a layer that could not be read: damaged, or malformed.

A damaged blob first causes an error such as malformed gzip data or a bad header. Its digest decides
which error is reported, and is computed by reading the blob to its end: an exceeded limit can be
the result of damage, too, and no more is read than for an intact layer.
"""

from __future__ import annotations

from ..compression import CHUNK
from ..errors import LimitExceeded, MalformedImage, OcirootError, Unsupported, VerificationError
from ..images.layers import LayerBlob
from ..sources.blob import checked_chunks
from ..spec.digest import Digest
from .pipeline import Pipeline, wrong_digest

__all__ = ["diagnose", "digest_of"]

# Errors of a layer's content, as opposed to errors of reading or writing.
_OF_CONTENT = (MalformedImage, Unsupported, LimitExceeded)


def diagnose(
    layer: LayerBlob, error: OcirootError, pipeline: Pipeline | None = None
) -> OcirootError:
    """Return the error to report for a layer that could not be read.

    Args:
        layer: the layer.
        error: the error of its content.
        pipeline: the pipeline that reads it, which continues in the same blob; None: the layer was
            read in place, of which only headers were read, so it is now read completely.

    Returns:
        The error, or a VerificationError instead if the digest of the blob is wrong.
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
        pass  # it can no longer be read
    return error


def digest_of(layer: LayerBlob) -> Digest:
    """Compute the digest of a blob.

    Raises:
        VerificationError: it is not the expected one.
        SourceError: the blob cannot be read.
    """
    wanted = layer.digest or layer.diff_id
    hasher = wanted.hasher()
    for chunk in checked_chunks(layer.blob, CHUNK):
        hasher.update(chunk)
    found = Digest(wanted.algorithm, hasher.hexdigest())
    if layer.digest is not None and found != wanted:
        raise wrong_digest(layer, found)
    return found
