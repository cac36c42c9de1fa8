"""The error tree is as it is drawn, every error keeps its facts, and errors travel between processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import sessionstore
from sessionstore import errors
from sessionstore.database.faults import is_busy, is_storage_failure, translated

PATH = "/data/agent.db"

EXAMPLES = [
    errors.SessionStoreError("something"),
    errors.InvalidInputError("metadata.a", "must be a dict"),
    errors.InvalidInputError("limit", "must be from 1 to 10", limit=10),
    errors.ConfigError("namespace: must be a str"),
    errors.MissingExtraError("the command line", "cli"),
    errors.NotFoundError("user-alice"),
    errors.ConflictError("user-alice", "there is a session 'user-alice' already"),
    errors.QuotaError("session 'user-alice' has no seq left", limit=16_777_215),
    errors.SessionExpiredError("user-alice"),
    errors.StoreOpenError(PATH, "there is no such folder"),
    errors.NotADatabaseError(PATH, "is not an SQLite database"),
    errors.WrongKeyError(PATH, "looks encrypted"),
    errors.SchemaTooNewError(PATH, "was written by a newer sessionstore"),
    errors.ForeignDatabaseError(PATH, "belongs to another program"),
    errors.ReadOnlyStoreError(PATH, "cannot be written"),
    errors.UnsafePathError(PATH, "is a symbolic link"),
    errors.UpgradeError(PATH, "the upgrade failed"),
    errors.StoreCorruptError(PATH, "is damaged"),
    errors.StoreBusyError(Path(PATH), "is locked"),
    errors.DiskFullError(PATH, "the disk is full"),
    errors.StoreIOError(PATH, "failed to read"),
    errors.SyncError("the remote could not be asked: no answer within 30 seconds"),
    errors.AuthError("the remote does not accept the API key: HTTP 401", status=401),
    errors.RejectedError("the remote does not accept the question: HTTP 422", status=422),
    errors.RedirectRefusedError("the remote points to another address (HTTP 302)", status=302),
    errors.ResponseError("the remote answered HTTP 200 without JSON", status=200),
    errors.BackendError("Redis", "ConnectionError; is the server there?"),
    errors.ModelError("the model answered HTTP 429", status=429, retry_after=7.0),
    errors.SearchUnavailableError("search is off"),
    errors.ForkedStoreError(),
    errors.ClosedStoreError(),
]


def drawn_tree() -> dict[str, tuple[str, str | None]]:
    """Name -> (parent, built-in base) of the drawing in the module's docstring."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str, str | None]] = {}
    parents = {0: "SessionStoreError"}
    for line in errors.__doc__.splitlines():
        found = re.match(r"(?P<indent>[│ ]*)[├└]── (?P<name>\w+)(?: \((?P<base>\w+)\))?", line)
        if found:
            level = len(found["indent"]) // 4 + 1
            parents[level] = found["name"]
            tree[found["name"]] = (parents[level - 1], found["base"])
    return tree


def public_errors() -> dict[str, type[errors.SessionStoreError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SessionStoreError) and not name.startswith("_")
    }


def parent_of(kind: type) -> str:
    return next(base.__name__ for base in kind.__mro__[1:] if base.__name__ in public_errors())


def test_every_error_is_drawn_and_every_drawn_error_is_there() -> None:
    assert set(drawn_tree()) | {"SessionStoreError"} == set(public_errors())


@pytest.mark.parametrize("name", sorted(set(public_errors()) - {"SessionStoreError"}))
def test_an_error_stands_where_it_is_drawn(name: str) -> None:
    parent, base = drawn_tree()[name]
    kind = public_errors()[name]
    assert parent_of(kind) == parent
    inherited = parent_of(kind)
    built_in = {one.__name__ for one in kind.__mro__ if one.__module__ == "builtins"} - {"object", "Exception", "BaseException"}
    if base is not None:
        assert base in built_in
    else:
        assert built_in <= {one.__name__ for one in public_errors()[inherited].__mro__}


def test_every_error_is_exported() -> None:
    for name in public_errors():
        assert getattr(sessionstore, name) is public_errors()[name]
        assert name in sessionstore.__all__


def test_every_error_has_an_example_here() -> None:
    assert {type(example).__name__ for example in EXAMPLES} == set(public_errors())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_message_holds_the_facts(error: errors.SessionStoreError) -> None:
    shown = str(error)
    assert shown
    for name in ("field", "reason", "extra", "session_id", "path"):
        if hasattr(error, name) and name not in ("name", "msg") and getattr(error, name) is not None:
            assert str(getattr(error, name)) in shown
    assert not shown.startswith(("'", '"', "("))


