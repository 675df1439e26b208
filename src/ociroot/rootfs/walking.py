"""Walking through a tree without holding the path of everything in it."""

from __future__ import annotations

from collections.abc import Callable

from ..limits import DEFAULTS, Limits

__all__ = ["CurrentPath"]


class CurrentPath:
    """The path of the entry that a walk has come to.

    A small image can have a thousand files at paths of a megabyte each. So a walk holds nodes and
    names, and the text of a path is made when it is printed. What is printed is counted.
    """

    def __init__(self, show: Callable[[bytes], str], limits: Limits = DEFAULTS) -> None:
        """Begin at the root.

        Args:
            show: turns a name into text.
            limits: on the bytes of all the paths that are printed.
        """
        self._show = show
        self._limits = limits
        self._printed = 0
        #: The names of the path.
        self.names: list[bytes] = []
        # The first of them as text, as far as it was needed.
        self._shown: list[str] = []

    def start(self, path: bytes) -> int:
        """Go to a path.

        Args:
            path: from the root, clean.

        Returns:
            How deep it is, for :meth:`move`.
        """
        self.names = [name for name in path.split(b"/") if name]
        self._shown.clear()
        return len(self.names)

    def move(self, depth: int, name: bytes) -> None:
        """Go to another entry.

        Args:
            depth: how many directories it is in; the path of the last one is that of the entry
                before, as in any walk from the top down.
            name: its name.
        """
        del self.names[depth:]
        del self._shown[depth:]
        self.names.append(name)

    def text(self) -> str:
        """Return the path, with a leading ``/``.

        Raises:
            LimitExceeded: together with those before, more than may be printed.
        """
        self._shown += map(self._show, self.names[len(self._shown) :])
        text = "/" + "/".join(self._shown)
        self._printed += len(text)
        self._limits.check("listing", self._printed)
        return text
