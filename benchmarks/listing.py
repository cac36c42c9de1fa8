"""A page of sessions by each filter, and counting, among few and among many sessions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sessionstore

from .bench import Bench, Item, Row, Target
from .raw import NEW_SESSION, RawStore, insert_into, sql, stored, stored_now
from .timing import Figure, Side, repeated

_PAGE_MS = Target(1.0, of="store")
# Trees that are one level deeper and noise below a third are not growth.
_FLAT = Target(1.5, of="store")
_KINDS = 100
_RARE = 60
_FIRST_CHANGE = datetime(2026, 1, 1, tzinfo=UTC)

_SHOWN = "namespace = '' AND status != 'expired' AND (expires_at IS NULL OR ? < expires_at) AND archived_at IS NULL"
_HAS_TAG = "EXISTS (SELECT 1 FROM session_tags WHERE session_tags.session_key = sessions.session_key AND tag = ?)"


@dataclass(frozen=True, slots=True)
class Filter:
    """The same wish in the words of the store and of SQL."""

    name: str
    filters: dict[str, Any] = field(default_factory=dict)
    condition: str = ""
    parameters: tuple[str, ...] = ()


_FILTERS = (
    Filter("no filter"),
    Filter("agent", {"agent_id": "agent-7"}, "agent_id = ?", ("agent-7",)),
    Filter("user", {"user_id": "user-7"}, "user_id = ?", ("user-7",)),
    Filter("tag", {"tag": "tag-7"}, _HAS_TAG, ("tag-7",)),
    Filter(f"a tag that {_RARE} have", {"tag": "rare"}, _HAS_TAG, ("rare",)),
    Filter("metadata", {"metadata": {"project": "p-7"}}, "json_extract(metadata, '$.project') = ?", ("p-7",)),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """Two files of so many sessions, one for each side."""

    sessions: int
    raw: RawStore
    store: sessionstore.SessionStore


def pages(bench: Bench) -> Iterator[Row]:
    """The first page by each filter, a page from the middle, and counts."""
    page = bench.scale.page
    with ExitStack() as stack:
        few, many = _listed(bench, stack)
        for wish in _FILTERS:
            sides = {}
            for listed in (few, many):
                sides[f"raw {listed.sessions}"] = _raw_page(listed.raw, wish, page)
                sides[f"store {listed.sessions}"] = _store_call(listed.store.list, {**wish.filters, "limit": page})
            yield from _rows(f"page of {page} by {wish.name}", few, many, bench.reads(sides))
        sides = {}
        for listed in (few, many):
            sides[f"store {listed.sessions}"] = _store_call(listed.store.list, {"cursor": _middle(listed), "limit": page})
        yield from _rows(f"page of {page} from the middle", few, many, bench.reads(sides))
        yield from _counts(bench, many)


def _counts(bench: Bench, many: Listed) -> Iterator[Row]:
    for wish in _FILTERS[:2]:
        figures = bench.reads({"raw": _raw_count(many.raw, wish), "store": _store_call(many.store.count, wish.filters)})
        yield Row(f"count of {many.sessions:,} sessions by {wish.name}", "ms", figures["raw"], figures["store"])


def _rows(work: str, few: Listed, many: Listed, figures: dict[str, Figure]) -> Iterator[Row]:
    raw, store = figures.get(f"raw {many.sessions}"), figures[f"store {many.sessions}"]
    yield Row(f"{work}, {many.sessions:,} sessions", "ms", raw, store, _PAGE_MS)
    raw_growth = raw.over(figures[f"raw {few.sessions}"]) if raw is not None else None
    store_growth = store.over(figures[f"store {few.sessions}"])
    yield Row(f"  growth from {few.sessions:,} to {many.sessions:,} sessions", "x", raw_growth, store_growth, _FLAT)


def _listed(bench: Bench, stack: ExitStack) -> list[Listed]:
    found = []
    for sessions in (bench.scale.few_sessions, bench.scale.many_sessions):
        place = stack.enter_context(bench.place())
        for_raw = bench.new_file(place, "raw")
        _fill(for_raw, sessions)
        for_store = shutil.copyfile(for_raw, place / "store.db")
        raw = stack.enter_context(RawStore(for_raw))
        found.append(Listed(sessions, raw, stack.enter_context(sessionstore.open(for_store))))
    return found


def _fill(path: Path, sessions: int) -> None:
    """Make sessions of 100 agents, users, tags and projects, mixed evenly; and a tag that few of them have."""
    with RawStore(path, durability="normal") as raw:
        execute = raw.connection.execute
        execute("BEGIN")
        raw.connection.executemany(insert_into("sessions", NEW_SESSION), (_session(number) for number in range(sessions)))
        keys = [key for (key,) in execute("SELECT session_key FROM sessions ORDER BY session_key").fetchall()]
        # Different strides, so that what one filter chooses is spread over what the others do.
        tags = [(key, f"tag-{number // 3 % _KINDS}") for number, key in enumerate(keys)]
        tags += [(key, "rare") for key in keys[:: max(1, sessions // _RARE)]]
        raw.connection.executemany(insert_into("session_tags", ("session_key", "tag")), tags)
        execute("COMMIT")
        execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _session(number: int) -> tuple[Any, ...]:
    changed = stored(_FIRST_CHANGE + timedelta(seconds=number))
    metadata = json.dumps({"project": f"p-{number // 11 % _KINDS}", "channel": "desktop"}, separators=(",", ":"))
    return ("", f"session-{number:07}", f"user-{number // 7 % _KINDS}", f"agent-{number % _KINDS}", f"Session {number}", "open",
            0, metadata, 1, 2, 3, changed, changed)  # fmt: skip


def _where(wish: Filter) -> str:
    return f"{_SHOWN} AND {wish.condition}" if wish.condition else _SHOWN


def _raw_page(raw: RawStore, wish: Filter, size: int) -> Side:
    page = (
        f"SELECT {', '.join(sql.COLUMNS['sessions'])} FROM sessions WHERE {_where(wish)} "
        f"ORDER BY updated_at DESC, session_key DESC LIMIT {size + 1}"
    )

    def read(_: int) -> None:
        rows = raw.connection.execute(page, (stored_now(), *wish.parameters)).fetchall()
        keys = [row[0] for row in rows[:size]]
        tags = f"SELECT session_key, tag FROM session_tags WHERE session_key IN ({', '.join('?' * len(keys))})"
        raw.connection.execute(tags, keys).fetchall()

    return repeated(read)


def _raw_count(raw: RawStore, wish: Filter) -> Side:
    count = f"SELECT count(*) FROM sessions WHERE {_where(wish)}"
    return repeated(lambda _: raw.connection.execute(count, (stored_now(), *wish.parameters)).fetchall())


def _store_call(call: Callable[..., object], arguments: dict[str, Any]) -> Side:
    return repeated(lambda _: call(**arguments))


def _middle(listed: Listed) -> str:
    """The cursor of the page in the middle."""
    size = max(1, min(1_000, listed.sessions // 4))
    cursor = None
    for _ in range(listed.sessions // 2 // size):
        cursor = listed.store.list(limit=size, cursor=cursor).next_cursor
    if cursor is None:
        raise AssertionError("there is no second half of the sessions")
    return cursor


_RAW = "one SELECT of the same columns in the same order, one of the tags of those sessions, no objects; or one SELECT count(*)."

ITEMS = (Item("sessions", _RAW, pages),)
