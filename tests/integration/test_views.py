"""The views: the text in the file, each row against the same row computed in plain Python, and the document that promises them."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from recorded import DAY, FIRST_DAY, HOUR, NOW, Session, at, record, records
from test_analytics import figures_of_success, figures_of_times, figures_of_tokens

import sessionstore
from sessionstore import clock
from sessionstore.queries.views import VIEWS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "schema.md").read_text()
NAMES = ("v_sessions", "v_messages", "v_metric_events", "v_success_daily", "v_response_time_hourly", "v_quality_distribution",
         "v_failures", "v_agent_status", "v_token_usage_daily", "v_outbox", "v_sync", "v_transcripts")  # fmt: skip
in_checkout = pytest.mark.skipif(not (ROOT / "alembic.ini").is_file(), reason="alembic.ini is not in the installed package")
random_test = settings(
    max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

Row = dict[str, Any]


def read(path: Path, query: str, *values: Any) -> list[Row]:
    """The rows as another program sees them, without anything that this library registers."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        found = raw.execute(query, values)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def stored(instant: datetime | None) -> str | None:
    return None if instant is None else clock.to_text(instant)


# -- what is in the file


def test_the_file_has_the_views_of_the_module(store: sessionstore.SessionStore, store_path: Path) -> None:
    found = read(store_path, "SELECT name, sql FROM sqlite_master WHERE type = 'view' ORDER BY rowid")
    assert {row["name"]: row["sql"] for row in found} == VIEWS
    assert tuple(row["name"] for row in found) == tuple(VIEWS) == NAMES


def test_a_store_in_memory_has_them_too() -> None:
    with sessionstore.open(in_memory=True) as store:
        assert {name for (name,) in store.query("SELECT name FROM sqlite_master WHERE type = 'view'").rows} == set(NAMES)


