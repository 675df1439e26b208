"""How the package is put together: who may import whom, how long things are, what is public."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import typing
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import ociroot

SOURCE = Path(ociroot.__file__).parent

BASE = {"errors", "limits", "notices", "progress", "linux", "fhs", "space"}

# Which parts of the package a part may import, itself apart: from what a document may say to what a
# user sees, as bytes flow. docs/design.md gives the reasons.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "linux": set(),
    "fhs": set(),
    "progress": set(),
    "limits": {"errors"},
    "notices": {"errors"},
    "space": {"errors", "linux"},
    "spec": BASE,
    "tar": BASE,
    "compression": BASE,
    "sources": BASE | {"spec", "tar", "compression"},
    "images": BASE | {"spec", "compression", "sources"},
    "layers": BASE | {"spec", "tar", "compression", "sources", "images"},
    "rootfs": BASE | {"spec", "tar", "compression", "sources", "images", "layers"},
    # A place for a result, of which it need not know what it is.
    "publish": BASE,
    # `outputs.oci` writes documents, and copies and verifies blobs.
    "outputs": BASE
    | {"spec", "tar", "compression", "sources", "images", "layers", "rootfs", "publish"},
    "api": BASE
    | {"spec", "tar", "compression", "sources", "images", "layers", "rootfs", "publish", "outputs"},
    # Only names of ociroot.__all__, which test_the_commands_use_the_public_api_alone holds.
    "cli": set(),
    # Another interface, which opens images by the public API and spools what is fetched.
    "fsspec": BASE | {"compression", "sources", "api"},
}

# The one module that may use ctypes: what Python lacks of Linux.
CTYPES = "linux"
LINES = 400
# What the docstring of a longer file says, and then why.
LONG = f"More than {LINES} lines, since"
ARGUMENTS = 7

# Public methods of exported classes that modules of the package call, and users do not.
INTERNAL = {
    # `rootfs.merge` builds the tree; what users get is finished.
    ("Tree", "apply"),
    ("Tree", "lookup"),
    ("PathPattern", "matches_names"),
    # Outputs ask it how a walk goes on.
    ("PathFilter", "at"),
    ("PathFilter", "ends"),
    ("PathFilter", "start"),
}
# Where a user says which limits hold: SourceOptions, and what reads no source.
LIMITS_BEGIN = ("api.options", "api.owners")
# Exported classes that users get from others and do not make: their constructors are internal.
MADE_BY_US = {
    "DirectoryListing",
    "FileSystem",
    "Image",
    "Layer",
    "Merged",
    "OpenedSource",
    "Tree",
    "Usage",
}


class Import(NamedTuple):
    """An import of something of the package.

    Attributes:
        module: the module, without the package's name; empty: the package itself.
        name: what of it; None: the module.
    """

    module: str
    name: str | None


def _modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
PARTS = [name for name in MODULES if name not in ("", "__main__")]


def imports(module: str) -> Iterator[Import]:
    """Yield what a module imports of the package, in functions and for type checkers, too."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(TREES[module]):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        for alias in node.names:
            path = ".".join(filter(None, [*base, alias.name]))
            if path in MODULES:
                yield Import(path, None)
            else:
                yield Import(".".join(filter(None, base)), alias.name)


def part(module: str) -> str:
    return module.partition(".")[0]


def test_every_part_has_a_rule() -> None:
    assert {part(name) for name in PARTS} == set(MAY_IMPORT)
    # Whoever may be imported stands above: the rules themselves are without a cycle.
    order = list(MAY_IMPORT)
    for name, allowed in MAY_IMPORT.items():
        above = set(order[: order.index(name)]) | (BASE - {name} if name in BASE else set())
        assert allowed <= above, name


@pytest.mark.parametrize("module", PARTS)
def test_no_import_upward(module: str) -> None:
    wrong = {
        each.module
        for each in imports(module)
        if part(each.module) not in MAY_IMPORT[part(module)] | {part(module)}
    }
    if part(module) == "cli":
        wrong -= {""}
    assert wrong == set()


@pytest.mark.parametrize("module", [name for name in PARTS if part(name) == "cli"])
def test_the_commands_use_the_public_api_alone(module: str) -> None:
    for each in imports(module):
        if each.module == "":
            assert each.name in ociroot.__all__
        else:
            assert part(each.module) == "cli"


def test_no_cycle() -> None:
    """Imports in functions count: they are for speed, and hide no cycle."""
    graph = {name: {each.module for each in imports(name)} - {""} for name in PARTS}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in sorted(graph[name] - {name}):
                visit(other, (*way, name))
            done.add(name)

    for name in PARTS:
        visit(name, ())


@pytest.mark.parametrize("module", MODULES)
def test_ctypes_is_in_one_module(module: str) -> None:
    names: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    assert "ctypes" not in names or module == CTYPES


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_long_without_a_reason(module: str) -> None:
    lines = MODULES[module].read_text().count("\n")
    assert lines <= LINES or LONG in (ast.get_docstring(TREES[module]) or ""), lines


def _functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


@pytest.mark.parametrize("module", MODULES)
def test_no_function_has_many_arguments(module: str) -> None:
    for node in _functions(module):
        given = node.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names = [name for name in names if name not in ("self", "cls")]
        assert len(names) <= ARGUMENTS, (getattr(node, "name", "lambda"), names)


def _is_limits(value: ast.expr) -> bool:
    names = {each.id for each in ast.walk(value) if isinstance(each, ast.Name)}
    return bool(names & {"DEFAULTS", "Limits"})


