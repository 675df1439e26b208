"""The outputs that the suites run over. A new one adds a line to `OPERATIONS`, `SINKS` or `LOSSY`.

Each is a function that begins it in an empty directory, and closes it at the end, in whatever state
it is then. `capacity` is how many bytes there is space for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import ociroot
from ociroot.limits import DEFAULTS, Limits
from ociroot.notices import Notices
from ociroot.outputs.directory.forked.start import writing
from ociroot.outputs.directory.writer import DirectoryWriter
from ociroot.outputs.final import FinalOperations
from ociroot.outputs.ids import OwnerMap
from ociroot.outputs.policy import OutputPolicy
from ociroot.outputs.shape import Shape
from ociroot.outputs.sink import Sink
from ociroot.outputs.squashfs import SquashfsSink, squashfs_tool
from ociroot.outputs.stream.cpio import CpioSink
from ociroot.outputs.stream.options import SinkOptions
from ociroot.outputs.stream.output import FileOutput
from ociroot.outputs.stream.tar import TarSink
from ociroot.outputs.tool import ToolOutput
from ociroot.rootfs.filter import PathFilter
from ociroot.rootfs.nodes import Directory
from ociroot.rootfs.operations import Operations
from tests.support.build import archive
from tests.support.mounts import mounted
from tests.support.needs import need_tools
from tests.support.shapes import held, unpack
from tests.support.snapshot import Snapshot, snapshot

from .memory import MemoryOutput

T = TypeVar("T", bound="Operations | Sink", covariant=True)


@dataclass(frozen=True)
class Begun(Generic[T]):
    """An output that has been begun.

    Attributes:
        output: the output.
        publish: does what is left once it is finished, given the root.
        snapshot: returns what it holds.
        notices: what it has told.
        holds: returns what it can hold of a tree, and the warnings that count the rest.
    """

    output: T
    publish: Callable[[Directory], None]
    snapshot: Callable[[], Snapshot]
    notices: Notices
    holds: Callable[[Snapshot], tuple[Snapshot, set[str]]] = lambda tree: (tree, set())


class Begin(Protocol[T]):
    """What begins an output in a directory, with space for that many bytes; None: for all."""

    def __call__(self, place: Path, capacity: int | None) -> AbstractContextManager[Begun[T]]: ...


@contextmanager
def _root(place: Path, capacity: int | None) -> Iterator[tuple[Path, int]]:
    """An empty directory of that capacity, and its descriptor."""
    if capacity is None:
        (place / "root").mkdir(0o700)
        yield from _opened(place / "root")
    else:
        with mounted(place / "root", "-t", "tmpfs", "-o", f"size={capacity}", "tmpfs") as root:
            yield from _opened(root)


def _opened(root: Path) -> Iterator[tuple[Path, int]]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield root, fd
    finally:
        os.close(fd)


@contextmanager
def directory(place: Path, capacity: int | None) -> Iterator[Begun[DirectoryWriter]]:
    """The directory writer, in one process."""
    notices = Notices()
    with _root(place, capacity) as (root, fd):
        writer = DirectoryWriter(fd, notices)

        try:
            yield Begun(
                writer, lambda tree: writer.finish_root(fd, tree), lambda: snapshot(root), notices
            )
        finally:
            writer.close()


@contextmanager
def two_processes(place: Path, capacity: int | None) -> Iterator[Begun[Operations]]:
    """The directory writer, in two processes."""
    notices = Notices()
    with _root(place, capacity) as (root, fd):
        writer = DirectoryWriter(fd, notices)

        with writing(writer, notices, ()) as process:
            yield Begun(
                process, lambda tree: writer.finish_root(fd, tree), lambda: snapshot(root), notices
            )


@contextmanager
def filtered(place: Path, capacity: int | None) -> Iterator[Begun[Operations]]:
    """The directory writer behind a filter and a map, of which neither changes anything."""
    owners = OwnerMap.parse("0:0:4294967295", "0:0:4294967295")
    path_filter = PathFilter(includes=[b"*"], excludes=[b"no/name/of/the/suites"])
    shape = Shape(policy=OutputPolicy(owners=owners), filter=path_filter)
    with directory(place, capacity) as begun:
        output = FinalOperations(begun.output, begun.notices, shape, lambda _: iter(()), Limits())
        yield Begun(output, lambda _: begun.publish(output.root), begun.snapshot, begun.notices)


def in_memory(*, in_tree_order: bool) -> Begin[MemoryOutput]:
    """The tests' own, which asserts what outputs may rely on."""

    @contextmanager
    def begin(place: Path, capacity: int | None) -> Iterator[Begun[MemoryOutput]]:
        output = MemoryOutput(in_tree_order=in_tree_order, capacity=capacity)
        yield Begun(output, lambda _: None, output.snapshot, Notices())

    return begin


