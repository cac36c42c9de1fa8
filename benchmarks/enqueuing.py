"""The outbox from the program's side: a figure that is recorded and told to a remote, and a drain that finds nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import sessionstore

from .bench import BOTH, Bench, Item, Row, Target
from .conversations import REMOTE, event_row
from .raw import NAMESPACE, RawStore, sql, stored
from .timing import repeated

_BATCH: Final = 100
_NOTHING_US: Final = Target(20, of="store")
# With the names of the columns an event of about 500 bytes, as those of the queues that others measure.
_ATTRIBUTES: Final = {"model": "a-model", "purpose": "The capital of each country. " * 5, "input_tokens": 200, "output_tokens": 90}


def records(bench: Bench) -> Iterator[Row]:
    """A figure and its event, one transaction; and a hundred of each in one."""
    for durability in BOTH:
        with _both(bench, durability) as (raw, store):
            figures = bench.writes(
                {
                    "raw": repeated(lambda number, raw=raw: _raw_record(raw, (number,))),  # type: ignore[misc]
                    "store": repeated(
                        lambda number, store=store: store.record(  # type: ignore[misc]
                            "tokens", number, "count", _ATTRIBUTES, agent_id="agent-1", session_id="session-1"
                        )
                    ),
                }
            )
        yield Row(f"record a figure with a remote, {durability.upper()}", "ms", figures["raw"], figures["store"])
    for durability in BOTH:
        with _both(bench, durability) as (raw, store):
            # So many rows as a round of single ones has would be a large file.
            figures = bench.reads(
                {
                    "raw": repeated(lambda _, raw=raw: _raw_record(raw, range(_BATCH))),  # type: ignore[misc]
                    "store": repeated(lambda _, store=store: store.record_many(_figures())),  # type: ignore[misc]
                }
            )
        each = 1e3 / _BATCH
        name = f"record {_BATCH} figures with a remote, each, {durability.upper()}"
        yield Row(name, "us", figures["raw"].times(each), figures["store"].times(each))


def nothing_to_drain(bench: Bench) -> Iterator[Row]:
    """Drains that find nothing."""
    with bench.both(()) as (raw, store):
        store.set_remote(REMOTE)
        execute = raw.connection.execute
        figures = bench.writes(
            {
                "raw": repeated(lambda _: execute(sql.PEEK_PENDING).fetchall()),
                "store": repeated(lambda _: store.drain()),
            }
        )
    yield Row("drain of an empty outbox", "us", figures["raw"].times(1e3), figures["store"].times(1e3), _NOTHING_US)


@contextmanager
def _both(bench: Bench, durability: str) -> Iterator[tuple[RawStore, sessionstore.SessionStore]]:
    """Both sides with a remote that nobody delivers to; in the end they have done the same."""
    with bench.both((), durability) as (raw, store):
        store.set_remote(REMOTE)
        raw.connection.execute("UPDATE store_info SET remote_url = ?", (REMOTE,))
        yield raw, store
        _check(raw, store)
        store.close(drain_timeout=0)


def _raw_record(raw: RawStore, numbers: Iterable[int]) -> None:
    raw.transaction(lambda: _insert(raw, numbers))


def _insert(raw: RawStore, numbers: Iterable[int]) -> None:
    rows = [_rows(number) for number in numbers]
    connection = raw.connection
    connection.executemany(sql.INSERT_METRIC, [figure for figure, _ in rows])
    if connection.execute(sql.READ_REMOTE).fetchall()[0][0] is not None:
        connection.executemany(sql.INSERT_EVENT, [event for _, event in rows])


def _rows(number: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    now = stored(datetime.now(UTC))
    attributes = json.dumps(_ATTRIBUTES)
    body: dict[str, Any] = {"name": "tokens", "value": number, "unit": "count", "agent_id": "agent-1", "session_id": "session-1",
                            "timestamp": now, "attributes": _ATTRIBUTES}  # fmt: skip
    figure = (NAMESPACE, "tokens", number, "count", "agent-1", "session-1", attributes, now)
    return figure, event_row(1, "metric", body, now, now)


def _figures() -> list[sessionstore.NewMetric]:
    about: dict[str, Any] = {"agent_id": "agent-1", "session_id": "session-1"}
    return [sessionstore.NewMetric("tokens", number, "count", _ATTRIBUTES, **about) for number in range(_BATCH)]


def _check(raw: RawStore, store: sessionstore.SessionStore) -> None:
    ((metrics, events),) = raw.connection.execute(
        "SELECT (SELECT count(*) FROM metric_events), (SELECT count(*) FROM outbox)"
    ).fetchall()
    if metrics != events or store.outbox.stats().pending != events:
        raise AssertionError("the two sides did not do the same")


ITEMS = (
    Item(
        "record",
        "INSERTs of figures and of their events with their JSON, in a transaction that looks whether there is a remote.",
        records,
    ),
    Item("nothing-to-drain", "one SELECT of whether an event waits.", nothing_to_drain),
)