@pytest.mark.parametrize("module", [name for name in MODULES if name not in LIMITS_BEGIN])
def test_limits_have_no_hidden_default(module: str) -> None:
    """They come from the outermost: nowhere else are limits left to a default."""
    for node in _functions(module):
        defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        for default in defaults:
            assert not _is_limits(default), getattr(node, "name", "lambda")
    for cls in (each for each in ast.walk(TREES[module]) if isinstance(each, ast.ClassDef)):
        for field in (each for each in cls.body if isinstance(each, ast.AnnAssign)):
            assert field.value is None or not _is_limits(field.value), cls.name


# What is public.


def _classes(hint: Any) -> Iterator[type]:
    """Yield the classes of the package that an annotation names, however deep."""
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        if hint.__module__.partition(".")[0] == "ociroot":
            yield hint
    elif isinstance(hint, list | tuple):
        for each in hint:
            yield from _classes(each)
    elif typing.get_origin(hint) is not None:
        for each in typing.get_args(hint):
            yield from _classes(each)


class _Names(dict[str, Any]):
    """Names of a module; what type checkers alone import from elsewhere is anything."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _names(module: ModuleType) -> _Names:
    """Return the names that an annotation in a module may have, those of type checkers too."""
    public = {name: getattr(ociroot, name) for name in ociroot.__all__}
    imported: dict[str, Any] = {}
    for node in ast.walk(TREES[module.__name__.removeprefix("ociroot").lstrip(".")]):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module.__name__.rsplit(".", node.level)[0]
            source = import_module(f"{package}.{node.module}" if node.module else package)
            imported |= {a.name: getattr(source, a.name, None) for a in node.names}
    names = {**imported, **public, **vars(module)}
    # An alias that is written as text.
    aliases = {k: typing.ForwardRef(v) for k, v in names.items() if type(v) is str and " | " in v}
    return _Names(names | aliases)


def _hints(thing: Any) -> dict[str, Any]:
    module = sys.modules[thing.__module__]
    return typing.get_type_hints(thing, globalns=vars(module), localns=_names(module))


def _signatures(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the annotations of a public name: arguments, results, and public attributes."""
    thing = getattr(ociroot, name)
    if not isinstance(thing, type):
        if callable(thing) and inspect.isfunction(thing):
            yield from _hints(thing).items()
        elif not isinstance(thing, str):
            yield name, thing
        return
    for each, hint in _hints(thing).items():
        if not each.startswith("_"):
            yield each, hint
    for attribute, value in vars(thing).items():
        made = attribute == "__init__" and name not in MADE_BY_US
        if (attribute.startswith("_") and not made) or (name, attribute) in INTERNAL:
            continue
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if inspect.isfunction(value) and value.__module__.startswith("ociroot"):
            yield from ((f"{attribute}({each})", hint) for each, hint in _hints(value).items())


@pytest.mark.parametrize("name", sorted(set(ociroot.__all__) - {"__version__"}))
def test_every_name_in_a_public_signature_is_exported(name: str) -> None:
    public = {getattr(ociroot, each) for each in ociroot.__all__ if each != "__version__"}
    missing = {
        f"{where}: {cls.__module__}.{cls.__name__}"
        for where, hint in _signatures(name)
        for cls in _classes(hint)
        if cls not in public
    }
    assert missing == set()


# Names of types that are not classes are gone when an annotation is evaluated: here they are read.


def _home(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return where a name of a module is defined in the package; None: elsewhere."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    found = next(
                        each.module
                        for each in imports(module)
                        if each.name == alias.name or each.module.endswith(f".{alias.name}")
                    )
                    return _home(found, alias.name)
    for statement in TREES[module].body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        if isinstance(statement, ast.ClassDef):
            names = [statement.name]
        if name in names:
            return module, statement
    return None


def _is_variable(statement: ast.stmt) -> bool:
    """Say whether a name is one of a type variable, which only a checker knows."""
    value = statement.value if isinstance(statement, ast.Assign) else None
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar"


def _written(node: ast.AST) -> Iterator[str]:
    """Yield the names in an annotation, also in one that is text."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            with suppress(SyntaxError):
                yield from _written(ast.parse(each.value, mode="eval"))


def _annotations(name: str, statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the annotations of a public function, class or alias."""
    if isinstance(statement, ast.FunctionDef):
        arguments = statement.args
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        yield from filter(None, [*(each.annotation for each in given), statement.returns])
    elif isinstance(statement, ast.ClassDef):
        for each in statement.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                if not each.target.id.startswith("_"):
                    yield each.annotation
            elif isinstance(each, ast.FunctionDef):
                made = each.name == "__init__" and name not in MADE_BY_US
                if (not each.name.startswith("_") or made) and (name, each.name) not in INTERNAL:
                    yield from _annotations(name, each)
    elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        yield statement.value


@pytest.mark.parametrize("name", sorted(set(ociroot.__all__) - {"__version__"}))
def test_every_name_in_a_public_annotation_is_exported(name: str) -> None:
    module = ociroot._HOMES[name]
    statements = TREES[module].body
    found = [each for each in statements if getattr(each, "name", None) == name]
    home = (module, found[0]) if found else _home(module, name)
    assert home is not None
    missing = set()
    for annotation in _annotations(name, home[1]):
        for each in set(_written(annotation)):
            defined = _home(module, each)
            if defined and each not in ociroot.__all__ and not _is_variable(defined[1]):
                missing.add(f"{defined[0]}.{each}")
    assert missing == set()
