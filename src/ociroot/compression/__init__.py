"""Detection of the compression and decompression: gzip and zstd; for archives xz and bzip2."""

from .formats import decompress, sniff
from .meter import Meter
from .units import CHUNK

__all__ = ["CHUNK", "Meter", "decompress", "sniff"]
