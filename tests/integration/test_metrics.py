"""Figures and times: recorded exactly once, told to the remote with them, and never in the way of what is measured."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import json
import logging
import math
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessionstore
from sessionstore import InvalidInputError, NewMetric, SessionStore, clock, queries
from sessionstore.remote.settings import Remote
from sessionstore.store import timing

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REMOTE = "https://collector.example"
COLUMNS = ("namespace", "name", "value", "unit", "agent_id", "session_id", "attributes", "occurred_at")


@pytest.fixture
def metrics(store_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Call it for the figures that are stored, in their order."""

    def read() -> list[dict[str, Any]]:
        with closing(sqlite3.connect(store_path)) as connection:
            rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM metric_events ORDER BY id").fetchall()
        found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        return [{**row, "attributes": json.loads(row["attributes"] or "null")} for row in found]

    return read


@pytest.fixture
def told(store_path: Path) -> Callable[[], list[tuple[str, str, str, dict[str, Any]]]]:
    """Call it for stream, kind, namespace and body of the events that wait for the remote."""

    def read() -> list[tuple[str, str, str, dict[str, Any]]]:
        with closing(sqlite3.connect(store_path)) as connection:
            rows = connection.execute("SELECT stream, kind, namespace, body FROM outbox ORDER BY id").fetchall()
        return [(stream, kind, namespace, json.loads(body)) for stream, kind, namespace, body in rows]

    return read


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock stands still."""
    monkeypatch.setattr(clock, "utc_now", lambda: NOW)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the monotonic clock finds it 2.5 milliseconds later."""
    ticks = iter(range(0, 10**12, 2_500_000))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=lambda: next(ticks)))


def set_remote(store: SessionStore) -> None:
    store._write(lambda db: queries.subscription.set_remote(db, Remote(REMOTE)))


def refuse_rows(store: SessionStore, table: str) -> None:
    """From now on nothing can be added to a table."""
    refusal = f"CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    store._write(lambda db: db.driver.execute(refusal).fetchall())


# -- record


@pytest.mark.usefixtures("frozen")
def test_a_figure_is_stored_as_it_was_given(store: SessionStore, metrics: Callable[[], Any]) -> None:
    store.record("tool.hits", 3)
    store.record("cost", 0.25, "EUR", {"model": "m-1", "deep": {"a": [1, None]}}, agent_id="helper", session_id="chat-7")
    plain = {"namespace": "", "unit": None, "agent_id": None, "session_id": None, "attributes": None}
    at = {"occurred_at": "2026-03-01 12:00:00.000000"}
    attributes = {"model": "m-1", "deep": {"a": [1, None]}}
    assert metrics() == [
        {**plain, **at, "name": "tool.hits", "value": 3.0},
        {"namespace": "", **at, "name": "cost", "value": 0.25, "unit": "EUR", "agent_id": "helper", "session_id": "chat-7",
         "attributes": attributes},
    ]  # fmt: skip