@in_checkout
def test_a_downgrade_takes_the_views_away_and_an_upgrade_brings_them_back(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        store.session("s").append("user", "kept")
    command = [sys.executable, "-m", "alembic", "-x", f"db={path}", "downgrade", "0001"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read(path, "SELECT name FROM sqlite_master WHERE type = 'view'") == []
    with sessionstore.open(path) as store:
        assert [message.text for message in store.messages("s")] == ["kept"]
    assert [row["text"] for row in read(path, "SELECT text FROM v_messages")] == ["kept"]


def test_every_view_begins_with_the_namespace(store: sessionstore.SessionStore) -> None:
    """But for the one row that is about the whole file."""
    first = {name: store.query(f"SELECT * FROM {name}").columns[0] for name in NAMES}
    assert first == dict.fromkeys(NAMES, "namespace") | {"v_sync": "remote_url"}


# -- the document


@pytest.mark.parametrize("name", NAMES)
def test_the_document_names_every_column_of_a_view_and_no_other(store: sessionstore.SessionStore, name: str) -> None:
    section = re.split(r"\n##+ ", DOCUMENT.split(f"\n### {name}\n")[1])[0]
    named = [word for line in section.splitlines() for word in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")]
    assert sorted(named) == sorted(store.query(f"SELECT * FROM {name}").columns)


def test_the_statements_of_the_document_run(store: sessionstore.SessionStore) -> None:
    (block,) = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    statements = [statement for statement in block.split(";") if statement.strip()]
    assert len(statements) >= 4
    for statement in statements:
        store.query(statement)
    (in_pandas,) = re.findall(r'read_sql\("(.*?)"', DOCUMENT)
    assert "p95_ms" in store.query(in_pandas).columns
    (by_store,) = re.findall(r"^slowest = .*$", DOCUMENT, re.MULTILINE)
    names: dict[str, Any] = {"store": store}
    exec(by_store, names)
    assert names["slowest"].columns == ("session_id", "seq", "response_time_ms")


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 shell")
def test_the_shell_reads_every_view_as_the_document_shows(store: sessionstore.SessionStore, store_path: Path) -> None:
    store.session("s", agent_id="a").append("assistant", "x", response_time_ms=5, input_tokens=1)
    store.end("s", "failed", quality_score=2)
    shown = re.findall(r"^\$ (sqlite3 .*)$", DOCUMENT, re.MULTILINE)
    assert len(shown) >= 2
    for command in shown:
        done = subprocess.run(command, shell=True, cwd=store_path.parent, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES:
        command = ["sqlite3", "-readonly", str(store_path), f"SELECT * FROM {name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert bool(done.stdout) == (name not in ("v_metric_events", "v_agent_status", "v_outbox"))


# -- random records


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sessionstore.SessionStore, Path]]:
    """One file for all random examples; each writes into namespaces of its own."""
    path = tmp_path_factory.mktemp("views") / "agent.db"
    with sessionstore.open(path, durability="normal") as store:
        yield store, path


@random_test
@given(recorded=records)
def test_every_view_shows_what_plain_python_computes(shared: Any, recorded: Any) -> None:
    store, path = shared
    made = record(store, recorded[0], sweep=recorded[1])
    for namespace in {session.namespace for session in made}:
        mine = [session for session in made if session.namespace == namespace]
        for view, expected in (
            ("v_sessions", sessions_of(mine)),
            ("v_messages", messages_of(mine)),
            ("v_success_daily", success_of(mine)),
            ("v_response_time_hourly", times_of(mine)),
            ("v_quality_distribution", quality_of(mine)),
            ("v_failures", failures_of(mine)),
            ("v_token_usage_daily", tokens_of(mine)),
        ):
            columns = ", ".join(expected[0]) if expected else "*"
            found = read(path, f"SELECT {columns} FROM {view} WHERE namespace = ?", namespace)
            assert in_order(found) == in_order({"namespace": namespace, **row} for row in expected), view


def in_order(rows: Any) -> list[Row]:
    """In some order; the namespace is that of the query."""
    without = [{name: value for name, value in row.items() if name != "namespace"} for row in rows]
    return sorted(without, key=lambda row: repr([value for name, value in row.items() if name != "mean_ms"]))


def sessions_of(sessions: list[Session]) -> list[Row]:
    return [
        {
            "session_id": session.session_id,
            "agent_id": session.agent_id,
            "status": session.status,
            "created_at": stored(session.created_at),
            "ended_at": stored(session.ended_at),
            "duration_seconds": seconds(session),
            "quality_score": session.score,
            "error": session.error,
            "message_count": len(session.messages),
            "tracked": 0,
        }
        for session in sessions
    ]


def seconds(session: Session) -> float | None:
    return None if session.ended_at is None else (session.ended_at - session.created_at).total_seconds()


def messages_of(sessions: list[Session]) -> list[Row]:
    return [
        {
            "session_id": session.session_id,
            "agent_id": session.agent_id,
            "seq": message.seq,
            "role": message.role,
            "text": "x",
            "model": message.model,
            "input_tokens": message.tokens[0],
            "output_tokens": message.tokens[1],
            "cache_read_tokens": message.tokens[2],
            "reasoning_tokens": message.tokens[3],
            "response_time_ms": message.time_ms,
            "response_time_source": message.time_source,
            "created_at": stored(message.created_at),
        }
        for session in sessions
        for message in session.messages
    ]


def success_of(sessions: list[Session]) -> list[Row]:
    keys = {(f"{session.created_at:%Y-%m-%d}", session.agent_id) for session in sessions}
    groups = {key: [each for each in sessions if (f"{each.created_at:%Y-%m-%d}", each.agent_id) == key] for key in keys}
    return [{"day": day, "agent_id": agent, **figures_of_success(found)} for (day, agent), found in groups.items()]


def times_of(sessions: list[Session]) -> list[Row]:
    groups: dict[tuple[str, str | None], list[float]] = {}
    for session in sessions:
        for message in session.messages:
            if message.time_ms is not None:
                groups.setdefault((f"{message.created_at:%Y-%m-%d %H:00}", session.agent_id), []).append(message.time_ms)
    return [{"hour": hour, "agent_id": agent, **figures_of_times(found)} for (hour, agent), found in groups.items()]


def quality_of(sessions: list[Session]) -> list[Row]:
    scored = [(session.agent_id, session.score) for session in sessions if session.score]
    return [{"agent_id": agent, "quality_score": score, "sessions": scored.count((agent, score))} for agent, score in set(scored)]


def failures_of(sessions: list[Session]) -> list[Row]:
    return [
        {
            "session_id": session.session_id,
            "agent_id": session.agent_id,
            "error": session.error,
            "created_at": stored(session.created_at),
            "ended_at": stored(session.ended_at),
            "duration_seconds": seconds(session),
            "message_count": len(session.messages),
            "quality_score": session.score,
        }
        for session in sessions
        if session.status == "failed"
    ]


def tokens_of(sessions: list[Session]) -> list[Row]:
    groups: dict[tuple[str, str | None, str | None], list[Any]] = {}
    for session in sessions:
        for message in session.messages:
            if set(message.tokens) != {None}:
                groups.setdefault((f"{message.created_at:%Y-%m-%d}", session.agent_id, message.model), []).append(message)
    return [
        {"day": day, "agent_id": agent, "model": model, **figures_of_tokens(found)} for (day, agent, model), found in groups.items()
    ]


@random_test
@given(recorded=records)
def test_every_call_agrees_with_its_view(shared: Any, recorded: Any) -> None:
    """The same rows, without a computation of the test's own between them."""
    whole, path = shared
    for namespace in {session.namespace for session in record(whole, recorded[0], sweep=recorded[1])}:
        store = whole.in_namespace(namespace)
        assert of_buckets(store.success_rates(bucket="day"), "day", 10) == of_view(path, "v_success_daily", namespace)
        assert of_buckets(store.response_times(bucket="hour"), "hour", 16) == of_view(path, "v_response_time_hourly", namespace)
        scores = [
            {"agent_id": agent["agent_id"], "quality_score": int(score), "sessions": count}
            for agent in store.quality()["agents"]
            for score, count in agent["distribution"].items()
            if count
        ]
        assert in_order(scores) == of_view(path, "v_quality_distribution", namespace)
        failed = [
            {
                "session_id": each["session_id"],
                "agent_id": each["agent_id"],
                "error": each["error_message"],
                "ended_at": each["ended_at"],
            }
            for each in store.failures(limit=1_000)["sessions"]
        ]
        rows = of_view(path, "v_failures", namespace)
        assert in_order(failed) == in_order(
            {
                **{name: row[name] for name in ("session_id", "agent_id", "error")},
                "ended_at": clock.from_text(row["ended_at"]).isoformat(),
            }
            for row in rows
        )
        usage = of_view(path, "v_token_usage_daily", namespace)
        for bucket in store.tokens(bucket="day")["buckets"]:
            of_day = [row for row in usage if row["day"] == bucket["start"][:10]]
            for name, figure in bucket["overall"].items():
                assert figure == sum(row[name] for row in of_day)
            for model in bucket["models"]:
                assert model["messages"] == sum(row["messages"] for row in of_day if row["model"] == model["model"])
        assert len({row["day"] for row in usage}) == len(store.tokens(bucket="day")["buckets"])


def of_buckets(answer: Any, column: str, chars: int) -> list[Row]:
    """A row for each bucket and agent."""
    rows = [
        {column: bucket["start"][:chars].replace("T", " "), **agent} for bucket in answer["buckets"] for agent in bucket["agents"]
    ]
    return in_order({**row, **({"mean_ms": pytest.approx(row["mean_ms"], rel=1e-9)} if "mean_ms" in row else {})} for row in rows)


def of_view(path: Path, view: str, namespace: str) -> list[Row]:
    return in_order(read(path, f"SELECT * FROM {view} WHERE namespace = ?", namespace))


# -- one by one


def test_durations_are_exact_to_the_microsecond(store: sessionstore.SessionStore, store_path: Path) -> None:
    """SQLite's own date functions round to milliseconds."""
    begun = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    spans = (timedelta(0), timedelta(microseconds=1), timedelta(microseconds=1_499), timedelta(days=400, microseconds=123_457))
    for number, span in enumerate(spans):
        with at(begun):
            store.create(str(number))
        with at(begun + span):
            store.end(str(number))
    found = read(store_path, "SELECT duration_seconds FROM v_sessions ORDER BY session_key")
    assert [row["duration_seconds"] for row in found] == [span.total_seconds() for span in spans]


def test_an_overdue_session_reads_as_expired_before_and_after_the_sweep(store: sessionstore.SessionStore, store_path: Path) -> None:
    with at(NOW - DAY):
        store.create("over", ttl=3_600)
        store.create("alive", ttl=30 * 86_400)
    query = "SELECT session_id, status, ended_at, duration_seconds FROM v_sessions ORDER BY session_key"
    expected = [
        {"session_id": "over", "status": "expired", "ended_at": stored(NOW - DAY + HOUR), "duration_seconds": 3_600.0},
        {"session_id": "alive", "status": "open", "ended_at": None, "duration_seconds": None},
    ]
    assert read(store_path, query) == expected
    assert store.sweep().expired == 1
    assert read(store_path, query) == expected


def test_the_views_show_the_remaining_columns_as_they_are_stored(store: sessionstore.SessionStore, store_path: Path) -> None:
    store.create("s", agent_id="a", user_id="u", title="t", metadata={"k": [1]}, pinned=True, ttl=60, max_age=600)
    store.append("s", {"type": "note"}, kind="note", metadata={"m": 1}, finish_reason="stop")
    store.archive("s")
    info = store.get("s")
    assert info is not None
    (row,) = read(store_path, "SELECT * FROM v_sessions")
    plain = {"user_id": "u", "title": "t", "metadata": '{"k":[1]}', "pinned": 1, "ttl_seconds": 60.0, "max_age_seconds": 600.0}
    others = {"feedback": None, "reported_message_count": None, "version": info.version, "expires_at": stored(info.expires_at)}
    instants = {"updated_at": stored(info.updated_at), "archived_at": stored(info.archived_at)}
    assert {**row, **plain, **others, **instants} == row
    (row,) = read(store_path, "SELECT * FROM v_messages")
    told = {"user_id": "u", "kind": "note", "role": None, "text": None, "finish_reason": "stop", "metadata": '{"m":1}'}
    assert {**row, **told, "session_key": 1} == row


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A file that no store has open, for rows of our own."""
    path = tmp_path / "raw.db"
    sessionstore.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield path, connection


def insert(connection: sqlite3.Connection, table: str, **values: Any) -> None:
    marks = ", ".join("?" * len(values))
    texts = [stored(value) if isinstance(value, datetime) else value for value in values.values()]
    connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", texts)


def add_agent(connection: sqlite3.Connection, agent_id: str, *, seen: datetime, stale_after: float = 60.0, **values: Any) -> None:
    row = {"namespace": "", "status": "busy", "status_at": seen, "last_seen_at": seen, "stale_after_seconds": stale_after}
    insert(connection, "agents", agent_id=agent_id, **{**row, **values})


def add_session(connection: sqlite3.Connection, agent_id: str, *, updated: datetime, namespace: str = "") -> None:
    row = {"status": "open", "pinned": 0, "version": 1, "message_count": 0, "next_seq": 1, "created_at": NOW - DAY}
    name = f"{agent_id} {updated}"
    insert(connection, "sessions", namespace=namespace, session_id=name, agent_id=agent_id, updated_at=updated, **row)


def test_a_silent_agent_reads_as_offline_until_one_of_its_sessions_changes(raw: Any) -> None:
    path, connection = raw
    present = datetime.now(UTC)
    long_ago, lately = present - HOUR, present + HOUR  # A clock may lag; a sign of life from the future is one, too.
    add_agent(connection, "silent", seen=long_ago)
    add_agent(connection, "patient", seen=long_ago, stale_after=1e9)
    add_agent(connection, "lively", seen=lately)
    add_agent(connection, "working", seen=long_ago)
    add_session(connection, "working", updated=long_ago - HOUR)
    add_session(connection, "working", updated=lately)
    add_agent(connection, "namesake", seen=long_ago)
    add_session(connection, "namesake", updated=lately, namespace="other")
    add_agent(connection, "gone", seen=lately, status="offline", previous_status="idle", sdk_version="1", metadata='{"a":1}')
    add_session(connection, "unknown", updated=lately)
    found = {row["agent_id"]: row for row in read(path, "SELECT * FROM v_agent_status")}
    assert {agent: (row["status"], row["reported_status"], row["last_seen_at"]) for agent, row in found.items()} == {
        "silent": ("offline", "busy", stored(long_ago)),
        "patient": ("busy", "busy", stored(long_ago)),
        "lively": ("busy", "busy", stored(lately)),
        "working": ("busy", "busy", stored(lately)),
        "namesake": ("offline", "busy", stored(long_ago)),
        "gone": ("offline", "offline", stored(lately)),
    }
    told = {
        "previous_status": "idle",
        "sdk_version": "1",
        "metadata": '{"a":1}',
        "registered_at": None,
        "status_at": stored(lately),
    }
    assert {**found["gone"], **told, "stale_after_seconds": 60.0} == found["gone"]


def test_the_outbox_view_tells_size_and_age_and_no_body(raw: Any) -> None:
    path, connection = raw
    begun = datetime.now(UTC)
    row = {
        "stream": "session:1",
        "kind": "conversation_start",
        "namespace": "n",
        "state": "dead",
        "attempts": 3,
        "occurred_at": begun,
    }
    told = {"next_at": begun + DAY, "last_status": 503, "last_error": "busy", "settled_at": begun, "size_bytes": 15}
    insert(connection, "outbox", key="k", body='{"secret":"é"}', created_at=begun - HOUR, **row, **told)
    (found,) = read(path, "SELECT * FROM v_outbox")
    after = (datetime.now(UTC) - begun).total_seconds()
    assert 3_600 - 0.001 <= found.pop("age_seconds") <= 3_600 + after
    plain = {name: stored(value) if isinstance(value, datetime) else value for name, value in {**row, **told}.items()}
    unheld = {"lease_token": None, "lease_until": None, "paused": None}
    assert found == {"id": 1, "key": "k", "created_at": stored(begun - HOUR), **plain, **unheld}


def test_the_outbox_view_tells_who_may_be_sending_a_waiting_event(raw: Any) -> None:
    """By the hold of its stream; a hold without a token is a wait, and a dead event is not sent."""
    path, connection = raw
    row = {"kind": "metric", "namespace": "n", "body": "{}", "attempts": 0, "occurred_at": NOW, "created_at": NOW}
    for key, stream, state in (("a", "s:1", "pending"), ("b", "s:1", "dead"), ("c", "s:2", "pending"), ("d", "s:3", "pending")):
        insert(connection, "outbox", key=key, stream=stream, state=state, **row)
    insert(connection, "outbox_holds", namespace="n", stream="s:1", token="t", held_until=NOW + HOUR)
    insert(connection, "outbox_holds", namespace="n", stream="s:2", token=None, held_until=NOW + HOUR)
    insert(connection, "outbox_holds", namespace="other", stream="s:3", token="t", held_until=NOW + HOUR)
    found = read(path, "SELECT key, lease_token, lease_until FROM v_outbox ORDER BY id")
    nobody = {"lease_token": None, "lease_until": None}
    assert found == [
        {"key": "a", "lease_token": "t", "lease_until": stored(NOW + HOUR)},
        *({"key": key, **nobody} for key in "bcd"),
    ]


def test_the_sync_view_is_one_row_that_counts_events_and_tells_how_deliveries_go(raw: Any) -> None:
    path, connection = raw
    begun = datetime.now(UTC)
    row = {"kind": "metric", "namespace": "n", "stream": "metrics", "body": "{}", "attempts": 0, "occurred_at": begun}
    for number, state in enumerate(("erased", "pending", "dead", "pending", "pending", "dead")):
        insert(connection, "outbox", key=str(number), state=state, size_bytes=10 + number, created_at=begun - number * HOUR, **row)
    told = {"failures": 3, "failing_since": begun - DAY, "retry_at": begun + HOUR, "paused": "auth", "last_status": 401}
    state = {"sent": 7, "dropped": 2, "last_sent_at": begun - DAY, "last_error": "unauthorized", **told}
    connection.execute(f"UPDATE sync_state SET {', '.join(f'{name} = ?' for name in state)}", stored_all(state))
    connection.execute("UPDATE store_info SET remote_url = 'https://collector.example'")
    connection.commit()
    (found,) = read(path, "SELECT * FROM v_sync")
    after = (datetime.now(UTC) - begun).total_seconds()
    assert 3_600 - 0.001 <= found.pop("oldest_age_seconds") <= 3_600 + after, "the oldest one is the first that was stored"
    counts = {"pending": 3, "pending_bytes": 11 + 13 + 14, "dead": 2, "erased": 1}
    assert found == {"remote_url": "https://collector.example", **counts, **dict(zip(state, stored_all(state), strict=True))}


def stored_all(values: Row) -> list[Any]:
    return [stored(value) if isinstance(value, datetime) else value for value in values.values()]


def test_the_view_of_metrics_shows_all_of_them(raw: Any) -> None:
    path, connection = raw
    row = {"namespace": "n", "name": "x", "value": 1.5, "unit": "ms", "agent_id": "a", "session_id": "s", "attributes": "{}"}
    insert(connection, "metric_events", occurred_at=FIRST_DAY, **row)
    assert read(path, "SELECT * FROM v_metric_events") == [{"id": 1, "occurred_at": stored(FIRST_DAY), **row}]


def test_views_can_be_narrowed_by_what_the_indexes_know(store: sessionstore.SessionStore) -> None:
    """The document says how to ask on large files."""
    for query, index in (
        (
            "SELECT * FROM v_sessions WHERE namespace = '' AND created_at >= '2026'",
            "ix_sessions_created (namespace=? AND created_at>?)",
        ),
        ("SELECT * FROM v_sessions WHERE namespace = '' AND agent_id = 'a'", "ix_sessions_agent (namespace=? AND agent_id=?)"),
        ("SELECT * FROM v_sessions WHERE session_key = 7", "SEARCH sessions USING INTEGER PRIMARY KEY"),
        ("SELECT * FROM v_messages WHERE session_key = 7", "SEARCH m USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (
            "SELECT * FROM v_messages WHERE namespace = '' AND agent_id = 'a'",
            "SEARCH m USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        ),
    ):
        plan = " / ".join(row[3] for row in store.query(f"EXPLAIN QUERY PLAN {query}").rows)
        assert index in plan
        assert "SCAN" not in plan
