"""The `logs.db` of the command line tool and library `llm`: an SQLite file that is read only, in its newer and its older tables.

Since its release 0.32 `llm` keeps messages in a tree (`threads`, `turns`, `messages`, `parts`); before, it kept prompts and
responses (`conversations`, `responses`; first of all `logs`). A file may hold both, and a conversation may stand in both.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Any, Final

from .. import clock, content
from ..errors import ConflictError, InvalidInputError
from ..inputs import MAX_TITLE_CHARS
from ..rows import PreparedMessage, prepare
from ..values import SessionInfo
from ..values.receipts import ImportReceipt
from . import LLM, openai
from .llm_legacy import LegacyConversations
from .llm_rows import LogsError, Rows, Told
from .llm_threads import Threads
from .receiving import Receiver
from .streams import Progress, path_of, refuse_open_store

_NOTES: Final = "llm"
_MIGRATIONS: Final = "_llm_migrations"
_TIMEOUT_SECONDS: Final = 10.0
# SQLite lets any value stand in any column, and JSON may have any shape: what is not as llm writes it fails somewhere.
_MISSHAPEN: Final = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


def import_logs(
    source: object, receiver: Receiver, *, store_path: Path | None, session_id: str | None, progress: Progress | None
) -> ImportReceipt:
    """Store every conversation of a file; each one is a transaction.

    Raises:
        InvalidInputError: It is no path, no such file, or a conversation in it is damaged; nothing of that one is stored.
        ConflictError: An id is taken.
        OSError: There is no such file.
    """
    if not isinstance(source, str | PathLike):
        raise InvalidInputError("source", "must be a path: SQLite reads the file of llm")
    if session_id is not None:
        raise InvalidInputError("session_id", "names the session of a file with one message a line; this one names its own")
    path = path_of("source", source)
    refuse_open_store("source", path, store_path)
    # SQLite's own error would not name the file.
    path.stat()
    with _opened(path) as rows:
        return _Run(rows, path.name, receiver, progress).finish()


@contextmanager
def _opened(path: Path) -> Iterator[Rows]:
    """One snapshot of the file, which stays as it is."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            for setting in (f"busy_timeout = {int(_TIMEOUT_SECONDS * 1000)}", "trusted_schema = OFF", "query_only = ON"):
                connection.execute(f"PRAGMA {setting}").close()
            connection.execute("BEGIN").close()
            rows = Rows(connection)
            if not rows.has(_MIGRATIONS) and not rows.has("log") and not rows.has("logs"):
                raise InvalidInputError("source", f"{path.name} is an SQLite file, but none that llm wrote")
            yield rows
    except UnicodeDecodeError:
        # What SQLite says of a damaged schema quotes it. Not chained: that error holds the quotation.
        raise InvalidInputError("source", f"{path.name}: SQLite cannot read it (its schema is damaged)") from None
    except sqlite3.Error as error:
        raise InvalidInputError("source", f"{path.name}: SQLite cannot read it ({_words(error)})") from error


def _words(error: sqlite3.Error) -> str:
    # That message shows the text.
    return "a text is no UTF-8" if "decode" in str(error).lower() else str(error).rstrip(".")


