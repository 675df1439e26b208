"""The formats of an export, and how one is chosen by the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ..errors import UsageError, printable
from .compress import METHODS, Compression, parse_compression
from .sink import Sink
from .squashfs import SquashfsTool, squashfs_tool
from .stream.cpio import CpioSink
from .stream.options import SinkOptions, Write
from .stream.tar import TarSink

__all__ = ["FORMATS", "IMAGE_FORMATS", "ChosenFormat", "OutputFormat", "chosen_format"]


class OutputFormat(msgspec.Struct, frozen=True):
    """A format that is written from the beginning to the end.

    Attributes:
        suffixes: the endings of file names.
        sink: makes the sink that writes it; None: a program writes it.
        compressed: the endings that stand for one of ``suffixes`` and a compression.
        one_stream: whether it is compressed as one stream or frame.
    """

    suffixes: tuple[str, ...]
    sink: Callable[[Write, SinkOptions], Sink] | None
    compressed: dict[str, str] = {}
    one_stream: bool = False


#: The formats by name.
FORMATS = {
    "tar": OutputFormat(
        (".tar",), TarSink, {".tgz": "gzip", ".tzst": "zstd", ".tzs": "zstd", ".txz": "xz"}
    ),
    "cpio": OutputFormat((".cpio",), CpioSink, one_stream=True),
    "squashfs": OutputFormat((".squashfs", ".sqfs", ".sfs"), None),
}
#: The formats of a whole image, whose layers stay layers. They are chosen by name alone.
IMAGE_FORMATS = ("oci-archive", "oci", "docker-archive")


class ChosenFormat(NamedTuple):
    """The format of an output.

    Attributes:
        name: its name.
        format: the format.
        compression: how it is compressed; None: it is not, or a program does it.
        tool: the program that writes it; None: there is none.
    """

    name: str
    format: OutputFormat
    compression: Compression | None
    tool: SquashfsTool | None = None


def chosen_format(
    file_name: str | None,
    name: str | None,
    compress: str | None,
    tool: str | None = None,
    tool_options: Sequence[str] = (),
) -> ChosenFormat:
    """Return the format and the compression of an output.

    Args:
        file_name: the name of its file; None: it is a stream, and a tar archive unless told.
        name: the format's name; None: by the file's name.
        compress: the compression, as :func:`parse_compression` reads it; None: by the file's name.
        tool: the program that writes it, where one does; None: the first choice.
        tool_options: further options for the program.

    Raises:
        UsageError: they cannot be told, or do not go together.
        Unsupported: the program is not there.
    """
    by_name, compression = _by_file_name(file_name) if file_name is not None else ("tar", None)
    name = name if name is not None else by_name
    if name is None:
        known = ", ".join(suffix for each in FORMATS.values() for suffix in each.suffixes)
        shown = printable(file_name or "")
        raise UsageError(f"{shown}: its name does not end in {known}; --format tells the format")
    if name not in FORMATS:
        known = ", ".join((*FORMATS, *IMAGE_FORMATS))
        raise UsageError(f"unknown format {printable(name)}: it is one of {known}")
    if FORMATS[name].sink is None:
        if file_name is None:
            raise UsageError(f"{name} cannot be written to a stream: the program needs a file")
        found = squashfs_tool(tool, compress, tool_options)
        return ChosenFormat(name, FORMATS[name], None, found)
    if tool is not None or tool_options:
        raise UsageError(f"{name} is written without a program, so there are no options for one")
    if compress is not None:
        compression = parse_compression(compress)
    return ChosenFormat(name, FORMATS[name], compression)


def _by_file_name(file_name: str) -> tuple[str | None, Compression | None]:
    """Return the format and the compression that the ending of a name stands for."""
    lower = file_name.lower()
    method = None
    for name, known in METHODS.items():
        if lower.endswith(known.suffix):
            method, lower = name, lower.removesuffix(known.suffix)
            break
    for name, each in FORMATS.items():
        if lower.endswith(each.suffixes):
            return name, _default(method)
        for suffix, compressed in each.compressed.items():
            if method is None and lower.endswith(suffix):
                return name, _default(compressed)
    return None, _default(method)


def _default(method: str | None) -> Compression | None:
    return None if method is None else parse_compression(method)