def test_namespaces_keep_their_figures_apart(store: SessionStore, metrics: Callable[[], Any], told: Callable[[], Any]) -> None:
    set_remote(store)
    store.in_namespace("other").session("s")
    store.record("x", 1, session_id="s")
    store.in_namespace("other").record("x", 2, session_id="s")
    assert [(row["namespace"], row["value"]) for row in metrics()] == [("", 1.0), ("other", 2.0)]
    streams = [(stream, namespace) for stream, kind, namespace, _ in told() if kind == "metric"]
    assert streams == [("session:s", ""), ("session:s", "other")]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *(("value", {"value": value}) for value in (math.nan, math.inf, -math.inf, True, "1", None, 1 + 2j, 2**63, NOW)),
        *(("name", {"name": name}) for name in ("", " x", "a\nb", None, 5, "x" * 257)),
        *((field, {field: bad}) for field in ("unit", "agent_id", "session_id") for bad in ("", "a\tb", 5)),
        ("attributes", {"attributes": [("a", 1)]}),
        ("attributes", {"attributes": {1: "a"}}),
        ("attributes", {"attributes": {"a": math.nan}}),
        ("attributes", {"attributes": {"a": NOW}}),
        ("attributes", {"attributes": {"a": "x" * (1 << 20)}}),
    ],
)
def test_what_is_no_figure_is_refused(
    store: SessionStore, metrics: Callable[[], Any], field: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        store.record(**{"name": "x", "value": 1, **arguments})
    assert refused.value.field == field
    assert metrics() == []


@pytest.mark.usefixtures("frozen")
def test_a_figure_waits_for_the_remote_in_the_stream_that_it_is_about(store: SessionStore, told: Callable[[], Any]) -> None:
    store.record("before", 1)
    set_remote(store)
    store.session("live", agent_id="helper")
    store.record("of session", 1, "n", {"a": 1}, agent_id="helper", session_id="live")
    store.record("of agent", 2, agent_id="helper")
    store.record("loose", 3)
    at = {"timestamp": "2026-03-01T12:00:00+00:00"}
    assert [event for event in told() if event[1] == "metric"] == [
        ("session:live", "metric", "", {**at, "name": "of session", "value": 1.0, "unit": "n", "agent_id": "helper",
                                        "session_id": "live", "attributes": {"a": 1}}),
        ("agent:helper", "metric", "", {**at, "name": "of agent", "value": 2.0, "agent_id": "helper"}),
        ("metrics", "metric", "", {**at, "name": "loose", "value": 3.0}),
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["outbox", "metric_events"])
def test_a_figure_and_its_event_are_stored_both_or_neither(
    store: SessionStore, metrics: Callable[[], Any], told: Callable[[], Any], table: str
) -> None:
    set_remote(store)
    store.record("kept", 1)
    refuse_rows(store, table)
    with pytest.raises(sessionstore.SessionStoreError):
        store.record("refused", 1)
    assert [row["name"] for row in metrics()] == [body["name"] for *_, body in told()] == ["kept"]


def test_without_a_remote_nothing_waits(store: SessionStore, told: Callable[[], Any]) -> None:
    store.record("x", 1)
    assert told() == []


@pytest.mark.parametrize("attributes", [{"a": 'q"\\\n\u2028é', "b": 1e300, "c": [None, True]}, {}, None])
def test_the_remote_is_told_a_figure_as_it_is_stored(store: SessionStore, told: Callable[[], Any], attributes: Any) -> None:
    set_remote(store)
    odd = 'a "quoted" \\ name, ünïcode'
    store.record(odd, -0.1, odd, attributes, agent_id=odd, session_id=odd)
    ((stream, _, _, body),) = told()
    expected = {"name": odd, "value": -0.1, "unit": odd, "agent_id": odd, "session_id": odd}
    assert stream == f"session:{odd}"
    assert body.pop("timestamp")
    assert body == {**expected, **({"attributes": attributes} if attributes else {})}


# -- record_many


@pytest.mark.usefixtures("frozen")
def test_many_figures_are_stored_and_told_in_their_order_as_single_ones_are(
    store: SessionStore, metrics: Callable[[], Any], told: Callable[[], Any]
) -> None:
    set_remote(store)
    new = [
        NewMetric("of session", 1, "n", {"a": 1}, agent_id="helper", session_id="live"),
        NewMetric("of agent", 2.5, agent_id="helper"),
        NewMetric("loose", 3),
    ]
    store.record_many(figure for figure in new)
    together = metrics(), told()
    for figure in new:
        store.record(
            figure.name, figure.value, figure.unit, figure.attributes, agent_id=figure.agent_id, session_id=figure.session_id
        )
    assert (metrics(), told()) == (together[0] * 2, together[1] * 2)
    assert [row["name"] for row in together[0]] == ["of session", "of agent", "loose"]
    assert [stream for stream, *_ in together[1]] == ["session:live", "agent:helper", "metrics"]


def test_many_figures_are_one_commit(store: SessionStore) -> None:
    before = store.status().commits
    store.record_many([NewMetric("x", number) for number in range(50)])
    assert store.status().commits == before + 1


def test_no_figures_at_all_are_allowed(store: SessionStore, metrics: Callable[[], Any], told: Callable[[], Any]) -> None:
    set_remote(store)
    store.record_many([])
    store.record_many(iter(()))
    assert metrics() == told() == []


@pytest.mark.parametrize(
    ("field", "figures"),
    [
        ("figures[1].name", [NewMetric("x", 1), NewMetric("", 1)]),
        ("figures[0].value", [NewMetric("x", math.nan), NewMetric("", 1)]),
        ("figures[2].unit", [NewMetric("x", 1), NewMetric("x", 1), NewMetric("x", 1, "a\tb")]),
        ("figures[1].attributes", [NewMetric("x", 1), NewMetric("x", 1, attributes={"a": NOW})]),
        ("figures[1].agent_id", [NewMetric("x", 1), NewMetric("x", 1, agent_id=" ")]),
        ("figures[1].session_id", [NewMetric("x", 1), NewMetric("x", 1, session_id="")]),
        ("figures[1].at", [NewMetric("x", 1), NewMetric("x", 1, at=NOW.replace(tzinfo=None))]),
        ("figures[1]", [NewMetric("x", 1), ("x", 1)]),
        ("figures[0]", [None]),
        ("figures", "words"),
        ("figures", {"x": 1}),
        ("figures", NewMetric("x", 1)),
        ("figures", [NewMetric("x", 1)] * 100_001),
    ],
)
def test_one_bad_figure_of_many_is_named_and_none_is_stored(
    store: SessionStore, metrics: Callable[[], Any], field: str, figures: Any
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        store.record_many(figures)
    assert refused.value.field == field
    assert metrics() == []


def test_of_endless_figures_no_more_are_read_than_a_call_may_have(store: SessionStore, metrics: Callable[[], Any]) -> None:
    endless = itertools.count()
    with pytest.raises(InvalidInputError) as refused:
        store.record_many(NewMetric("x", next(endless)) for _ in itertools.repeat(None))
    assert (refused.value.field, refused.value.limit, next(endless)) == ("figures", 100_000, 100_001)
    assert metrics() == []


def test_figures_whose_making_fails_are_not_stored(store: SessionStore, metrics: Callable[[], Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        store.record_many(NewMetric("x", 1 / number) for number in (2, 1, 0))
    assert metrics() == []


@pytest.mark.parametrize("table", ["outbox", "metric_events"])
def test_many_figures_and_their_events_are_stored_all_or_none(
    store: SessionStore, metrics: Callable[[], Any], told: Callable[[], Any], table: str
) -> None:
    set_remote(store)
    store.record("kept", 1)
    name = "name" if table == "metric_events" else "body"
    refusal = f"CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN instr(NEW.{name}, 'third') BEGIN SELECT RAISE(ABORT, 'no'); END"
    store._write(lambda db: db.driver.execute(refusal).fetchall())
    with pytest.raises(sessionstore.SessionStoreError):
        store.record_many([NewMetric(name, 1) for name in ("first", "second", "third")])
    assert [row["name"] for row in metrics()] == [body["name"] for *_, body in told()] == ["kept"]


@pytest.mark.usefixtures("frozen")
def test_a_figure_of_another_moment_is_stored_and_told_as_of_then(
    store: SessionStore, metrics: Callable[[], Any], told: Callable[[], Any]
) -> None:
    set_remote(store)
    later = NOW + timedelta(minutes=5)
    store.record_many([NewMetric("then", 1, at=later.astimezone(timezone(timedelta(hours=2)))), NewMetric("now", 2)])
    assert [row["occurred_at"] for row in metrics()] == ["2026-03-01 12:05:00.000000", "2026-03-01 12:00:00.000000"]
    assert [body["timestamp"] for *_, body in told()] == ["2026-03-01T12:05:00+00:00", "2026-03-01T12:00:00+00:00"]


@pytest.mark.usefixtures("frozen")
def test_a_figure_from_before_the_remote_was_set_is_told_once_by_a_backfill(store: SessionStore, told: Callable[[], Any]) -> None:
    store.record_many([NewMetric("stored before", 1, at=NOW - timedelta(days=2))])
    set_remote(store)
    store.record_many([NewMetric("of before", 2, at=NOW - timedelta(days=1)), NewMetric("at that moment", 3, at=NOW)])
    assert [body["name"] for *_, body in told()] == ["at that moment"]
    for _ in range(2):
        store.outbox.backfill()
        assert [body["name"] for *_, body in told()] == ["at that moment", "stored before", "of before"]
    store.record_many([NewMetric("late", 4, at=NOW - timedelta(days=3))])
    store.outbox.backfill()
    assert [body["name"] for *_, body in told()] == ["at that moment", "stored before", "of before", "late"]


@pytest.mark.usefixtures("frozen")
def test_a_figure_of_a_later_moment_that_was_stored_before_the_remote_was_set_is_told_once_by_a_backfill(
    store: SessionStore, told: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries.backfill, "_MOST_ROWS", 2)
    later = NOW + timedelta(days=1)
    store.record_many([NewMetric(f"planned {number}", number, at=later) for number in range(5)])
    store.record("just before", 5)
    store.record_many([NewMetric("of long before", 6, at=NOW - timedelta(days=1))])
    set_remote(store)
    store.record_many([NewMetric("told at once", 7, at=later)])
    stored_before = ["just before", "of long before", *(f"planned {number}" for number in range(5))]
    for _ in range(2):
        store.outbox.backfill()
        names = [body["name"] for *_, body in told()]
        assert (names[0], sorted(names[1:])) == ("told at once", stored_before)
    # What was told to one remote that took nothing goes to the next one.
    store.set_remote(None, replace=True)
    set_remote(store)
    store.outbox.backfill()
    assert [body["name"] for *_, body in told()] == names


@pytest.mark.usefixtures("frozen")
def test_another_remote_is_told_the_figures_of_later_moments_too(store: SessionStore, told: Callable[[], Any]) -> None:
    set_remote(store)
    store.record_many([NewMetric("planned", 1, at=NOW + timedelta(days=1))])
    store._write(lambda db: db.driver.execute("DELETE FROM outbox").fetchall())
    store._write(lambda db: db.driver.execute("UPDATE sync_state SET last_sent_at = ?", (db.now_text,)).fetchall())
    store.set_remote("https://other.example", replace=True)
    for _ in range(2):
        store.outbox.backfill()
        assert [body["name"] for *_, body in told()] == ["planned"]


def test_a_backfill_tells_a_figure_with_damaged_attributes_without_them(store: SessionStore, told: Callable[[], Any]) -> None:
    store.record("sound", 1, attributes={"a": 1})
    store.record("damaged", 2, attributes={"a": 1})
    store._write(lambda db: db.driver.execute("UPDATE metric_events SET attributes = '{bad' WHERE name = 'damaged'").fetchall())
    set_remote(store)
    assert store.outbox.backfill().events == 2
    assert [(body["name"], body.get("attributes")) for *_, body in told()] == [("sound", {"a": 1}), ("damaged", None)]


def test_a_new_metric_shows_neither_its_value_nor_its_attributes() -> None:
    metric = NewMetric("cost", 0.123, "EUR", {"words": "secret"}, session_id="s")
    assert repr(metric) == "NewMetric(name='cost', agent_id=None, session_id='s', at=None)"
    assert metric == NewMetric("cost", 0.123, "EUR", {"words": "secret"}, session_id="s")


@pytest.mark.anyio
async def test_many_figures_are_recorded_awaited_too(store: SessionStore, metrics: Callable[[], Any]) -> None:
    awaited = sessionstore.AsyncSessionStore(store)
    await awaited.record_many([NewMetric("a", 1), NewMetric("b", 2)])
    with pytest.raises(InvalidInputError, match=r"figures\[0\]\.name"):
        await awaited.record_many([NewMetric("", 1)])
    assert [row["name"] for row in metrics()] == ["a", "b"]


# -- timers around blocks


@pytest.mark.usefixtures("steps")
def test_a_block_is_timed_in_milliseconds(store: SessionStore, metrics: Callable[[], Any]) -> None:
    with store.timer("tool.search", agent_id="a", session_id="s", attributes={"engine": "fts"}) as running:
        running.attributes["hits"] = 3
    (row,) = metrics()
    assert (row["name"], row["value"], row["unit"], row["agent_id"], row["session_id"]) == ("tool.search", 2.5, "ms", "a", "s")
    assert row["attributes"] == {"engine": "fts", "hits": 3, "ok": True}


def test_an_exception_passes_through_and_is_named(store: SessionStore, metrics: Callable[[], Any]) -> None:
    error = KeyError("secret words")
    with pytest.raises(KeyError) as raised, store.timer("x"):
        raise error
    assert raised.value is error
    assert [row["attributes"] for row in metrics()] == [{"ok": False, "error": "KeyError"}]


def test_a_timer_times_one_block_after_another_but_not_two_at_once(store: SessionStore, metrics: Callable[[], Any]) -> None:
    timer = store.timer("x", attributes={"seen": []})
    with timer as first:
        first.attributes["seen"].append(1)
        with pytest.raises(RuntimeError, match="already"), timer:
            pass
    with timer as second:
        assert second.attributes == {"seen": []}
    assert [row["attributes"] for row in metrics()] == [{"seen": [1], "ok": True}, {"seen": [], "ok": True}]


def test_blocks_nest(store: SessionStore, metrics: Callable[[], Any]) -> None:
    with store.timer("outer"), store.timer("inner"):
        pass
    inner, outer = metrics()
    assert (inner["name"], outer["name"]) == ("inner", "outer")
    assert inner["value"] <= outer["value"]


def test_a_block_needs_a_name(store: SessionStore) -> None:
    with pytest.raises(InvalidInputError, match="name"), store.timer():
        pass


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", {"name": ""}),
        ("agent_id", {"agent_id": 5}),
        ("session_id", {"session_id": "a\n"}),
        ("attributes", {"attributes": {"a": math.inf}}),
        ("strict", {"strict": 1}),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(store: SessionStore, field: str, arguments: dict[str, Any]) -> None:
    for make in (store.timer, sessionstore.AsyncSessionStore(store).timer):
        with pytest.raises(InvalidInputError) as refused:
            make(**arguments)
        assert refused.value.field == field


# -- what cannot be recorded


def test_a_time_that_cannot_be_recorded_is_logged_and_counted(
    store: SessionStore, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sessionstore.open(store_path, read_only=True) as reader:

        @reader.track
        def work() -> str:
            return "done"

        assert work() == "done"
        with reader.timer("block"):
            pass
    assert store.status().metrics_lost == 2
    lost = [record for record in caplog.records if record.event == "metric_lost"]  # type: ignore[attr-defined]
    assert [(record.name, record.levelno, record.metric) for record in lost] == [  # type: ignore[attr-defined]
        ("sessionstore", logging.WARNING, work.__qualname__),
        ("sessionstore", logging.WARNING, "block"),
    ]


def test_attributes_that_are_no_json_lose_the_time_not_the_program(store: SessionStore, metrics: Callable[[], Any]) -> None:
    with store.timer("x") as running:
        running.attributes["when"] = NOW
    assert store.status().metrics_lost == 1
    assert metrics() == []


def test_a_closed_store_does_not_stop_the_program(store: SessionStore) -> None:
    timed = store.track(len)
    store.close()
    assert timed("abc") == 3
    with pytest.raises(sessionstore.ClosedStoreError):
        store.record("x", 1)


def test_a_strict_timer_raises_what_recording_raised(store: SessionStore, store_path: Path) -> None:
    with sessionstore.open(store_path, read_only=True) as reader:
        with pytest.raises(sessionstore.ReadOnlyStoreError), reader.timer("x", strict=True):
            pass
        with pytest.raises(sessionstore.ReadOnlyStoreError):
            reader.track("x", strict=True)(len)("abc")
    assert store.status().metrics_lost == 0


def test_a_strict_timer_never_hides_the_exception_of_the_program(store: SessionStore, store_path: Path) -> None:
    with (
        sessionstore.open(store_path, read_only=True) as reader,
        pytest.raises(ZeroDivisionError),
        reader.timer("x", strict=True),
    ):
        _ = 1 / 0
    assert store.status().metrics_lost == 1


# -- functions


def test_a_tracked_function_goes_by_its_qualified_name(store: SessionStore, metrics: Callable[[], Any]) -> None:
    class Agent:
        @store.track
        def answer(self, question: str, /, *, loud: bool = False) -> str:
            """Answer it."""
            return question.upper() if loud else question

    assert Agent().answer("x", loud=True) == "X"
    assert Agent.answer.__doc__ == "Answer it."
    assert list(inspect.signature(Agent.answer).parameters) == ["self", "question", "loud"]
    assert [row["name"] for row in metrics()] == [Agent.answer.__qualname__]


@pytest.mark.usefixtures("steps")
def test_a_tracked_function_takes_a_name_and_what_else_is_known(store: SessionStore, metrics: Callable[[], Any]) -> None:
    @store.track("tool.add", agent_id="a", session_id="s", attributes={"kind": "tool"})
    def add(first: int, second: int) -> int:
        return first + second

    @store.timer(agent_id="b")
    def fail() -> None:
        raise ValueError

    assert add(1, second=2) == 3
    with pytest.raises(ValueError, match=r"^$"):
        fail()
    first, second = metrics()
    assert (first["name"], first["value"], first["agent_id"], first["session_id"]) == ("tool.add", 2.5, "a", "s")
    assert first["attributes"] == {"kind": "tool", "ok": True}
    assert (second["name"], second["agent_id"]) == (fail.__qualname__, "b")
    assert second["attributes"] == {"ok": False, "error": "ValueError"}


def test_a_tracked_function_may_call_itself(store: SessionStore, metrics: Callable[[], Any]) -> None:
    @store.track
    def factorial(number: int) -> int:
        return number * factorial(number - 1) if number else 1

    assert factorial(5) == 120
    assert len(metrics()) == 6


def test_sixteen_threads_count_exactly(store: SessionStore, metrics: Callable[[], Any]) -> None:
    together = threading.Barrier(16)

    @store.track("work")
    def work(number: int) -> int:
        if number % 5 == 0:
            raise ValueError(number)
        return number

    def run(thread: int) -> None:
        together.wait(60)
        for number in range(25):
            with suppress(ValueError):
                assert work(number) == number
            store.record("done", thread)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(16)))
    rows = metrics()
    assert [sum(row["name"] == name for row in rows) for name in ("work", "done")] == [400, 400]
    assert sum(row["attributes"] == {"ok": False, "error": "ValueError"} for row in rows) == 80
    assert sum(row["value"] for row in rows if row["name"] == "done") == 25 * sum(range(16))
    assert store.status().metrics_lost == 0


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Generating:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (generator, "generator"),
        (async_generator, "generator"),
        (functools.partial(generator), "generator"),
        (Generating(), "generator"),
        (staticmethod(len), "@staticmethod"),
        (classmethod(len), "@classmethod"),
        (Generating, "functions"),
    ],
)
def test_what_cannot_be_timed_is_refused_with_a_reason(store: SessionStore, what: Any, reason: str) -> None:
    for owner in (store, sessionstore.AsyncSessionStore(store)):
        with pytest.raises(TypeError, match=reason):
            owner.timer("x")(what)


def test_what_has_no_name_of_its_own_must_be_given_one(store: SessionStore, metrics: Callable[[], Any]) -> None:
    shout = functools.partial(str.replace, "a")
    with pytest.raises(InvalidInputError, match="name"):
        store.track(shout)
    assert store.track("shout")(shout)("a", "b") == "b"
    assert [row["name"] for row in metrics()] == ["shout"]


# -- the asynchronous face


async def fail_later() -> None:
    await anyio.lowlevel.checkpoint()
    raise LookupError


@pytest.mark.anyio
@pytest.mark.usefixtures("steps")
async def test_figures_and_times_are_awaited(store: SessionStore, metrics: Callable[[], Any]) -> None:
    shared = sessionstore.AsyncSessionStore(store)
    assert await shared.record("x", 1, "n", {"a": 1}, agent_id="a", session_id="s") is None

    @shared.track("named", agent_id="a")
    async def double(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number

    assert await double(4) == 8
    assert inspect.iscoroutinefunction(double)
    async with shared.timer("block", attributes={"a": 1}) as running:
        running.attributes["hits"] = 3
    with pytest.raises(LookupError):
        await shared.track(fail_later)()
    rows = [(row["name"], row["value"], row["agent_id"], row["attributes"]) for row in metrics()]
    assert rows == [
        ("x", 1.0, "a", {"a": 1}),
        ("named", 2.5, "a", {"ok": True}),
        ("block", 2.5, None, {"a": 1, "hits": 3, "ok": True}),
        ("fail_later", 2.5, None, {"ok": False, "error": "LookupError"}),
    ]


@pytest.mark.anyio
async def test_a_synchronous_store_times_coroutine_functions_too(store: SessionStore, metrics: Callable[[], Any]) -> None:
    class Caller:
        async def __call__(self) -> str:
            await anyio.lowlevel.checkpoint()
            return "called"

    with pytest.raises(LookupError):
        await store.track(fail_later)()
    assert await store.track("object")(Caller())() == "called"
    assert await store.timer("partial")(functools.partial(Caller.__call__, Caller()))() == "called"
    rows = [(row["name"], row["attributes"]) for row in metrics()]
    assert rows == [
        ("fail_later", {"ok": False, "error": "LookupError"}),
        ("object", {"ok": True}),
        ("partial", {"ok": True}),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("face", [lambda store: store, sessionstore.AsyncSessionStore], ids=["sync", "async"])
async def test_recording_the_time_of_a_coroutine_does_not_block_its_loop(
    store_path: Path, face: Callable[[SessionStore], Any]
) -> None:
    """Only a loop that goes on can let the writer go that the recording waits for."""
    with sessionstore.open(store_path, busy_timeout=5) as store:
        entered, leave = threading.Event(), threading.Event()

        def hold(_: Any) -> None:
            entered.set()
            assert leave.wait(60)

        holder = threading.Thread(target=store._write, args=(hold,))
        holder.start()
        assert await anyio.to_thread.run_sync(entered.wait, 60)
        ended = anyio.Event()

        @face(store).track("x", strict=True)
        async def work() -> None:
            ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await ended.wait()
            leave.set()
        holder.join()
        assert store.status().metrics_lost == 0


@pytest.mark.anyio
async def test_what_is_cancelled_is_recorded_and_cancelled(store: SessionStore, metrics: Callable[[], Any]) -> None:
    shared = sessionstore.AsyncSessionStore(store)

    async def block() -> None:
        async with shared.timer("x"):
            await anyio.sleep_forever()

    for work in (block, shared.track("x")(anyio.sleep_forever), store.track("x")(anyio.sleep_forever)):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await work()
        assert scope.cancelled_caught
    cancelled = anyio.get_cancelled_exc_class().__name__
    assert [row["attributes"] for row in metrics()] == [{"ok": False, "error": cancelled}] * 3


@pytest.mark.anyio
async def test_a_time_that_cannot_be_awaited_into_the_store_is_lost_quietly_unless_strict(
    store: SessionStore, store_path: Path
) -> None:
    async def work() -> str:
        return "done"

    with sessionstore.open(store_path, read_only=True) as reader:
        for face in (reader, sessionstore.AsyncSessionStore(reader)):
            assert await face.track(work)() == "done"
            with pytest.raises(sessionstore.ReadOnlyStoreError):
                await face.track("x", strict=True)(work)()
            with pytest.raises(LookupError):
                await face.track("x", strict=True)(fail_later)()
        async with sessionstore.AsyncSessionStore(reader).timer("block"):
            pass
    assert store.status().metrics_lost == 5


def test_a_coroutine_that_is_closed_early_is_no_error(store: SessionStore, metrics: Callable[[], Any]) -> None:
    """As a loop does with what is left at its end; nothing can be awaited any more."""

    class Once:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def work() -> None:
        await Once()

    for face in (store, sessionstore.AsyncSessionStore(store)):
        coroutine = face.track(work)()
        coroutine.send(None)
        coroutine.close()
    assert store.status().metrics_lost == 2
    assert metrics() == []


@pytest.mark.anyio
async def test_a_plain_function_cannot_be_tracked_by_the_asynchronous_face(store: SessionStore) -> None:
    with pytest.raises(TypeError, match="await"):
        sessionstore.AsyncSessionStore(store).track(len)


@pytest.mark.anyio
async def test_many_tasks_count_exactly(store: SessionStore, metrics: Callable[[], Any]) -> None:
    shared = sessionstore.AsyncSessionStore(store)

    @shared.track("task")
    async def work() -> None:
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(work)
    assert [row["name"] for row in metrics()] == ["task"] * 200


def test_both_faces_time_by_the_same_arguments() -> None:
    for name in ("timer", "track"):
        first = inspect.signature(getattr(SessionStore, name))
        second = inspect.signature(getattr(sessionstore.AsyncSessionStore, name))
        assert first.parameters == second.parameters
        assert str(first.return_annotation) == str(second.return_annotation).replace("Async", "")


def test_a_plain_asyncio_task_that_is_cancelled_twice_ends(store: SessionStore) -> None:
    """asyncio's own cancel() reaches through shields; the recording ends, and so does the task."""
    shared = sessionstore.AsyncSessionStore(store)

    async def main() -> None:
        async def block() -> None:
            async with shared.timer("x"):
                await asyncio.sleep(3600)

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert store.status().metrics_lost == 0
