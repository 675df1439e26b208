"""An image's merged file system, and the contents of its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import located, printable
from ..layers.reading import Plan
from ..notices import ImageWarning
from ..rootfs.merge import LayerReport
from ..rootfs.nodes import Node
from ..rootfs.tree import Tree
from ..sources.source import Source
from ..tar.stream import Stream

__all__ = ["Merged"]


class Merged:
    """An image's merged file system, and the way to the contents of its files.

    Attributes:
        tree: the file system.
        layers: what was applied, in this order; each has its number as ``layer``, as a node has it.
        warnings: what was odd.
    """

    def __init__(
        self,
        source: Source,
        tree: Tree,
        plan: Plan,
        layers: tuple[LayerReport, ...],
        warnings: tuple[ImageWarning, ...],
    ) -> None:
        self._source = source
        self._plan = plan
        self._plain = {each.layer for each in layers if each.compression == "none"}
        self.tree = tree
        self.layers = layers
        self.warnings = warnings

    def __repr__(self) -> str:
        return f"<Merged {printable(self._source.name)} layers={len(self.layers)}>"

    def files(
        self, nodes: Iterable[Node], *, verify: bool = False
    ) -> Iterator[tuple[Node, Stream]]:
        """Go to the contents of regular files, in the order in which the layers hold them.

        Each layer is read at most once. A compressed one is read to its end and verified then:
        what came of it is not to be trusted before the iteration has gone on to a file of another
        layer, or has ended, without an error. Of a plain one only the files are read, in place.
        When the layers were merged they were verified, unless with ``verify=False``; whoever can
        write to the image may have changed them since.

        Args:
            nodes: regular files of the tree; one that is given twice comes once.
            verify: whether plain layers are read to their end and verified, too.

        Yields:
            Each of them, with a stream at its data: ``node.stored_size`` bytes can be read
            from it, and no more.

        Raises:
            VerificationError: a layer is not what it was when the layers were merged.
            OcirootError: a layer cannot be read.
        """
        from ..rootfs.contents import streams  # extraction does without

        self._source.check_open()
        with located(source=self._source.name):
            in_place = self._plain if not verify else ()
            yield from streams(self._plan.layers, in_place, nodes, self._plan.limits)

    def read(self, node: Node) -> Iterator[memoryview]:
        """Yield the content of a regular file, the holes of a sparse one as zeros.

        It is not to be trusted before the iteration has ended without an error; see :meth:`files`.

        Args:
            node: a regular file of the tree.

        Raises:
            VerificationError: its layer is not what it was when the layers were merged.
            OcirootError: its layer cannot be read.
        """
        from ..rootfs.contents import iter_chunks

        for found, stream in self.files([node]):
            yield from iter_chunks(found, stream)
