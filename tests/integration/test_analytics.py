"""Analytics: every figure against the same figure computed in plain Python, and the call for the user's own SQL."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import DAY, FIRST_DAY, HOUR, Message, Session, at, record, records

import sessionstore
from sessionstore import InvalidInputError, sql
from sessionstore.queries.analytics import figures
from sessionstore.values import SEARCH_TABLES

BUCKETS = (None, "hour", "day", "week", "month")
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001
MICROSECOND = timedelta(microseconds=1)
random_test = settings(
    max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sessionstore.SessionStore]:
    """One file for all random examples; each writes into namespaces of its own."""
    with sessionstore.open(tmp_path_factory.mktemp("analytics") / "agent.db", durability="normal") as store:
        yield store


# -- the same in plain Python


def figures_of_success(sessions: list[Session]) -> dict[str, Any]:
    status = Counter(session.status for session in sessions)
    ended = status["completed"] + status["failed"]
    return {
        "total": len(sessions),
        "completed": status["completed"],
        "failed": status["failed"],
        "expired": status["expired"],
        "active": status["open"],
        "success_rate": status["completed"] / ended if ended else None,
    }


def figures_of_times(values: Iterable[float], unit: str = "ms") -> dict[str, Any]:
    values = sorted(values)
    found: dict[str, Any] = {"count": len(values)}
    found[f"mean_{unit}"] = pytest.approx(sum(map(Fraction, values)) / len(values), rel=1e-12) if values else None
    for percent in (50, 95, 99):
        place = math.ceil(Fraction(percent * len(values), 100))
        found[f"p{percent}_{unit}"] = values[place - 1] if values else None
    found[f"min_{unit}"] = min(values, default=None)
    found[f"max_{unit}"] = max(values, default=None)
    return found


def figures_of_quality(sessions: list[Session]) -> dict[str, Any]:
    scores = [session.score for session in sessions if session.score is not None]
    mean = pytest.approx(sum(scores) / len(scores)) if scores else None
    return {"count": len(scores), "mean": mean, "distribution": {str(score): scores.count(score) for score in range(1, 6)}}


def figures_of_tokens(messages: list[Message]) -> dict[str, Any]:
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")
    sums = {name: sum(message.tokens[place] or 0 for message in messages) for place, name in enumerate(names)}
    return {"messages": len(messages), **sums}


def figures_of_failures(sessions: list[Session]) -> dict[str, Any]:
    return {"count": len(sessions), "last_at": max(ended_at(session) for session in sessions).isoformat()}


def ended_at(session: Session) -> datetime:
    assert session.ended_at is not None
    return session.ended_at


def duration(session: Session) -> float:
    return (ended_at(session) - session.created_at).total_seconds()


def groups(items: Iterable[Any], key: Callable[[Any], str | None]) -> list[tuple[str | None, list[Any]]]:
    """By name, in its order, None last."""
    items = list(items)
    names = {key(item) for item in items}
    in_order: list[str | None] = [*sorted(name for name in names if name is not None), *([None] if None in names else [])]
    return [(name, [item for item in items if key(item) == name]) for name in in_order]


def by_agent(pairs: Iterable[tuple[str | None, Any]], figures: Callable[[list[Any]], dict[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    agents = [{"agent_id": agent, **figures([item for _, item in found])} for agent, found in groups(pairs, lambda pair: pair[0])]
    return {"agents": agents, "overall": figures([item for _, item in pairs])}


class Expected:
    """The answers, for some sessions and some messages of sessions."""

    def __init__(self, sessions: list[Session], messages: list[tuple[Session, Message]]) -> None:
        self.sessions = sessions
        self.messages = messages

    def success_rates(self) -> dict[str, Any]:
        return by_agent([(session.agent_id, session) for session in self.sessions], figures_of_success)

    def response_times(self) -> dict[str, Any]:
        timed = [(session.agent_id, message.time_ms) for session, message in self.messages if message.time_ms is not None]
        ended = [(session.agent_id, duration(session)) for session in self.sessions if session.status in ("completed", "failed")]
        durations = by_agent(ended, lambda values: figures_of_times(values, "s"))
        return {**by_agent(timed, figures_of_times), "conversation_duration_s": durations}

    def quality(self) -> dict[str, Any]:
        return by_agent([(session.agent_id, session) for session in self.sessions if session.score], figures_of_quality)

    def tokens(self) -> dict[str, Any]:
        told = [(session.agent_id, message) for session, message in self.messages if set(message.tokens) != {None}]
        models = groups([message for _, message in told], lambda message: message.model)
        by_model = [{"model": model, **figures_of_tokens(found)} for model, found in models]
        return {**by_agent(told, figures_of_tokens), "models": by_model}

    def failed(self) -> list[Session]:
        return [session for session in self.sessions if session.status == "failed"]

    def failures(self) -> dict[str, Any]:
        failed = self.failed()
        agents = groups(failed, lambda each: each.agent_id)
        errors = groups(failed, lambda each: each.error)
        by_error = [{"error": error, **figures_of_failures(found)} for error, found in errors]
        return {
            "total": len(failed),
            "by_agent": [{"agent_id": agent, **figures_of_failures(found)} for agent, found in agents],
            "by_error": sorted(by_error, key=lambda each: (each["count"], each["last_at"]), reverse=True),
        }


def selected(made: list[Session], namespace: str, period: Any, *, agent: str | None = None, name: str | None = None) -> Expected:
    """What a call looks at."""
    start, end = map(as_instant, period)

    def in_period(instant: datetime) -> bool:
        return (start is None or start <= instant) and (end is None or instant < end)

    mine = [
        session
        for session in made
        if session.namespace == namespace and agent in (None, session.agent_id) and name in (None, session.session_id)
    ]
    messages = [(session, message) for session in mine for message in session.messages if in_period(message.created_at)]
    return Expected([session for session in mine if in_period(session.created_at)], messages)


def start_of(instant: datetime, bucket: str) -> datetime:
    """Where the bucket of an instant begins."""
    hour = instant.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return {"hour": hour, "day": day, "week": day - day.weekday() * DAY, "month": day.replace(day=1)}[bucket]


def with_buckets(call: str, expected: Expected, bucket: str | None) -> dict[str, Any]:
    """The whole answer of a call."""
    answer = getattr(expected, call)()
    if bucket is None:
        return answer
    starts = {start_of(session.created_at, bucket) for session in expected.sessions}
    starts |= {start_of(message.created_at, bucket) for _, message in expected.messages}
    answer["buckets"] = []
    for start in sorted(starts):
        part = Expected(
            [session for session in expected.sessions if start_of(session.created_at, bucket) == start],
            [(session, message) for session, message in expected.messages if start_of(message.created_at, bucket) == start],
        )
        figures = getattr(part, call)()
        if holds_anything(figures):
            answer["buckets"].append({"start": start.isoformat(), **figures})
    return answer


def holds_anything(figures: dict[str, Any]) -> bool:
    inner = figures.get("conversation_duration_s", {"agents": []})
    return bool(figures.get("agents") or figures.get("by_agent") or inner["agents"])


days = st.none() | st.integers(-1, 46).map(lambda day: FIRST_DAY.date() + day * DAY)
moments = days | st.integers(0, 46 * 24).map(lambda hours: FIRST_DAY + hours * HOUR)
periods = st.tuples(moments, moments).filter(lambda ends: None in ends or as_instant(ends[0]) <= as_instant(ends[1]))


def as_instant(moment: date | None) -> Any:
    if moment is None or isinstance(moment, datetime):
        return moment
    return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)


@random_test
@given(
    recorded=records,
    period=periods,
    agent=st.sampled_from([None, "agent_001", "Агент", "nobody"]),
    bucket=st.sampled_from(BUCKETS),
)
def test_every_figure_is_what_plain_python_computes(
    shared: sessionstore.SessionStore, recorded: Any, period: Any, agent: str | None, bucket: Any
) -> None:
    made = record(shared, recorded[0], sweep=recorded[1])
    asked = {"agent_id": agent, "start_date": period[0], "end_date": period[1], "bucket": bucket}
    for namespace in {session.namespace for session in made} | {"empty"}:
        store = shared.in_namespace(namespace)
        expected = selected(made, namespace, period, agent=agent)
        overview = store.overview(**asked)
        for call in ("success_rates", "response_times", "quality", "tokens"):
            assert getattr(store, call)(**asked) == with_buckets(call, expected, bucket), call
            assert overview[call] == getattr(store, call)(**asked)  # type: ignore[literal-required]
        found = store.failures(**asked, limit=1_000)
        assert overview["failures"]["total"] == found["total"]
        sessions, following = found.pop("sessions"), found.pop("next")  # type: ignore[misc]
        assert (in_any_order(found), following) == (in_any_order(with_buckets("failures", expected, bucket)), None)
        assert sessions == [
            {
                "session_id": session.session_id,
                "agent_id": session.agent_id,
                "error_message": session.error,
                "ended_at": ended_at(session).isoformat(),
            }
            for session in sorted(expected.failed(), key=lambda each: (ended_at(each), made.index(each)), reverse=True)
        ]


def in_any_order(found: Any) -> Any:
    """Errors that are equally frequent and equally late come in no promised order."""
    return json.dumps(
        {
            **found,
            "by_error": sorted(found["by_error"], key=repr),
            "buckets": [in_any_order({**bucket}) for bucket in found.get("buckets", ())],
        },
        sort_keys=True,
    )


@random_test
@given(recorded=records, period=periods, bucket=st.sampled_from(BUCKETS))
def test_the_figures_of_one_session_are_those_of_all_sessions_of_its_id(
    shared: sessionstore.SessionStore, recorded: Any, period: Any, bucket: Any
) -> None:
    made = record(shared, recorded[0], sweep=recorded[1])
    for session in made[-3:]:
        store = shared.in_namespace(session.namespace)
        asked = {"session_id": session.session_id, "start_date": period[0], "end_date": period[1], "bucket": bucket}
        expected = selected(made, session.namespace, period, name=session.session_id)
        for call in ("response_times", "tokens"):
            assert getattr(store, call)(**asked) == with_buckets(call, expected, bucket), call
    nobody = shared.response_times(session_id="nobody")
    assert (nobody["agents"], nobody["overall"]["count"]) == ([], 0)


# -- the rules, one by one


@pytest.mark.parametrize(
    ("count", "ranks"),
    [
        (1, (1, 1, 1)),
        (2, (1, 2, 2)),
        (10, (5, 10, 10)),
        (11, (6, 11, 11)),
        (20, (10, 19, 20)),
        (100, (50, 95, 99)),
        (101, (51, 96, 100)),
    ],
)
def test_a_percentile_is_the_nearest_rank(store: sessionstore.SessionStore, count: int, ranks: tuple[int, int, int]) -> None:
    chat = store.session("s")
    for value in reversed(range(1, count + 1)):
        chat.append("assistant", "x", response_time_ms=value)
    overall = store.response_times()["overall"]
    assert (overall["p50_ms"], overall["p95_ms"], overall["p99_ms"]) == ranks
    assert (overall["min_ms"], overall["max_ms"], overall["mean_ms"]) == (1, count, (count + 1) / 2)


@settings(max_examples=200, print_blob=True)
@given(st.lists(st.floats(0, 1e12), max_size=250))
def test_the_figures_of_many_times_are_what_plain_python_computes(values: list[float]) -> None:
    assert figures.spread(list(values), "ms") == figures_of_times(values)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_answers_of_sessions_that_began_before_the_period_are_all_counted(store: sessionstore.SessionStore, bucket: Any) -> None:
    """Their agents are looked up beside those of the sessions that began in it."""
    made: list[Session] = []
    for number, (namespace, agent, began) in enumerate(
        product(("", "other"), (None, "a", "b"), (FIRST_DAY, FIRST_DAY + 5 * DAY, FIRST_DAY + 9 * DAY))
    ):
        there, name = store.in_namespace(namespace), f"s{number}"
        with at(began):
            there.create(name, agent_id=agent)
        session = Session(namespace, name, agent, "open", began, None, None, None)
        made.append(session)
        for turn in range(4):
            now = FIRST_DAY + (4 + 2 * turn) * DAY + number * HOUR
            with at(now):
                there.append(name, "assistant", "x", response_time_ms=100 * number + turn)
            session.messages.append(Message(turn + 1, "assistant", now, 100.0 * number + turn, "given", None, (None,) * 4))
    period = (FIRST_DAY + 5 * DAY, FIRST_DAY + 9 * DAY)
    for agent in (None, "a"):
        found = store.response_times(agent_id=agent, start_date=period[0], end_date=period[1], bucket=bucket)
        assert found == with_buckets("response_times", selected(made, "", period, agent=agent), bucket)
        assert found["overall"]["count"] == (18 if agent is None else 6)


def test_a_session_is_active_until_the_instant_of_its_expiry(store: sessionstore.SessionStore) -> None:
    with at(FIRST_DAY):
        store.create("s", ttl=60)
    for passed, active in ((timedelta(seconds=60) - MICROSECOND, 1), (timedelta(seconds=60), 0)):
        with at(FIRST_DAY + passed):
            overall = store.success_rates()["overall"]
        assert (overall["active"], overall["expired"], overall["total"]) == (active, 1 - active, 1)


def test_a_period_holds_its_start_and_not_its_end(store: sessionstore.SessionStore) -> None:
    with at(FIRST_DAY):
        store.session("s").append("assistant", "x", response_time_ms=1, input_tokens=1)
        store.end("s", "failed", quality_score=1)
    day = FIRST_DAY.date()
    for start, end, inside in (
        (day, None, 1),
        (None, day, 0),
        (day, day, 0),
        (FIRST_DAY + MICROSECOND, None, 0),
        (None, FIRST_DAY + MICROSECOND, 1),
        (FIRST_DAY.astimezone(), day + DAY, 1),
    ):
        found = store.overview(start_date=start, end_date=end)
        counts = (
            found["success_rates"]["overall"]["total"],
            found["response_times"]["overall"]["count"],
            found["response_times"]["conversation_duration_s"]["overall"]["count"],
            found["quality"]["overall"]["count"],
            found["failures"]["total"],
            len(found["failures"]["sessions"]),
            found["tokens"]["overall"]["messages"],
        )
        assert counts == (inside,) * 7, (start, end)


def test_an_overview_tells_its_period(store: sessionstore.SessionStore) -> None:
    assert store.overview()["period"] == {"start": None, "end": None}
    period = store.overview(start_date=date(2026, 1, 1), end_date=datetime(2026, 2, 1, 1, tzinfo=UTC))["period"]
    assert period == {"start": "2026-01-01T00:00:00+00:00", "end": "2026-02-01T01:00:00+00:00"}


def test_weeks_begin_on_monday_and_months_on_the_first(store: sessionstore.SessionStore) -> None:
    instants = ("2025-12-28T23:59:59.999999", "2025-12-29T00:00:00", "2026-01-04T23:59:59", "2026-01-05T00:00:00")
    for number, instant in enumerate(instants):
        with at(datetime.fromisoformat(instant).replace(tzinfo=UTC)):
            store.create(str(number))
    found = {bucket: store.success_rates(bucket=bucket)["buckets"] for bucket in ("week", "month")}  # type: ignore[arg-type]
    starts = {bucket: [(each["start"][:10], each["overall"]["total"]) for each in parts] for bucket, parts in found.items()}
    assert starts == {
        "week": [("2025-12-22", 1), ("2025-12-29", 2), ("2026-01-05", 1)],
        "month": [("2025-12-01", 2), ("2026-01-01", 2)],
    }


def test_answers_are_json_and_empty_ones_have_every_key(store: sessionstore.SessionStore) -> None:
    found = store.overview(bucket="day")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["success_rates"] == {
        "agents": [],
        "overall": {"total": 0, "completed": 0, "failed": 0, "expired": 0, "active": 0, "success_rate": None},
        "buckets": [],
    }
    assert found["failures"] == {"total": 0, "by_agent": [], "by_error": [], "buckets": [], "sessions": [], "next": None}
    assert set(found["response_times"]["overall"].values()) == {0, None}


def test_figures_too_large_to_add_up_still_give_an_answer(store: sessionstore.SessionStore) -> None:
    chat = store.session("s")
    for _ in range(2):
        chat.append("assistant", "x", response_time_ms=1.7e308, input_tokens=2**63 - 1)
    overall = store.response_times()["overall"]
    assert overall["mean_ms"] == overall["max_ms"] == 1.7e308
    assert store.tokens()["overall"]["input_tokens"] == 2**63 - 1
    assert store.query("SELECT input_tokens FROM v_token_usage_daily").rows == ((2**63 - 1,),)


def test_a_session_that_ended_at_an_unknown_time_failed_when_it_was_last_changed(tmp_path: Path) -> None:
    """An import may bring such a session."""
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store, at(FIRST_DAY):
        store.session("s")
        store.end("s", "failed")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE sessions SET ended_at = NULL")
    raw.close()
    with sessionstore.open(path) as store:
        found = store.failures()
        assert [session["ended_at"] for session in found["sessions"]] == [FIRST_DAY.isoformat()]
        assert found["by_agent"][0]["last_at"] == FIRST_DAY.isoformat()
        assert store.response_times()["conversation_duration_s"]["overall"]["count"] == 0
        assert store.query("SELECT ended_at, duration_seconds FROM v_failures").rows == (
            (FIRST_DAY.isoformat(" ", "microseconds")[:26], None),
        )


# -- pages of failures


@pytest.fixture
def failed(store: sessionstore.SessionStore) -> sessionstore.SessionStore:
    """A store with 25 failures, several at one instant."""
    for number in range(25):
        with at(FIRST_DAY + number // 3 * HOUR):
            store.create(str(number), agent_id=f"agent_{number % 2}")
            store.end(str(number), "failed", error=f"error {number % 3}")
    return store


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 24, 25, 26])
def test_pages_of_failures_hold_each_once_newest_first(failed: sessionstore.SessionStore, limit: int) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = failed.failures(limit=limit, cursor=cursor)
        assert page["total"] == 25
        seen += [session["session_id"] for session in page["sessions"]]
        cursor = page["next"]
        if cursor is None:
            break
        assert len(page["sessions"]) == limit
    assert seen == [str(number) for number in reversed(range(25))]


def test_errors_come_most_frequent_first_and_the_limit_bounds_them(failed: sessionstore.SessionStore) -> None:
    assert [(each["error"], each["count"]) for each in failed.failures()["by_error"]] in (
        [("error 0", 9), ("error 1", 8), ("error 2", 8)],
        [("error 0", 9), ("error 2", 8), ("error 1", 8)],
    )
    assert [each["error"] for each in failed.failures(limit=1)["by_error"]] == ["error 0"]


def test_a_cursor_of_failures_fits_its_own_scope_only(failed: sessionstore.SessionStore) -> None:
    cursor = failed.failures(limit=5)["next"]
    assert cursor is not None
    assert failed.failures(limit=3, cursor=cursor, bucket="day")["sessions"][0]["session_id"] == "19"
    of_list = failed.list(limit=5).next_cursor
    assert of_list is not None
    refused: list[dict[str, Any]] = [
        {"cursor": cursor, "agent_id": "agent_0"},
        {"cursor": cursor, "start_date": FIRST_DAY},
        {"cursor": cursor[:-4] + "AAA="},
        {"cursor": "x"},
        {"cursor": ""},
        {"cursor": "é"},
        {"cursor": "x" * 10_000},
        {"cursor": of_list},
        {"cursor": 5},
    ]
    for arguments in refused:
        with pytest.raises(InvalidInputError, match="cursor"):
            failed.failures(**arguments)
    with pytest.raises(InvalidInputError, match="cursor"):
        failed.in_namespace("other").failures(cursor=cursor)


# -- refused arguments


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("start_date", {"start_date": NAIVE}),
        ("start_date", {"start_date": "2026-01-01"}),
        ("end_date", {"end_date": 0}),
        ("end_date", {"start_date": date(2026, 1, 2), "end_date": date(2026, 1, 1)}),
        ("bucket", {"bucket": "year"}),
        ("bucket", {"bucket": 1}),
        ("agent_id", {"agent_id": ""}),
        ("agent_id", {"agent_id": 7}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("call", ["success_rates", "response_times", "quality", "failures", "tokens", "overview"])
def test_arguments_that_mean_nothing_are_refused(
    store: sessionstore.SessionStore, call: str, field: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        getattr(store, call)(**arguments)
    assert refusal.value.field == field


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, 1.5])
def test_a_limit_of_failures_is_from_one_to_a_thousand(store: sessionstore.SessionStore, limit: Any) -> None:
    with pytest.raises(InvalidInputError, match="limit"):
        store.failures(limit=limit)


# -- the async face


@pytest.mark.anyio
async def test_the_async_face_answers_the_same(failed: sessionstore.SessionStore) -> None:
    failed.session("s", agent_id="a").append("assistant", "x", response_time_ms=5, input_tokens=3)
    face = sessionstore.AsyncSessionStore(failed)
    assert await face.success_rates(bucket="day") == failed.success_rates(bucket="day")
    assert await face.response_times(session_id="s") == failed.response_times(session_id="s")
    assert await face.quality() == failed.quality()
    assert await face.failures(limit=3) == failed.failures(limit=3)
    assert await face.tokens(agent_id="a") == failed.tokens(agent_id="a")
    assert await face.overview() == failed.overview()
    assert await face.query("SELECT 1") == failed.query("SELECT 1")
    with pytest.raises(InvalidInputError):
        await face.query("DELETE FROM sessions")
    with pytest.raises(InvalidInputError):
        await face.failures(cursor="x")


# -- the user's own SQL


@pytest.fixture(params=["file", "memory", "read only"])
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sessionstore.SessionStore]:
    """Stores whose reads run in each of the ways there are."""
    path = None if request.param == "memory" else tmp_path / "agent.db"
    with sessionstore.open(path, in_memory=path is None) as store:
        for number in range(3):
            store.session(f"s{number}", agent_id="a").append("user", f"text {number}", model="m")
        if request.param != "read only":
            yield store
            return
    with sessionstore.open(path, read_only=True) as store:
        yield store


def test_a_query_gives_columns_and_rows(reading: sessionstore.SessionStore) -> None:
    found = reading.query("SELECT session_id, message_count AS messages, NULL, 1.5, x'00' FROM v_sessions ORDER BY 1")
    assert found.columns == ("session_id", "messages", "NULL", "1.5", "x'00'")
    assert found.rows == tuple((f"s{number}", 1, None, 1.5, b"\0") for number in range(3))
    assert found == reading.query("SELECT session_id, message_count AS messages, NULL, 1.5, x'00' FROM v_sessions ORDER BY 1;")
    assert "s0" not in repr(found)


def test_a_query_takes_parameters(reading: sessionstore.SessionStore) -> None:
    assert reading.query("SELECT ?, ?, ?, ?", [1, "é", None, b"x"]).rows == ((1, "é", None, b"x"),)
    assert reading.query("SELECT :a + :b", {"a": 1, "b": 2.5}).rows == ((3.5,),)
    count = "SELECT count(*) FROM v_sessions WHERE created_at < ?"
    assert reading.query(count, (datetime.now(UTC) + DAY,)).rows == ((3,),)
    assert reading.query(count, ((datetime.now(UTC) - DAY).astimezone(),)).rows == ((0,),)


def test_a_query_stops_at_its_limit(reading: sessionstore.SessionStore) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert reading.query(endless, limit=3).rows == ((1,), (2,), (3,))
    assert reading.query("SELECT 1 WHERE 0", limit=3) == sessionstore.QueryResult(("1",), ())
    for limit in (0, -1, True, "1"):
        with pytest.raises(InvalidInputError, match="limit"):
            reading.query("SELECT 1", limit=limit)  # type: ignore[arg-type]


READS = [
    "SELECT 1 -- because",
    "/* why */ SELECT 1",
    "  \n SELECT 1 ; ",
    "VALUES (1), (2)",
    "EXPLAIN SELECT 1",
    "EXPLAIN QUERY PLAN SELECT * FROM sessions",
    "SELECT value FROM json_each('[1, 2]')",
    "SELECT sql FROM sqlite_master",
    "SELECT count(*) OVER () FROM messages",
]


@pytest.mark.parametrize("text", READS)
def test_whatever_only_reads_is_run(reading: sessionstore.SessionStore, text: str) -> None:
    assert reading.query(text).rows


WRITES = [
    "DELETE FROM messages",
    "INSERT INTO session_tags VALUES (1, 't')",
    "UPDATE sessions SET title = 'x' RETURNING title",
    "WITH s AS (SELECT 1) DELETE FROM sessions",
    "REPLACE INTO session_tags VALUES (1, 't')",
    "EXPLAIN DELETE FROM messages",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE t (a)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TEMP TRIGGER t AFTER INSERT ON sessions BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE t USING fts5(a)",
    "CREATE INDEX i ON sessions (title)",
    "DROP TABLE messages",
    "DROP VIEW v_sessions",
    "ALTER TABLE sessions ADD COLUMN x",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "UPDATE sqlite_master SET sql = ''",
    "DELETE FROM sqlite_master",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "ANALYZE",
    "REINDEX",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "END",
    "SAVEPOINT s",
    "RELEASE s",
    "PRAGMA user_version",
    "PRAGMA user_version = 7",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA wal_checkpoint",
    "SELECT * FROM pragma_user_version",
    "SELECT load_extension('x')",
    "select LOAD_EXTENSION('x')",
]
MISTAKES = [
    "",
    "   ",
    "-- nothing",
    ";",
    "SELEC 1",
    "SELECT",
    "SELECT * FROM nothing",
    "SELECT nothing FROM sessions",
    "SELECT nothing()",
    "SELECT ?",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE messages",
    "SELECT json_extract('{', '$')",
    "SELECT abs(-9223372036854775808)",
    "SELECT CAST(x'ff' AS TEXT)",
    "SELECT '\0'",
    "SELECT '\ud800'",
    "SELECT zeroblob(9223372036854775807)",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT 1" + " " * 1_000_001,
]


@pytest.mark.parametrize("text", WRITES + MISTAKES, ids=lambda text: repr(text[:40]))
def test_anything_else_is_refused_and_changes_nothing(reading: sessionstore.SessionStore, text: str) -> None:
    before = everything(reading)
    with pytest.raises(InvalidInputError) as refusal:
        reading.query(text)
    assert refusal.value.field == "sql"
    assert len(str(refusal.value)) < 300
    assert everything(reading) == before


def everything(store: sessionstore.SessionStore) -> list[Any]:
    """All that the file holds, and whether the store still reads and checks it."""
    tables = [name for (name,) in store.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY 1").rows]
    # Two tell how old things are now; the full-text tables hold nothing but what SQLite keeps in tables of their names.
    left_out = ("v_outbox", "v_agent_status", *SEARCH_TABLES)
    stored = [store.query(f"SELECT * FROM {name}").rows for name in tables if name not in left_out]
    return [tables, stored, [message.text for message in store.messages("s1")]]


def test_a_refusal_tells_sqlites_words(store: sessionstore.SessionStore) -> None:
    for text, words in (
        ("SELECT * FROM absent", "no such table: absent"),
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("DELETE FROM messages", r"must only read \(not authorized\)"),
        ("SELECT CAST(x'ff' AS TEXT)", "gives a text that is no UTF-8"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            store.query(text)


@pytest.mark.parametrize(
    "parameters",
    [
        5,
        "x",
        None,
        {1},
        iter(()),
        [{}],
        [[]],
        [2**63],
        [-(2**63) - 1],
        [NAIVE],
        [date(2026, 1, 1)],
        ["\ud800"],
        [object()],
        {1: 1},
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
def test_parameters_that_sqlite_has_no_type_for_are_refused(store: sessionstore.SessionStore, parameters: Any) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        store.query("SELECT ?", parameters)
    assert refusal.value.field == "parameters"


UNFIT = [("SELECT ?", ()), ("SELECT ?", (1, 2)), ("SELECT :a", {"b": 1}), ("SELECT 1", (1,))]


@pytest.mark.parametrize(("text", "parameters"), UNFIT)
def test_parameters_that_do_not_fit_are_refused(store: sessionstore.SessionStore, text: str, parameters: Any) -> None:
    with pytest.raises(InvalidInputError):
        store.query(text, parameters)


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_store_goes_on_writing_after_queries_and_refusals(tmp_path: Path, in_memory: bool) -> None:
    """Also with the very statements that the connection has compiled before, in both directions."""
    with sessionstore.open(None if in_memory else tmp_path / "a.db", in_memory=in_memory) as store:
        chat = store.session("s")
        chat.append("user", "one")
        for text in (sql.INSERT_TAG, sql.SET_EXPIRY, "DELETE FROM sessions"):
            with pytest.raises(InvalidInputError):
                store.query(text, (None, 1) if "?" in text else ())
        with pytest.raises(InvalidInputError):
            store.query(sql.INSERT_MESSAGE, (1 << 24 | 9, "message", "user", "x", None, None, "x", 0))
        assert store.query(sql.READ_STORE_ID).rows == ((store.status().store_id,),)
        chat.append("user", "two")
        store.tag("s", "t")
        assert [message.text for message in chat.messages()] == ["one", "two"]
        assert store.doctor().ok


def test_queries_and_writes_of_other_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    with sessionstore.open(in_memory=True) as memory, sessionstore.open(tmp_path / "a.db", durability="normal") as file:
        for store in (memory, file):
            store.session("s")
            failures: list[BaseException] = []

            def write(store: sessionstore.SessionStore = store, failures: list[BaseException] = failures) -> None:
                try:
                    for _ in range(60):
                        store.append("s", "user", "x")
                except BaseException as error:
                    failures.append(error)

            def read(store: sessionstore.SessionStore = store, failures: list[BaseException] = failures) -> None:
                try:
                    for _ in range(60):
                        ((count,),) = store.query("SELECT count(*) FROM messages").rows
                        assert 0 <= count <= 120
                        with pytest.raises(InvalidInputError):
                            store.query("DELETE FROM messages")
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work) for work in (write, read, write, read)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert len(store.messages("s")) == 120


def test_damage_that_a_query_meets_is_not_called_a_mistake_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        store.session("s").append_many([{"role": "user", "content": "x" * 3_000}] * 200)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2 // 4096 * 4096
    damaged[middle : len(damaged) - 4096] = b"\xff" * (len(damaged) - 4096 - middle)
    path.write_bytes(damaged)
    with sessionstore.open(path) as store, pytest.raises(sessionstore.StoreCorruptError):
        store.query("SELECT sum(length(text)) FROM messages")


def test_a_closed_store_answers_nothing(store: sessionstore.SessionStore) -> None:
    store.close()
    for call in (store.overview, lambda: store.query("SELECT 1")):
        with pytest.raises(sessionstore.ClosedStoreError):
            call()
