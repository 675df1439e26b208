"""Which paths of a tree are written: patterns as in gitignore(5), by the merged tree.

``exclude`` leaves out what it matches, with all that is below it. ``include`` selects what it
matches, with all that is below it; without one everything is selected. What both match is left out,
whatever the order: as in bsdtar, exclusions take precedence. Directories on the way to something
that is selected are written, with their own attributes, though they are not selected themselves.

A path is a path of the merged tree, which no symbolic link leads to, so that each has one: a
pattern for ``/lib/x`` matches nothing where ``/lib`` is a link to ``usr/lib``. A link is written
or left out by its own path, wherever it leads. Of hard links each name counts by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ..errors import UsageError, quoted
from ..tar.names import as_text
from .nodes import Directory, Node

__all__ = ["PathFilter", "Position", "pruned"]

_Matches = Callable[[str], object]
# What stands for `**` among the names of a pattern.
_ANY = None
# Names of one pattern, and patterns: their product is the work for each name in the tree.
_MAX_NAMES = 100
_MAX_PATTERNS = 1000


class _Pattern:
    """One pattern, as the names that a path must have."""

    def __init__(self, pattern: bytes) -> None:
        text = self.text = as_text(pattern)
        if text.startswith("!"):
            raise UsageError(f"the pattern {quoted(pattern)} begins with '!': write \\! for a name")
        #: Whether it matches directories alone.
        self.only_directories = text.endswith("/")
        body = text.rstrip("/")
        anchored = "/" in body
        parts = [part for part in body.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UsageError(f"the pattern {quoted(pattern)} has '..', which no path has")
        if not parts:
            raise UsageError(f"the pattern {quoted(pattern)} matches nothing")
        if len(parts) > _MAX_NAMES:
            raise UsageError(f"a pattern of more than {_MAX_NAMES} names")
        # gitignore(5): without a slash in it a pattern may match at any level.
        names = parts if anchored else ["**", *parts]
        #: What matches each name; ``_ANY`` stands for any number of names.
        self.names: list[_Matches | None] = []
        for name in names:
            if name != "**":
                self.names.append(_matcher(name, pattern))
            elif not self.names or self.names[-1] is not _ANY:
                self.names.append(_ANY)
        # gitignore(5): "A trailing /** matches everything inside", and not the directory itself.
        if self.names[-1] is _ANY:
            self.names.append(_matcher("*", pattern))

    def start(self) -> int:
        """Return the names that the first name of a path may match, as bits."""
        return self._with_empty(1)

    def step(self, at: int, name: str) -> int:
        """Return which names the next one may match, when one has been gone through."""
        after = 0
        for number, matches in enumerate(self.names):
            if at >> number & 1:
                if matches is _ANY:
                    after |= 1 << number
                elif matches(name):
                    after |= 1 << number + 1
        return self._with_empty(after)

    def _with_empty(self, at: int) -> int:
        """Add the names behind each ``**``, which may stand for no name at all."""
        for number, matches in enumerate(self.names):
            if matches is _ANY and at >> number & 1:
                at |= 1 << number + 1
        return at

    def is_end(self, at: int) -> bool:
        """Say whether all names have been matched."""
        return bool(at >> len(self.names) & 1)


def _matcher(part: str, pattern: bytes) -> _Matches:
    """Return what matches one name: ``*``, ``?``, ``[…]`` and escapes as fnmatch(3) has them.

    Runs of ``*`` match as few characters as they can and never again more (as in fnmatch.translate
    of the standard library), so that no name takes more than the product of the two lengths.
    """
    pieces: list[str] = [""]
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append("")
        elif char == "?":
            pieces[-1] += "."
        elif char == "[" and (end := _class_end(part, at)) > 0:
            pieces[-1] += _class(part[at:end])
            at = end + 1
        else:
            if char == "\\":
                if at == len(part):
                    raise UsageError(f"the pattern {quoted(pattern)} ends with a single '\\'")
                char = part[at]
                at += 1
            pieces[-1] += re.escape(char)
    first, *rest = pieces
    if not rest:
        return re.compile(first, re.DOTALL).fullmatch
    *middle, last = rest
    expression = first + "".join(f"(?>.*?{piece})" for piece in middle) + f".*{last}"
    try:
        return re.compile(expression, re.DOTALL).fullmatch
    except re.error as error:
        raise UsageError(f"the pattern {quoted(pattern)}: {error}") from None


def _class_end(part: str, at: int) -> int:
    """Return where the ``]`` of a class is that begins before ``at``; -1: it has none."""
    first = at + (part[at : at + 1] in ("!", "^"))
    return part.find("]", first + 1)


def _class(text: str) -> str:
    """Return a class of characters as a regular expression."""
    negated = text[:1] in ("!", "^")
    inside = ""
    chars = list(text[1:] if negated else text)
    while chars:
        low = chars.pop(0)
        if len(chars) > 1 and chars[0] == "-":
            high = chars[1]
            del chars[:2]
            if low <= high:  # else it is empty, as in fnmatch(3)
                inside += f"{re.escape(low)}-{re.escape(high)}"
        else:
            inside += re.escape(low)
    if not inside:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{inside}]"


class Position:
    """What is known of a path, when all names on the way to it have been matched.

    Attributes:
        is_out: whether it is left out, with all that may be below it.
        is_in: whether it is written. A directory that is neither is written when something is that
            is below it.
    """

    __slots__ = ("_excludes", "_filter", "_includes", "is_in", "is_out")

    def __init__(
        self,
        path_filter: PathFilter,
        excludes: tuple[int, ...],
        includes: tuple[int, ...],
        is_in: bool,
    ) -> None:
        self._filter = path_filter
        self._excludes = excludes
        self._includes = includes
        self.is_in = is_in
        self.is_out = False

    def below(self, name: bytes, is_directory: bool) -> Position:
        """Return the position of a name in this directory."""
        used = self._filter
        if self.is_out or (self.is_in and not used.excludes):
            return self
        text = as_text(name)
        excludes = tuple(
            pattern.step(at, text) if at else 0
            for pattern, at in zip(used.excludes, self._excludes, strict=True)
        )
        if any(map(used.ends, used.excludes, excludes, [is_directory] * len(excludes))):
            return used.out
        if self.is_in:
            return Position(used, excludes, self._includes, True)
        includes = tuple(
            pattern.step(at, text) if at else 0
            for pattern, at in zip(used.includes, self._includes, strict=True)
        )
        is_in = any(map(used.ends, used.includes, includes, [is_directory] * len(includes)))
        if not is_in and not (is_directory and any(includes)):
            return used.out
        return Position(used, excludes, includes, is_in)


class PathFilter:
    """Which paths of a tree are written.

    Attributes:
        subtree: the directory whose content is written; empty: all.
        out: the position of everything that is left out.
    """

    def __init__(
        self,
        *,
        subtree: bytes = b"",
        excludes: Iterable[bytes] = (),
        includes: Iterable[bytes] = (),
    ) -> None:
        """Take the patterns.

        Args:
            subtree: a path; patterns are matched from the root of the image all the same.
            excludes: patterns of what is left out.
            includes: patterns of what is written; none: everything.

        Raises:
            UsageError: a pattern that can match nothing, or too many of them.
        """
        self.subtree = subtree
        self.excludes = [_Pattern(pattern) for pattern in excludes]
        self.includes = [_Pattern(pattern) for pattern in includes]
        if len(self.excludes) + len(self.includes) > _MAX_PATTERNS:
            raise UsageError(f"more than {_MAX_PATTERNS} patterns")
        self.out = Position(self, (), (), False)
        self.out.is_out = True

    def __repr__(self) -> str:
        excludes, includes = ([p.text for p in each] for each in (self.excludes, self.includes))
        subtree = as_text(self.subtree)
        return f"<PathFilter subtree={subtree!r} excludes={excludes} includes={includes}>"

    def __bool__(self) -> bool:
        """Whether there is anything that it can leave out."""
        return bool(self.subtree or self.excludes or self.includes)

    def moved(self, subtree: bytes) -> PathFilter:
        """Return the same patterns for another subtree."""
        made = PathFilter(subtree=subtree)
        made.excludes, made.includes = self.excludes, self.includes
        return made

    @staticmethod
    def ends(pattern: _Pattern, at: int, is_directory: bool) -> bool:
        """Say whether a pattern matches a path that has been gone through."""
        return pattern.is_end(at) and (is_directory or not pattern.only_directories)

    def start(self) -> Position:
        """Return the position of the root, which is always written."""
        return Position(
            self,
            tuple(pattern.start() for pattern in self.excludes),
            tuple(pattern.start() for pattern in self.includes),
            not self.includes,
        )

    def at(self, names: Sequence[bytes]) -> Position:
        """Return the position of a directory, given as its names."""
        position = self.start()
        for name in names:
            position = position.below(name, True)
        return position


def pruned(top: Directory, path_filter: PathFilter) -> Directory:
    """Return a copy of a directory with what a filter has written of it.

    Directories are copied, other nodes are those of the tree: hard links share theirs still, and
    ``links`` counts the names that are left out, too.

    Args:
        top: the directory at ``path_filter.subtree``.
        path_filter: what is written.
    """
    names = [name for name in top.path().split(b"/") if name]
    made = _copied(top, None, b"")
    todo: list[tuple[Directory, Directory, Position]] = [(top, made, path_filter.at(names))]
    unsure: list[Directory] = []
    while todo:
        directory, copied, position = todo.pop()
        for name, node in directory.entries.items():
            is_directory = isinstance(node, Directory)
            below = position.below(name, is_directory)
            if below.is_out:
                continue
            child: Node = node
            if isinstance(node, Directory):
                child = _copied(node, copied, name)
                todo.append((node, child, below))
                if not below.is_in:
                    unsure.append(child)
            copied.entries[name] = child
    # Parents come before what is in them, so from behind each is seen as it will be.
    for directory in reversed(unsure):
        if not directory.entries and directory.parent is not None:
            del directory.parent.entries[directory.name]
    return made


def _copied(directory: Directory, parent: Directory | None, name: bytes) -> Directory:
    made = Directory(parent, name, directory.layer)
    made.copy_metadata(directory)
    made.own = directory.own
    return made
