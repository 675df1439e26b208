"""The client of a second process that writes small files while this one reads the layers.

Creating a small file takes the kernel longer than it takes us to read and check its entry. On one
thread the two add up; on two threads each return from the kernel would wait for the interpreter's
lock. So small files, links and removals are sent to a forked process in batches: the data through
shared memory, the rest through a pipe. Each batch has a slot of the memory, which is free again
when the batch is done. The reading process itself writes directories, large files, and small files
while all slots are in use.

The two processes are not synchronised. Order matters only after a removal, because its name may be
reused: while one is pending, small files and directories are sent after it to the child, and large
files wait for it.

The child is forked by :mod:`~ociroot.outputs.directory.forked.start`, and runs
:mod:`~ociroot.outputs.directory.forked.server`. It exits when its pipe closes, however the parent
has ended, and blocks signals. Both hold the lock on the staging directory until then.
"""

from __future__ import annotations

from ....images.layers import LayerBlob
from ....notices import Notices
from ....rootfs.nodes import Directory, Node
from ....rootfs.tree import Tree
from ....tar.stream import Data
from ..writer import NAME, DirectoryWriter, removals
from . import messages
from .child import Child
from .shared import SLOT, SharedMemory

__all__ = ["OPERATIONS", "ProcessWriter"]

#: The maximum number of operations in a batch.
OPERATIONS = 200
# The maximum size in bytes of a file that is copied to the shared memory.
_SMALL = 64 << 10


class ProcessWriter:
    """Distributes the tree's operations; see :class:`~ociroot.rootfs.operations.Operations`.

    Attributes:
        child: the other process.
    """

    def __init__(
        self, writer: DirectoryWriter, notices: Notices, child: Child, shared: SharedMemory
    ) -> None:
        """Begin with nothing sent; see :func:`~ociroot.outputs.directory.forked.start.writing`."""
        self.child = child
        self._writer = writer
        self._notices = notices
        self._shared = shared
        self._memory = shared.memory
        self._batch: list[messages.Operation] = []
        # The last batch with a removal.
        self._removing = -1
        # The bytes of extended attributes and sparse maps in the batch.
        self._extra = 0
        # The offset in the memory for the batch's next data, and the bytes left in its slot.
        self._at = 0
        self._room = SLOT
        # The numbers of directories in the child. The root is 0, whichever object it is.
        self._numbers: dict[Directory, int] = {}
        self._count = 0
        self._last: Directory | None = None
        self._last_number = 0

    # Operations of the tree.

    def make_directory(self, directory: Directory) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        if not self._in_order():
            self._writer.make_directory(directory)
            return
        self._writer.claim(self._writer.block, directory.parent or directory, directory.name)
        # It may replace something that the child removes; its content must wait, too.
        self._add(("make_directory", self._number(directory)), ordered=True)

    def make_file(self, parent: Directory, name: bytes, node: Node, data: Data) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        size = space = node.size
        if node.segments is not None or node.xattrs is not None:
            size, space = node.stored_size, self._writer.space_of(node)
        in_order = self._removing >= self.child.done and self._in_order()
        if size > _SMALL:
            if in_order:
                self._wait()
            elif size > SLOT:
                self._flush()
            self._writer.make_file(parent, name, node, data)
            return
        number = self._last_number if parent is self._last else self._number(parent)
        full = size > self._room or len(self._batch) >= OPERATIONS
        if full and not self._begin(wait=in_order):
            self._writer.make_file(parent, name, node, data)
            return
        self._writer.claim(space + self._writer.block, parent, name)
        at = self._at
        ready = data.try_read(size)
        if ready is not None:
            self._memory[at : at + size] = ready
        else:
            for piece in data.iter_chunks(size):
                self._memory[at : at + len(piece)] = piece
                at += len(piece)
        self._at += size
        self._room -= size
        self._batch.append(messages.make_file(number, name, node))
        if node.xattrs is not None or node.segments is not None:
            self._weigh(node)

    def make_other(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._writer.claim(self._writer.space_of(node) + self._writer.block, parent, name)
        self._add(messages.make_other(self._number(parent), name, node))
        self._weigh(node)

    def make_link(
        self, parent: Directory, name: bytes, node: Node, at: tuple[Directory, bytes]
    ) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        self._writer.claim(NAME, parent, name)
        self._add(("make_link", self._number(parent), name, self._number(at[0]), at[1]))

    def remove(self, parent: Directory, name: bytes, node: Node) -> None:
        """See :class:`~ociroot.rootfs.operations.Operations`."""
        for holder, below, child in removals(parent, name, node):
            number = None
            if isinstance(child, Directory):
                self._last = None
                self._writer.forget(child)
                number = self._numbers.pop(child, None)
            self._add(("remove_one", self._number(holder), below, child.kind, number), ordered=True)

    def end_layer(self, tree: Tree, layer: LayerBlob) -> None:
        """Mark the end of a layer; see :func:`~ociroot.rootfs.merge.merge`."""
        self._add(("end_layer",))

    def finish(self, root: Directory) -> None:
        """Wait until everything has been done; see :meth:`DirectoryWriter.finish`."""
        self._add(("finish",))
        self._flush()
        for notice in self.child.wait_for_end():
            self._notices.add(*notice)
        self._writer.finish(root)

    def close(self) -> None:
        """Wait until the child has exited, and close all descriptors."""
        try:
            self.child.close()
        finally:
            self._writer.close()

    # Batches.

    def _number(self, directory: Directory) -> int:
        """Return the number of a directory in the child, after sending it its location."""
        if directory is self._last:
            return self._last_number
        missing: list[Directory] = []
        node = directory
        while node.parent is not None and node not in self._numbers:
            missing.append(node)
            node = node.parent
        number = self._numbers[node] if node.parent is not None else 0
        for node in reversed(missing):
            self._count += 1
            self._numbers[node] = self._count
            self._add(("place", self._count, number, node.name))
            number = self._count
        self._last, self._last_number = directory, number
        return number

    def _add(self, operation: messages.Operation, *, ordered: bool = False) -> None:
        """Add an operation to the batch; if ``ordered``, later ones must not overtake it."""
        if len(self._batch) >= OPERATIONS:
            self._flush()
        self._batch.append(operation)
        if ordered:
            self._removing = self.child.sent

    def _weigh(self, node: Node) -> None:
        """Send the batch if its attributes and sparse maps, of any size, have become large."""
        for name, value in (node.xattrs or {}).items():
            self._extra += len(name) + len(value)
        self._extra += 16 * len(node.segments or ())
        if self._extra > SLOT:
            self._flush()

    def _begin(self, *, wait: bool) -> bool:
        """Begin a new batch; return whether there is a slot for its data."""
        self._flush()
        while self.child.sent - self.child.done >= self._shared.slots:
            if not self.child.answered(wait=wait):
                return False
        self._at = self._shared.start(self.child.sent)
        self._room = SLOT
        return True

    def _in_order(self) -> bool:
        """Return whether an operation is pending that must not be overtaken."""
        while self.child.done <= self._removing:
            if not self.child.answered(wait=False):
                return True
        return False

    def _wait(self) -> None:
        """Wait until all operations are done."""
        self._flush()
        self.child.wait_for_all()

    def _flush(self) -> None:
        """Send the batch."""
        if not self._batch:
            return
        self.child.send(self._batch)
        self._batch = []
        self._extra = 0
        self._room = 0