def test_facts_are_attributes() -> None:
    refused = errors.InvalidInputError("limit", "must be from 1 to 10", limit=10)
    assert (refused.field, refused.reason, refused.limit) == ("limit", "must be from 1 to 10", 10)
    assert errors.InvalidInputError("a", "b").limit is None
    assert errors.QuotaError("full", limit=5).limit == 5
    assert errors.NotFoundError("s").session_id == "s"
    assert errors.ConflictError("s", "taken").session_id == "s"
    assert errors.StoreBusyError(Path(PATH), "x").path == PATH
    assert 'pip install "sessionstore[cli]"' in str(errors.MissingExtraError("the command line", "cli"))


def test_a_missing_session_reads_well_although_it_is_a_key_error() -> None:
    with pytest.raises(KeyError) as caught:
        raise errors.NotFoundError("user-alice")
    assert str(caught.value) == "there is no session 'user-alice'; session() or create() makes one"


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: errors.SessionStoreError) -> None:
    """Process pools and task queues send errors as pickles."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying(error: errors.SessionStoreError) -> None:
    again = copy.copy(error)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_an_error_reaches_the_parent_of_a_process_pool(tmp_path: Path) -> None:
    """One that cannot be unpickled would break the pool instead."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        failing = pool.submit(sessionstore.open, tmp_path / "agent.db", must_exist=True)
        with pytest.raises(errors.NotADatabaseError, match="no such file"):
            failing.result(timeout=60)


# -- errors of the driver


def driver_error(code: int, name: str, text: str = "text", kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        (sqlite3.SQLITE_BUSY, "SQLITE_BUSY", errors.StoreBusyError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT", errors.StoreBusyError),
        (sqlite3.SQLITE_LOCKED, "SQLITE_LOCKED", errors.StoreBusyError),
        (sqlite3.SQLITE_FULL, "SQLITE_FULL", errors.DiskFullError),
        (sqlite3.SQLITE_IOERR, "SQLITE_IOERR", errors.StoreIOError),
        (sqlite3.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE", errors.StoreIOError),
        (sqlite3.SQLITE_IOERR_CORRUPTFS, "SQLITE_IOERR_CORRUPTFS", errors.StoreCorruptError),
        (sqlite3.SQLITE_NOTADB, "SQLITE_NOTADB", errors.NotADatabaseError),
        (sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN", errors.StoreOpenError),
        (sqlite3.SQLITE_READONLY, "SQLITE_READONLY", errors.ReadOnlyStoreError),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "SQLITE_READONLY_DIRECTORY", errors.ReadOnlyStoreError),
        (sqlite3.SQLITE_PERM, "SQLITE_PERM", errors.ReadOnlyStoreError),
        (sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT", errors.StoreCorruptError),
        (sqlite3.SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX", errors.StoreCorruptError),
        (sqlite3.SQLITE_ERROR, "SQLITE_ERROR", errors.StoreIOError),
    ],
)
def test_an_error_of_the_driver_becomes_ours(code: int, name: str, kind: type[Exception]) -> None:
    error = driver_error(code, name)
    mine = translated(error, PATH)
    assert type(mine) is kind
    assert str(mine).startswith(PATH)
    assert is_busy(error) is (kind is errors.StoreBusyError)


@pytest.mark.parametrize("code", [None, sqlite3.SQLITE_ERROR])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("database or disk is full", errors.DiskFullError),
        ("disk I/O error", errors.StoreIOError),
        ("database is locked", errors.StoreBusyError),
        ("database disk image is malformed", errors.StoreCorruptError),
        ("malformed JSON", errors.StoreCorruptError),
    ],
)
def test_an_error_without_its_code_is_known_by_its_words(text: str, kind: type[Exception], code: int | None) -> None:
    """As SQLCipher gives them in its export and from a backup, and SQLite's JSON functions for a damaged row."""
    error = sqlite3.OperationalError(text)
    if code is not None:
        error.sqlite_errorcode = code
    assert type(translated(error, PATH)) is kind
    assert is_storage_failure(error) is (kind is errors.StoreIOError)


def test_undecodable_text_and_broken_constraints_are_damage() -> None:
    undecodable = sqlite3.OperationalError("Could not decode to UTF-8 column 'text' with text 'the words of a user'")
    assert type(translated(undecodable, PATH)) is errors.StoreCorruptError
    assert "the words of a user" not in str(translated(undecodable, PATH))
    broken = driver_error(sqlite3.SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT", kind=sqlite3.IntegrityError)
    assert type(translated(broken, PATH)) is errors.StoreCorruptError