class _Run:
    """One import."""

    def __init__(self, rows: Rows, name: str, receiver: Receiver, progress: Progress | None) -> None:
        self._threads = Threads(rows)
        self._legacy = LegacyConversations(rows)
        self._name = name
        self._receiver = receiver
        self._progress = progress
        self._keys: dict[str, int] = {}
        self._waiting: defaultdict[str, list[int]] = defaultdict(list)

    def finish(self) -> ImportReceipt:
        """Store all conversations, in the order in which they began: their ids tell it."""
        found = {*self._threads.ids(), *self._legacy.ids()}
        if not all(isinstance(one, str) for one in found):
            raise InvalidInputError("source", f"{self._name}: the id of a conversation must be a text")
        ids = sorted(found)
        for done, one in enumerate(ids):
            if self._progress is not None:
                self._progress(done, len(ids))
            self._import(one)
        if self._progress is not None:
            self._progress(len(ids), len(ids))
        return self._receiver.receipt(LLM)

    def _import(self, one: str) -> None:
        place = f"conversation {one} of {self._name}"
        try:
            told = self._told(one)
            prepared = [self._prepared(index, each) for index, each in enumerate(told, start=1)]
            done = self._receiver.put(self._session(one, told), partial(openai.numbered, prepared))
        except (LogsError, InvalidInputError) as error:
            limit = error.limit if isinstance(error, InvalidInputError) else None
            raise self._receiver.refusal(InvalidInputError("source", f"{place}: {error}", limit=limit)) from error
        except ConflictError as error:
            raise self._receiver.conflict(error, place) from error
        self._link(one, done.key)

    def _link(self, one: str, key: int) -> None:
        """Note where a conversation was forked from, and which ones were forked from it."""
        self._keys[one] = key
        parent = self._threads.parent_of(one)
        if parent in self._keys:
            self._receiver.adopt(self._keys[parent], [key])
        elif parent is not None:
            self._waiting[parent].append(key)
        if one in self._waiting:
            self._receiver.adopt(key, self._waiting.pop(one))

    def _told(self, one: str) -> list[Told]:
        try:
            thread, legacy = self._threads.messages(one), self._legacy.messages(one, without=self._threads.turn_ids)
            return merged(thread, legacy)
        except (LogsError, InvalidInputError):
            raise
        except _MISSHAPEN as error:
            raise LogsError(f"holds a value that llm does not write ({type(error).__name__})") from None

    def _prepared(self, index: int, told: Told) -> PreparedMessage:
        details = {name: value for name, value in told.facts.items() if value is not None}
        if told.notes:
            details["metadata"] = {_NOTES: told.notes}
        # The place, so that a later import of the same conversation finds what is there.
        return prepare(
            told.message,
            max_bytes=self._receiver.settings.max_text_bytes,
            kind=told.kind,
            dedupe_key=f"llm:{index}",
            created_at=told.at,
            **details,
        )

    def _session(self, one: str, told: list[Told]) -> SessionInfo:
        # A thread that goes on with an older conversation has the name of its own first prompt.
        about = {**self._threads.about(one), **self._legacy.about(one)}
        now = clock.utc_now()
        title = about.pop("name", None)
        notes = {name: value for name, value in about.items() if value is not None}
        made = openai.session(one, namespace=self._receiver.settings.namespace, now=now, metadata={_NOTES: notes} if notes else {})
        title = None if title is None else str(title)[:MAX_TITLE_CHARS]
        info = self._receiver.made_now(replace(made, title=title, forked_at=self._forked_at(one, told)))
        if info.max_age is not None:
            # It is counted from the import, or old conversations would end with it.
            return info
        times = [each.at for each in told if each.at is not None]
        return replace(info, created_at=min(times, default=now), updated_at=max(times, default=now))

    def _forked_at(self, one: str, told: list[Told]) -> int | None:
        """How many messages a fork has in common with where it comes from, if that is in the file."""
        parent = self._threads.parent_of(one)
        if parent is None:
            return None
        pairs = zip(told, self._told(parent), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0].message == pair[1].message, pairs))


def merged(thread: list[Told], legacy: list[Told]) -> list[Told]:
    """One conversation of what both generations have of it.

    A conversation that went on after the upgrade has its old messages in the thread, too; what the old tables know of them is
    kept. Else the two are put together turn by turn, in the order of the turns' ids, which tell the time.
    """
    if not legacy or not thread:
        return thread or legacy
    if [_gist(each.message) for each in thread[: len(legacy)]] == [_gist(each.message) for each in legacy]:
        return legacy + thread[len(legacy) :]
    return sorted(thread + legacy, key=lambda each: each.turn_id)


def _gist(message: dict[str, Any]) -> tuple[object, ...]:
    """What both generations keep of a message alike: llm read the older rows without their attachments, and wrote JSON anew."""
    calls = [(name, _value(arguments)) for _, name, arguments in content.calls_of(message)]
    return message["role"], content.words(message.get("content")) or "", calls


def _value(arguments: str | None) -> object:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments
