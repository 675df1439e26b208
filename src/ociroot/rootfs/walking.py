"""Paths of a tree walk, built only when they are printed."""

from __future__ import annotations

from collections.abc import Callable

from ..limits import DEFAULTS, Limits

__all__ = ["CurrentPath"]


class CurrentPath:
    """The path of the current entry of a walk.

    A small image can have a thousand files at paths of a megabyte each. So a walk keeps names, and
    builds the text of a path only when it is printed. The limit ``listing`` bounds what is printed.
    """

    def __init__(self, show: Callable[[bytes], str], limits: Limits = DEFAULTS) -> None:
        """Begin at the root.

        Args:
            show: converts a name to text.
            limits: bound the bytes of all the paths that are printed.
        """
        self._show = show
        self._limits = limits
        self._printed = 0
        #: The names of the path.
        self.names: list[bytes] = []
        # The first of them as text, converted on demand.
        self._shown: list[str] = []

    def start(self, path: bytes) -> int:
        """Go to a path.

        Args:
            path: the normalised path from the root.

        Returns:
            Its depth, for :meth:`move`.
        """
        self.names = [name for name in path.split(b"/") if name]
        self._shown.clear()
        return len(self.names)

    def move(self, depth: int, name: bytes) -> None:
        """Go to another entry.

        Args:
            depth: the number of its parent directories; they are the first names of the current
                path, as in any top-down walk.
            name: its name.
        """
        del self.names[depth:]
        del self._shown[depth:]
        self.names.append(name)

    def text(self) -> str:
        """Return the path, with a leading ``/``.

        Raises:
            LimitExceeded: the paths printed so far exceed the limit ``listing``.
        """
        self._shown += map(self._show, self.names[len(self._shown) :])
        text = "/" + "/".join(self._shown)
        self._printed += len(text)
        self._limits.check("listing", self._printed)
        return text
