"""The file of very many sessions, a million of them: made once in a run, and copied for the items that need it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from .bench import Bench
from .raw import NAMESPACE, NEW_SESSION, NO_CHECKSUM, SEQ_BITS, RawStore, insert_into, sql, stored

_AGENTS = 100
_USERS = 10_000
_DAYS = 100
_DAYS_WITH_ANSWERS = 3
_ANSWERS = 10
_LIFE = timedelta(days=365)
_CACHE_KIB = 1_000_000
_INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'sessions' AND sql IS NOT NULL"
_COLUMNS = (*NEW_SESSION, "ended_at", "expires_at", "ttl_seconds")


@dataclass(frozen=True, slots=True)
class Crowd:
    """A closed file of sessions, which began one after another over a hundred days. They are open; each expires after a year.

    Those of the last three days are completed instead, and have ten answers each, with their times.

    Attributes:
        path: The file, not to be changed.
        sessions: How many there are.
        end: The end of the last day.
    """

    path: Path
    sessions: int
    end: datetime

    @property
    def day(self) -> date:
        """The day in the middle of those that have answers."""
        return (self.end - timedelta(days=2)).date()

    @property
    def answers(self) -> int:
        """How many answers that day has."""
        return self.sessions // _DAYS * _ANSWERS

    def due_at(self, count: int) -> datetime:
        """The instant from which on so many of the open ones are overdue."""
        return self._begun(count - 1) + _LIFE

    def copy(self, place: Path, name: str, session_ids: Iterable[str] = ()) -> Path:
        """A copy, with some empty sessions more."""
        path = Path(shutil.copyfile(self.path, place / f"{name}.db"))
        with RawStore(path, durability="normal") as raw:
            for session_id in session_ids:
                raw.session(session_id)
        # Else the system would write it out while the first rounds sync.
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return path

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The values of the sessions."""
        for number in range(self.sessions):
            begun = self._begun(number)
            now = stored(begun)
            answered = number >= self._first_with_answers
            held = _ANSWERS if answered else 0
            status, ended, expires = ("completed", now, None) if answered else ("open", None, stored(begun + _LIFE))
            yield (NAMESPACE, f"session-{number:07}", f"user-{number * 7 % _USERS}", f"agent-{number % _AGENTS}", None, status, 0,
                   None, 1, held, held + 1, now, now, ended, expires, _LIFE.total_seconds())  # fmt: skip

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """The values of the answers."""
        chance = random.Random(95)
        for number in range(self._first_with_answers, self.sessions):
            told = stored(self._begun(number))
            for seq in range(1, _ANSWERS + 1):
                facts = f'{{"model":"a-model","response_time_ms":{chance.lognormvariate(7, 0.8):.3f}}}'
                # Keys count from 1.
                yield ((number + 1) << SEQ_BITS | seq, "message", "assistant", "It is so.", None, facts, told, NO_CHECKSUM, None)

    @property
    def _first_with_answers(self) -> int:
        return self.sessions - _DAYS_WITH_ANSWERS * (self.sessions // _DAYS)

    def _begun(self, number: int) -> datetime:
        return self.end - (self.sessions - number) * timedelta(days=_DAYS) / self.sessions


def crowd(bench: Bench) -> Crowd:
    """The file; the first call of a run makes it."""
    end = datetime.combine(datetime.now(UTC).date(), time(), tzinfo=UTC)
    found = Crowd(bench.folder / "crowd.db", bench.scale.crowd, end)
    if not found.path.exists():
        _make(bench, found)
    return found


def _make(bench: Bench, wanted: Crowd) -> None:
    with bench.place() as place:
        path = bench.new_file(place, "crowd")
        with RawStore(path, durability="off") as raw:
            execute = raw.connection.execute
            for setting in ("journal_mode=OFF", f"cache_size={-_CACHE_KIB}"):
                execute(f"PRAGMA {setting}").fetchall()
            execute("BEGIN")
            # To make an index of what is there takes a fifth of the time.
            indexes = execute(_INDEXES).fetchall()
            for name, _ in indexes:
                execute(f"DROP INDEX {name}")
            raw.connection.executemany(insert_into("sessions", _COLUMNS), wanted.rows())
            for _, text in indexes:
                execute(text)
            raw.connection.executemany(sql.INSERT_MESSAGE, wanted.messages())
            execute("COMMIT")
            execute("PRAGMA journal_mode=WAL").fetchall()
        path.rename(wanted.path)