def tar(*, in_tree_order: bool) -> Begin[TarSink]:
    """A tar archive, which is extracted as a layer of an image to look at it."""

    @contextmanager
    def begin(place: Path, capacity: int | None) -> Iterator[Begun[TarSink]]:
        notices = Notices()
        options = SinkOptions(
            policy=OutputPolicy(),
            limits=DEFAULTS,
            notices=notices,
            unpacked=0,
            in_tree_order=in_tree_order,
            to_file=True,
        )
        with _root(place, capacity) as (root, fd), ExitStack() as stack:
            output = FileOutput(fd, b"out.tar", reserved=False)
            stack.callback(output.abandon)

            def extracted() -> Snapshot:
                image = archive(place / "image", [(root / "out.tar").read_bytes()])
                deep = ociroot.SourceOptions(limits=ociroot.Limits(depth=1 << 20))
                with ociroot.open(image, deep) as source:
                    source.image().extract(place / "rootfs")
                return snapshot(place / "rootfs")

            yield Begun(
                TarSink(output.write, options), lambda _: output.close(), extracted, notices
            )

    return begin


def _options(notices: Notices) -> SinkOptions:
    return SinkOptions(policy=OutputPolicy(), limits=DEFAULTS, notices=notices, unpacked=1 << 40)


@contextmanager
def cpio(place: Path, capacity: int | None) -> Iterator[Begun[CpioSink]]:
    """A cpio archive, which bsdcpio unpacks; it does not restore the root's time."""
    notices = Notices()
    with _root(place, capacity) as (root, fd), ExitStack() as stack:
        output = FileOutput(fd, b"out.cpio", reserved=False)
        stack.callback(output.abandon)

        def without_root_time(tree: Snapshot) -> Snapshot:
            return tree | {b".": replace(tree[b"."], mtime_ns=0)}

        def holds(tree: Snapshot) -> tuple[Snapshot, set[str]]:
            held_, losses = held("cpio", tree)
            return without_root_time(held_), losses

        yield Begun(
            CpioSink(output.write, _options(notices)),
            lambda _: output.close(),
            lambda: without_root_time(unpack("bsdcpio", root / "out.cpio", place / "unpacked")),
            notices,
            holds,
        )


@contextmanager
def squashfs(place: Path, capacity: int | None) -> Iterator[Begun[SquashfsSink]]:
    """A squashfs image by tar2sqfs, which unsquashfs unpacks."""
    need_tools("tar2sqfs")
    notices = Notices()
    with _root(place, capacity) as (root, fd), ExitStack() as stack:
        output = ToolOutput(fd, b"out.sqfs", reserved=False)
        stack.callback(output.abandon)
        tool = squashfs_tool(None, None)
        yield Begun(
            SquashfsSink(output.write, _options(notices), output, tool),
            lambda _: None,
            lambda: unpack("unsquashfs", root / "out.sqfs", place / "unpacked"),
            notices,
            lambda tree: held("squashfs", tree),
        )


OPERATIONS: dict[str, Begin[Operations]] = {
    "directory": directory,
    "directory, two processes": two_processes,
    "directory, filtered and mapped": filtered,
    "memory": in_memory(in_tree_order=False),
}
SINKS: dict[str, Begin[Sink]] = {
    "directory": directory,
    "memory, in tree order": in_memory(in_tree_order=True),
    "memory, in layer order": in_memory(in_tree_order=False),
    "tar": tar(in_tree_order=True),
    "tar, in layer order": tar(in_tree_order=False),
}
#: Those that cannot hold everything, nor paths of any length, and of which a program may write one.
LOSSY: dict[str, Begin[Sink]] = {"cpio": cpio, "squashfs": squashfs}
