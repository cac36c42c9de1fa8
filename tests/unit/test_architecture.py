"""The shape of the package: floors that import downwards only, a tidy front door, light imports, docstrings everywhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sessionstore

PACKAGE = Path(sessionstore.__file__).parent
NAME = PACKAGE.name
MOST_LINES = 450
# Grown for a reason; everything else is split before it gets this long.
LONGER: dict[str, int] = {}
GENERATED = {"sessionstore.sql"}


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = (NAME, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_migrations" not in path.parts}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}

# From the ground up. A module may import its own floor and those below; a name ending in "." means a whole package.
FLOORS: list[tuple[str, tuple[str, ...]]] = [
    (
        "plain values",
        (
            "errors",
            "clock",
            "inputs",
            "config",
            "content",
            "packing",
            "large",
            "values.",
            "pairs",
            "periods",
            "arguments",
            "forks",
            "rows",
            "sql",
            "tracked_ids",
            "masking",
            "search_terms",
            "logs",
            "remote.",
            "hidden",
            "hints",
            "keys",
            "loading",
        ),
    ),
    ("the schema", ("models.",)),
    ("the file", ("database.",)),
    ("queries", ("queries.",)),
    ("formats", ("formats.",)),
    (
        "stores",
        (
            "store.",
            "handle",
            "diagnosis",
            "opening",
            "encrypting",
            "restoring",
            "copying",
            "waiting",
            "loops",
            "aio",
            "aio_opening",
            "delivery.",
            "background",
            "memory.",
        ),
    ),
    ("trackers and agents", ("trackers.", "chat.")),
    ("the front door", ("",)),
    ("edges", ("adapters.", "collector.", "cli.", "__main__")),
]


def floor_of(module: str) -> int:
    """The floor that a module stands on."""
    name = module.removeprefix(NAME).removeprefix(".")
    for number, (_, members) in enumerate(FLOORS):
        for member in members:
            if name == member or (member.endswith(".") and (name + ".").startswith(member)):
                return number
    raise AssertionError(f"{module} stands on no floor; add it to FLOORS")


def imports_of(module: str, *, lazy: bool = True) -> Iterator[str]:
    """The modules of this package that a module imports when it runs; without `lazy`, only those at its own import."""
    for node in running_nodes(TREES[module], lazy=lazy):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == NAME)
        elif isinstance(node, ast.ImportFrom):
            origin = origin_of(module, node)
            if origin.partition(".")[0] == NAME:
                for alias in node.names:
                    named = f"{origin}.{alias.name}"
                    yield named if named in MODULES else origin


def origin_of(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of what `from ... import` names."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, node.module] if node.module else package)


def running_nodes(node: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    """The nodes of a module without what is there for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from running_nodes(child, lazy=lazy)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_no_higher_floor(module: str) -> None:
    """Also not inside of its functions."""
    own = floor_of(module)
    higher = {each for each in imports_of(module) if floor_of(each) > own}
    assert higher == set()


def test_floors_below_the_queries_know_no_table_models() -> None:
    """`database` runs without pydantic, and queries load it only where they build statements."""
    database = [module for module in MODULES if module.startswith(f"{NAME}.database")]
    assert [module for module in database if f"{NAME}.models" in set(imports_of(module))] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """At import time; what is imported inside of a function comes later."""
    edges = {module: {each for each in imports_of(module, lazy=False) if each != module} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for each in sorted(edges[module]):
                visit(each, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_no_queries_import_each_other_in_a_circle_inside_of_functions() -> None:
    queries = [module for module in MODULES if module.startswith(f"{NAME}.queries.")]
    left = {module: {each for each in imports_of(module) if each in queries and each != module} for module in queries}
    while free := {module for module, below in left.items() if not below}:
        left = {module: below - free for module, below in left.items() if module not in free}
    assert left == {}


def test_the_exported_names_are_sorted_and_there() -> None:
    names = sessionstore.__all__
    constants, classes, functions = [name for name in names if name.isupper()], [], []
    for name in names:
        if not name.isupper():
            (classes if name[0].isupper() else functions).append(name)
    assert names == [*sorted(constants), *sorted(classes), *sorted(functions)]
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(sessionstore, name) is not None


def test_dir_shows_the_exported_names() -> None:
    shown = dir(sessionstore)
    assert set(sessionstore.__all__) <= set(shown)
    assert "__version__" in shown
    assert sessionstore.__version__[0].isdigit()
    assert [name for name in shown if name not in sessionstore.__all__ and not name.startswith("__")] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sessionstore.no_such_name  # type: ignore[attr-defined]


def test_every_error_and_every_value_of_the_api_is_exported() -> None:
    from sessionstore import errors, values
    from sessionstore.values import health, receipts

    classes = {
        name: value
        for module in (errors, values, health, receipts)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {name for name in classes if name not in sessionstore.__all__} == set()


HEAVY = ("asyncio", "unittest", "http", "email", "multiprocessing", "hashlib", "hmac", "secrets", "socket", "ssl", "uuid")
LIGHT = f"""
import sys
before = set(sys.modules)
import sessionstore
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)))
print(*sorted(name for name in set(sys.modules) - before if name in {HEAVY!r}))
"""


def test_importing_the_package_loads_nothing_but_the_package() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [NAME, ""]


@pytest.mark.parametrize("module", [module for module in MODULES if module not in GENERATED])
def test_no_module_grows_long(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= LONGER.get(module, MOST_LINES), f"{module} has {lines} lines; does it have one subject?"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_begins_by_saying_its_subject(module: str) -> None:
    docstring = ast.get_docstring(TREES[module])
    assert docstring
    first = docstring.split("\n\n")[0]
    assert first.rstrip().endswith((".", ":"))


def undocumented(module: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in TREES[module].body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{name}" for name in undocumented_methods(node))


def undocumented_methods(owner: ast.ClassDef) -> Iterator[str]:
    for node in owner.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            overloaded = any("overload" in ast.dump(decorator) for decorator in node.decorator_list)
            if not overloaded and not ast.get_docstring(node):
                yield node.name


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_explains_itself(module: str) -> None:
    assert list(undocumented(module)) == []
