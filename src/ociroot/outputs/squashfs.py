"""A finished tree as a squashfs image, written by a program that reads a tar archive from a pipe.

Nothing is written twice: the archive flows through the pipe. What the programs do with it differs:

- ``tar2sqfs`` takes the root's attributes from the archive, needs little memory, and writes the
  same bytes from each run.
- ``sqfstar`` and ``mksquashfs - -tar`` need hundreds of megabytes. The root's owner, mode and time
  are given as options, which they heed since 4.6; before that the root would be 0:0 and of today.

No program stores ACLs, which Linux does not know on squashfs, or fractions of seconds. Times are
unsigned and of 32 bits: for an earlier one than 1970 the latter two stop, and for a later one than
2106 they store another one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

import msgspec

from ..errors import Unsupported, UsageError, printable
from ..rootfs.nodes import Directory, Node
from ..tar.stream import Data
from .policy import OutputPolicy
from .stream.fitting import Fitting
from .stream.options import SinkOptions, Write
from .stream.tar import TarSink
from .tool import ToolOutput

__all__ = ["TOOLS", "SquashfsSink", "SquashfsTool", "squashfs_tool"]

_MAGIC = b"hsqs"
# What Linux reads of squashfs's extended attributes.
_XATTRS = (b"user.", b"trusted.", b"security.")
#: The programs, with the Debian packages that have them.
TOOLS = {
    "tar2sqfs": "squashfs-tools-ng",
    "sqfstar": "squashfs-tools",
    "mksquashfs": "squashfs-tools",
}
_LEVELS = {"zstd": (1, 22), "gzip": (1, 9)}
_METHODS = (*_LEVELS, "xz")
_OLDEST = (4, 6)


class SquashfsTool(msgspec.Struct, frozen=True):
    """A program that makes a squashfs image of a tar archive, and how it is called.

    Attributes:
        name: its name.
        path: where it is.
        compression: the method, with the level where one was given.
        options: further options, as the user gives them.
    """

    name: str
    path: str
    compression: str
    options: tuple[str, ...] = ()

    @property
    def keeps_root_xattrs(self) -> bool:
        """Whether the root keeps its extended attributes."""
        return self.name == "tar2sqfs"

    def command(self, root: Node, file: str) -> list[str]:
        """Return its call.

        Args:
            root: the root, with the attributes that it is to have.
            file: the file that it writes.
        """
        method, _, level = self.compression.partition(":")
        if self.name == "tar2sqfs":
            # An entry that it cannot store is an error, and not left out.
            command = [self.path, "--quiet", "--no-skip", "--compressor", method]
            command += ["--comp-extra", f"level={level}"] if level else []
            return [*command, *self.options, file]
        options = ["-quiet", "-no-progress", "-exit-on-error", "-mkfs-time", "0"]
        options += ["-root-mode", f"{root.mode:o}", "-root-uid", str(root.uid)]
        options += ["-root-gid", str(root.gid), "-root-time", str(root.mtime_ns // 10**9)]
        options += ["-comp", method]
        options += ["-Xcompression-level", level] if level else []
        options += self.options
        if self.name == "mksquashfs":
            return [self.path, "-", file, "-tar", *options]
        return [self.path, *options, file]


def squashfs_tool(
    name: str | None, compression: str | None, options: Sequence[str] = ()
) -> SquashfsTool:
    """Find the program.

    Args:
        name: its name; None: tar2sqfs.
        compression: ``zstd``, ``gzip``, with a level after a colon, or ``xz``; None: zstd:3.
        options: further options for it.

    Raises:
        UsageError: there is no such program or compression.
        Unsupported: it is not installed, or too old.
    """
    name = name or "tar2sqfs"
    if name not in TOOLS:
        known = ", ".join(TOOLS)
        raise UsageError(f"unknown tool {printable(name)}: it is one of {known}")
    compression = _compression(compression or "zstd:3")
    path = shutil.which(name)
    if path is None:
        raise Unsupported(
            f"squashfs is written by {name}, which is not installed",
            remedy=f"Debian has it in the package {TOOLS[name]}",
        )
    if name != "tar2sqfs":
        _check_version(name, path)
    return SquashfsTool(name, path, compression, tuple(options))


def _compression(text: str) -> str:
    """Check what a user gives: ``zstd:19``, ``gzip``, ``xz``."""
    method, colon, level = text.partition(":")
    if method not in _METHODS:
        known = ", ".join(_METHODS)
        raise UsageError(f"squashfs is not compressed with {printable(text)}: it is one of {known}")
    if not colon:
        return f"{method}:3" if method == "zstd" else method
    if method not in _LEVELS:
        raise UsageError(f"{method} has no levels in squashfs: {printable(text)}")
    lowest, highest = _LEVELS[method]
    if not level.isascii() or not level.isdigit() or not lowest <= int(level) <= highest:
        raise UsageError(f"the level of {method} is {lowest} to {highest}, not {printable(level)}")
    return f"{method}:{int(level)}"


def _check_version(name: str, path: str) -> None:
    """Refuse a version that gives the root other attributes than it is told."""
    try:
        said = subprocess.run(  # noqa: S603
            [path, "-version"], capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    found = re.search(r"version (\d+)\.(\d+)[\w.-]*", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        what = found[0].removeprefix("version ") if found is not None else "of an unknown version"
        raise Unsupported(
            f"{name} {printable(what)} does not keep the root's owner and time; 4.6 does",
            remedy="tar2sqfs, of the package squashfs-tools-ng, does in any version",
        )


class SquashfsSink:
    """Feeds a tree to the program; see :class:`~ociroot.outputs.sink.Sink`.

    Attributes:
        in_tree_order: see :class:`~ociroot.outputs.sink.Sink`.
    """

    def __init__(
        self, write: Write, options: SinkOptions, output: ToolOutput, tool: SquashfsTool
    ) -> None:
        """Prepare to run the program.

        Args:
            write: called with the next bytes of the archive.
            options: what the output is like.
            output: runs the program.
            tool: the program.
        """
        # The programs read sparse files, and store their holes. What comes to the archive has its
        # final attributes.
        plain = msgspec.structs.replace(options, to_file=True, policy=OutputPolicy())
        self._tar = TarSink(write, plain)
        self._fitting = Fitting(options, _XATTRS)
        self._options = options
        self._output = output
        self._tool = tool
        self.in_tree_order = options.in_tree_order

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        parent = directory.parent
        path = directory.path() if parent is not None else b"."
        fitted = self._fitting.fit(directory, path)
        made = Directory(parent, directory.name, directory.layer)
        made.copy_metadata(fitted)
        if parent is None:
            if fitted.xattrs is not None and not self._tool.keeps_root_xattrs:
                self._options.notices.add("xattrs-unsupported", path)
            self._output.start(self._tool.command(fitted, self._output.file))
        self._tar.make_directory(made)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._tar.make_file(parent, name, self._fitted(parent, name, node), data)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._tar.make_other(parent, name, self._fitted(parent, name, node))

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._tar.make_link(parent, name, self._fitting.fit(node, b"", quiet=True), at)

    def finish(self, root: Directory) -> None:
        """See :class:`~ociroot.outputs.sink.Sink`."""
        self._tar.finish(root)
        self._output.finish(lambda head: head.startswith(_MAGIC))

    def _fitted(self, parent: Directory, name: bytes, node: Node) -> Node:
        return self._fitting.fit(node, parent.path_of(name))
