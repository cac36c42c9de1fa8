"""Stores for examples, and the judgement of a call: right, or refused with a typed error that tells no value and wrote nothing."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, seed, settings
from trials import Trial

import sessionstore
from sessionstore import InvalidInputError, SessionStore, SessionStoreError

# Stands in every text that may be refused, and never in an error.
CANARY: Final = "kingfisher"
CALL: Final = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class Stores:
    """Copies of one filled file; making each anew would take most of the time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._empty = folder / "empty.db"
        self._filled = folder / "filled.db"
        sessionstore.open(self._empty).close()
        shutil.copy(self._empty, self._filled)
        with sessionstore.open(self._filled, durability="normal") as store:
            fill(store)

    @contextmanager
    def fresh(self) -> Iterator[tuple[SessionStore, Path]]:
        """A store in a folder of its own, with something in it that a half-done call could change."""
        with self._copied(self._filled) as found:
            yield found

    @contextmanager
    def empty(self) -> Iterator[tuple[SessionStore, Path]]:
        """A store with nothing in it."""
        with self._copied(self._empty) as found:
            yield found

    @contextmanager
    def _copied(self, file: Path) -> Iterator[tuple[SessionStore, Path]]:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        path = folder / "agent.db"
        shutil.copy(file, path)
        with sessionstore.open(path, durability="normal") as store:
            yield store, path
        # After a failure the files stay, to be looked at.
        shutil.rmtree(folder)


def fill(store: SessionStore) -> None:
    """Sessions, forks, state, agents, figures and events, so that calls meet something."""
    chat = store.session("s", user_id="u", agent_id="a", title="t", tags=["one"], metadata={"k": 1})
    chat.append_many([{"role": "user", "content": f"word {number}"} for number in range(5)])
    chat.append({"role": "assistant", "content": None, "tool_calls": [CALL]})
    chat.append("user", "once", dedupe_key="key")
    store.set_state("s", {"n": 1, "x": "y"})
    store.fork("s", "fork", at=3)
    store.create("other", agent_id="b")
    store.end("other", "failed", error="no answer")
    store.register_agent("a", metadata={"k": 1})
    store.log_activity("a", "did")
    store.record("figure", 1.5, agent_id="a")
    store.set_remote("http://127.0.0.1:9")
    store.append("s", "user", "told")


class Watch:
    """Sees, from another connection, whether a store was written to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def version(self) -> int:
        """Another number after each commit of the store."""
        found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return found


@contextmanager
def watching(path: Path) -> Iterator[Watch]:
    """A watch of a file."""
    with closing(sqlite3.connect(path)) as connection:
        yield Watch(connection)


def judged(call: Callable[[], Any], watch: Watch | None = None, *, may_write: bool = False, tells: bool = False) -> Any:
    """What a call answers, or the error of ours by which it was refused; any other exception passes.

    Args:
        call: What is to be judged.
        watch: Sees whether a refused call has written.
        may_write: Whether it may: an import stores the conversations before the one at fault.
        tells: Whether the error may tell what was given: a path is told.
    """
    before = None if watch is None else watch.version()
    try:
        return call()
    except SessionStoreError as error:
        refusal = error
    assert watch is None or may_write or watch.version() == before, f"refused, and yet something was written: {refusal!r}"
    if not tells:
        require_no_value(refusal)
    return refusal


def require_no_value(error: BaseException) -> None:
    """An error, and what is shown of the errors behind it, names fields and limits, never what was given."""
    shown: BaseException | None = error
    while shown is not None:
        if isinstance(shown, InvalidInputError) or not isinstance(shown, SessionStoreError):
            assert CANARY not in str(shown), f"{type(shown).__name__} of {type(error).__name__} tells what was given: {shown}"
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


def works(store: SessionStore) -> None:
    """The store goes on: what is appended is read."""
    store.session("alive").append("user", "still here")
    assert store.messages("alive", last=1)[0].text == "still here"


def tried(trial: Trial, check: Callable[..., None], *, push: int, nightly: int, release: int, **strategies: Any) -> int:
    """Run a check on as many examples as belong to the tier, and return how many they were."""
    count = 0
    # Where a filter gives up a draw, Hypothesis writes the strategy down, and warns of a long one. Here it does so each time.
    for strategy in strategies.values():
        repr(strategy)

    @seed(trial.seed)
    @settings(
        max_examples=trial.size(push=push, nightly=nightly, release=release),
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(**strategies)
    def run(**values: Any) -> None:
        nonlocal count
        count += 1
        check(**values)

    run()
    return count
