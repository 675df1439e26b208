"""Decompression, told by the first bytes: gzip and zstd, and for whole archives xz and bzip2."""

from .formats import decompress, sniff
from .meter import Meter
from .units import CHUNK

__all__ = ["CHUNK", "Meter", "decompress", "sniff"]
