"""Nobody opens the database file behind SQLite's back: closing any descriptor of it would drop SQLite's locks and lose commits."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sessionstore

Campaign = Callable[..., dict[str, Any]]

PACKAGE = Path(sessionstore.__file__).parent

# The functions that may open files, and why they may.
MAY_OPEN = {
    ("database/paths.py", "create_private"): "makes a file that is not there yet, before the first connection",
    ("database/paths.py", "sync_folder"): "opens a folder",
    ("database/paths.py", "sync_file"): "syncs a new file that no connection has open",
    ("database/restores.py", "_held_by_lock"): "locks a file that SQLite has refused and no store of this process has open",
    ("database/reserve.py", "_grow"): "opens the reserve, which SQLite does not know",
    ("database/reserve.py", "_is_blank"): "looks whether what bears the reserve's name is one",
    ("database/locks.py", "_open"): "opens the sidecar, which SQLite does not know",
    ("database/encryption.py", "_first_bytes"): "reads a file before the first connection, or after SQLite has refused it",
    ("keys.py", "create_key_file"): "makes a file that is not there yet",
    ("keys.py", "_text_of_file"): "reads a file that is smaller than a database, before the store is opened",
    ("database/sidecars.py", "is_no_log"): "reads the first bytes of a log, before the first connection",
    ("database/filesystem.py", "_read_mountinfo"): "reads a file of the kernel's",
    ("memory/files.py", "_read"): "reads a file of a conversation, after refusing a store's",
    ("memory/files.py", "_replace"): "writes a conversation under a name of its own",
    ("formats/streams.py", "open_lines"): "reads a file to import, after refusing a store's",
    ("formats/streams.py", "_spooled"): "copies a stream into a temporary file",
    ("formats/streams.py", "_replacing"): "writes an export under a name of its own",
    ("cli/app.py", "_run"): "opens the null device",
    ("cli/syncing.py", "_check_certificates"): "reads a file of certificates before the store is opened",
    ("cli/syncing.py", "_key"): "reads a file that held a key before the store was opened; a database holds none",
    ("collector/access.py", "read_keys"): "reads a file of keys before a collector opens its store",
    ("queries/statements.py", "<module>"): "writes a module of this package, for developers",
}
OPENERS = {"open", "fdopen", "read_bytes", "read_text", "write_bytes", "write_text", "copy", "copy2", "copyfile", "copyfileobj"}


def test_no_public_call_loses_another_processes_lock(campaign: Campaign) -> None:
    """A calls, B opens, writes and closes, A writes and dies: A's row is there, and its log outlived B."""
    figures = campaign("left_alone", what="experiments")
    assert figures["listed"] == figures["names"], "a public name of SessionStore is missing in left_alone.CALLS"
    found = figures["found"]
    assert found.pop("(sniff)") == {"log": False, "row": False}, "the experiment does not notice a foreign open"
    assert {name: outcome for name, outcome in found.items() if not all(outcome.values())} == {}
    assert len(found) > len(figures["names"])


def test_no_public_call_opens_the_file_but_by_the_driver(campaign: Campaign) -> None:
    """Python's audit hook hears every open() in the process, sync and async."""
    opened = campaign("left_alone", what="watch")["found"]["opened"]
    assert opened.pop("(sniff)") == ["(file)"], "the hook does not hear a foreign open"
    assert opened == {}


def test_only_the_named_functions_of_the_package_open_files() -> None:
    found = {place for path in sorted(PACKAGE.rglob("*.py")) if "_migrations" not in path.parts for place in openings(path)}
    assert found <= MAY_OPEN.keys(), "a new place opens files: it must never be a database's; then name it here"
    assert MAY_OPEN.keys() <= found, "this place opens no files any more"


def openings(path: Path) -> Iterator[tuple[str, str]]:
    """The (module, function) of each call that opens a file."""
    for function, call in calls_within(ast.parse(path.read_text()), "<module>"):
        if opens(call.func):
            yield path.relative_to(PACKAGE).as_posix(), function


def calls_within(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call, with the innermost named function that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield function, child
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from calls_within(child, inner)


def opens(called: ast.expr) -> bool:
    """Whether a call opens a file: the built-in open(), os.open(), Path.open(), read_text(), shutil's copies and so on."""
    if isinstance(called, ast.Name):
        return called.id == "open"
    if not isinstance(called, ast.Attribute) or called.attr not in OPENERS:
        return False
    owner = called.value
    if called.attr == "copy":
        return isinstance(owner, ast.Name) and owner.id == "shutil"
    # `context.obj` is the store that the command line names, which opens by the driver.
    is_target = isinstance(owner, ast.Attribute) and owner.attr == "obj"
    return not is_target and not (isinstance(owner, ast.Name) and owner.id in {"sessionstore", "self", "target"})
