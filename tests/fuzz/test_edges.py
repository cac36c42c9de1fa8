"""Paths, keys, settings, the command line and the collector: odd ones are refused by typed errors, and name no other file."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fuzz_calls import CALLED, Method
from fuzz_seeds import mutated, seeds
from fuzz_store import CANARY, Stores, judged, tried, watching, works
from fuzz_values import PARAMETERS, anything, junk, letters, numbered, odd_objects, odd_seconds, odd_texts
from hypothesis import strategies as st
from trials import Trial

import sessionstore
from sessionstore import ClosedStoreError, ConfigError, InvalidInputError, SessionStore
from sessionstore.aio import AsyncSessionStore
from sessionstore.cli import main

paths = st.one_of(
    letters.map(lambda name: name.replace("/", "_").replace(":", "_")),
    odd_texts,
    junk,
    odd_texts.map(lambda text: f"sqlite:///{text}"),
    st.sampled_from(
        ["absent/x.db", "agent.db", "agent.db-wal", ".", "..", "x/", ":memory:", "sqlite:///a?b", "postgresql://h/x", "n" * 300]
    ),
)


@pytest.mark.fault("G26")
@pytest.mark.parametrize("method", CALLED, ids=lambda method: method.name)
def test_every_call_of_a_closed_store_says_so(trial: Trial, stores: Stores, method: Method) -> None:
    """Or it refuses its arguments first; nothing else comes of it."""
    from fuzz_calls import Call

    def check(given: dict[str, Any]) -> None:
        several = given.pop("several", ())
        with stores.fresh() as (store, _):
            store.close()
            answer = judged(lambda: Call(method, given, tuple(several))(store))
        is_plain = method.name in {"timer", "track", "in_namespace"}
        assert isinstance(answer, ClosedStoreError | InvalidInputError | ConfigError) or is_plain, answer

    good = {name: known.good for name in method.needed if (known := method.parameter(name))}
    if method.several is not None and (known := method.parameter(method.several)):
        good["several"] = known.good
    tried(trial, check, push=1, nightly=20, release=20, given=st.fixed_dictionaries(good))


@pytest.mark.fault("G26")
def test_a_background_takes_periods_only(trial: Trial, stores: Stores) -> None:
    def check(intervals: list[Any]) -> None:
        with stores.fresh() as (store, path), watching(path) as watch:
            for interval in intervals:
                judged(lambda interval=interval: store.background(interval=interval), watch)
            works(store)

    tried(
        trial, check, push=5, nightly=200, release=1_000, intervals=st.lists(odd_seconds | PARAMETERS["interval"].good, max_size=9)
    )


@pytest.mark.fault("G25", "G26")
def test_odd_paths_are_refused_or_name_one_file(
    trial: Trial, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of stores that are opened, backed up, copied to and restored: what is made lies in the folder that the program is in."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = outside / "deep" / "deeper"
    inside.mkdir(parents=True)
    outcomes: Counter[str] = Counter()

    def check(path: Any) -> None:
        monkeypatch.chdir(inside)
        with stores.fresh() as (store, _):
            calls: dict[str, Callable[[], Any]] = {
                "open": lambda: sessionstore.open(path, durability="normal").close(),
                "backup": lambda: store.backup(path),
                "copy": lambda: store.copy_to(path),
                "restore": lambda: sessionstore.restore(path, "restored.db"),
            }
            for name, call in calls.items():
                try:
                    answer = judged(call, tells=True)
                except OSError as error:
                    # Files that are no stores: a backup names what the operating system refused.
                    answer = error
                outcomes[f"{name} {'refused' if isinstance(answer, Exception) else 'done'}"] += 1
            works(store)
        above = {found for found in outside.rglob("*") if inside not in found.parents} - {inside, inside.parent}
        assert above == set(), path
        for found in inside.iterdir():
            assert not found.is_dir(), path
            found.unlink()

    # Nothing may be made at the absolute path either, nor in the user's own folder.
    monkeypatch.setenv("SESSIONSTORE_URL", str(inside / "default.db"))
    examples = tried(trial, check, push=15, nightly=1_000, release=10_000, path=paths.filter(stays_inside))
    trial.report(f"{examples:,} odd paths, opened, backed up, copied to and restored from: 0 files elsewhere", **outcomes)


def stays_inside(path: object) -> bool:
    """Not what names another folder, as it may."""
    return not isinstance(path, str) or not (
        "/" in path.removeprefix("sqlite:///").strip("/") or path.startswith("/") or "%2" in path
    )


@pytest.mark.fault("G26")
def test_odd_keys_are_refused_without_being_shown(trial: Trial, stores: Stores) -> None:
    keys = (
        anything
        | st.binary(max_size=70)
        | st.sampled_from([b"x" * 31, b"x" * 33, "ab" * 31 + "a", CANARY, "\0" * 32, bytearray(32)])
    )

    def check(given: list[Any]) -> None:
        with stores.fresh() as (store, path), watching(path) as watch:
            for key in given:
                for call in (lambda key=key: store.rekey(key), lambda key=key: sessionstore.EncryptionKey(key)):
                    answer = judged(call, watch)
                    assert CANARY not in str(answer)
            works(store)

    tried(trial, check, push=8, nightly=500, release=5_000, given=st.lists(keys, max_size=8))


SETTINGS = (
    "namespace",
    "durability",
    "busy_timeout",
    "max_text_bytes",
    "ttl",
    "max_age",
    "on_expire",
    "stale_after",
    "compress_over",
    "must_exist",
    "create_parents",
    "read_only",
    "migrate",
    "follow_symlinks",
    "strict_permissions",
    "remote",
    "api_key",
    "key",
)


@pytest.mark.fault("G26")
def test_odd_settings_are_refused_before_the_file_is_made(trial: Trial, tmp_path: Path) -> None:
    path = tmp_path / "new.db"

    def check(given: dict[str, Any]) -> None:
        answer = judged(lambda: sessionstore.open(path, durability=given.pop("durability", "normal"), **given))
        if isinstance(answer, SessionStore):
            answer.close()
        elif isinstance(answer, ConfigError | InvalidInputError):
            assert not path.exists()
        for found in tmp_path.iterdir():
            found.unlink()

    # A store in memory shows the same refusals, and the values that pass need no new file each time.
    tried(
        trial,
        check,
        push=10,
        nightly=400,
        release=2_000,
        given=st.dictionaries(st.sampled_from(SETTINGS), anything, min_size=1, max_size=1),
    )


VARIABLES = ("SESSIONSTORE_URL", "SESSIONSTORE_SYNC_URL", "SESSIONSTORE_SYNC_TOKEN", "SESSIONSTORE_KEY")


@pytest.mark.fault("G26")
def test_an_odd_environment_is_refused_without_being_shown(trial: Trial, tmp_path: Path) -> None:
    texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    values = texts | st.sampled_from(["/", "https://h", f"https://u:{CANARY}@h", "x" * 40, "ftp://x", ":memory:"])

    def check(given: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            for name, value in given.items():
                patch.setenv(name, value)
            answer = judged(lambda: sessionstore.open(tmp_path / "x.db", in_memory=False, durability="normal"))
            if isinstance(answer, SessionStore):
                answer.close()
            else:
                assert CANARY not in str(answer)
            for found in tmp_path.iterdir():
                found.unlink()

    environments = st.dictionaries(st.sampled_from(VARIABLES[1:]), values, min_size=1)
    tried(trial, check, push=4, nightly=300, release=2_000, given=environments)


VERBS = ("status", "sessions", "show", "stats", "query", "import", "export", "outbox", "fork", "search", "erase", "path", "doctor")
OPTIONS = (
    "--db",
    "--json",
    "--limit",
    "--agent",
    "--format",
    "--cursor",
    "--tag",
    "--since",
    "--namespace",
    "--session",
    "--yes",
    "--help",
    "-x",
)


@pytest.mark.fault("G25", "G26")
def test_odd_command_lines_end_with_a_code_and_no_traceback(
    trial: Trial, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes: Counter[int] = Counter()
    words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12).map(
        lambda word: word.replace("/", "_")
    )
    lines = st.lists(
        st.sampled_from(OPTIONS) | words | st.sampled_from(["s", "fork", "SELECT 1", "v_messages", "5", "-1"]), max_size=5
    )

    def check(verb: str, line: list[str]) -> None:
        with stores.fresh() as (store, path):
            store.close()
            out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
            with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
                patch.setenv("SESSIONSTORE_URL", str(path))
                patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b""), "utf-8"))
                try:
                    code = main([verb, *line])
                except SystemExit as error:
                    code = error.code
            assert isinstance(code, int | None)
            codes[code or 0] += 1
            err.flush()
            assert b"Traceback" not in err.buffer.getvalue()

    examples = tried(trial, check, push=10, nightly=1_000, release=10_000, verb=st.sampled_from(VERBS), line=lines)
    trial.report(f"{examples:,} odd command lines: each ended with its code, 0 tracebacks", codes=dict(codes))


PATHS = (
    "/conversations/start",
    "/conversations/end",
    "/conversations/expired",
    "/agents/register",
    "/agents/status",
    "/agents/activity",
    "/metrics/events",
    "/conversations/message",
    "/conversations/erase",
    "/events/batch",
    "/conversations/s",
    "/agents/a/status",
    "/metrics/failures",
    "/metrics/overview",
    "/agents/active",
    "/capabilities",
    "/health",
    "/",
    "/conversations/%00",
    "/x",
)
latin = st.text(st.characters(max_codepoint=255, exclude_characters="\0\r\n"), max_size=20).map(
    lambda text: text.strip().encode("latin-1")
)


@pytest.mark.fault("G25", "G26")
def test_any_request_to_a_collector_gets_an_answer_of_its_api(trial: Trial, stores: Stores) -> None:
    """Never a failure of the collector (500), whatever method, path, query, headers or body it has."""
    pytest.importorskip("fastapi", reason="the extra collector is not installed")
    from sessionstore.collector import create_app

    statuses: Counter[int] = Counter()
    # Damaged by a number: how deep JSON may be nested, and so what is drawn on the way, depends on what is on the stack.
    whole = numbered([*seeds("collector_event"), *seeds("collector_batch")])
    bodies = whole | st.tuples(whole, st.integers(0, 2**32 - 1)).map(lambda drawn: mutated(drawn[0], random.Random(drawn[1])))
    headers = st.dictionaries(
        st.sampled_from(
            [
                "content-type",
                "content-encoding",
                "idempotency-key",
                "sessionstore-source",
                "sessionstore-namespace",
                "authorization",
                "origin",
            ]
        ),
        latin | st.sampled_from([b"application/json", b"gzip", b"zstd", b"identity", b"key"]),
        max_size=2,
    )
    queries = st.dictionaries(
        st.sampled_from(["limit", "cursor", "start_date", "end_date", "agent_id", "source", "namespace"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        | st.sampled_from(["1", "-1", "2026-01-01", "0001-01-01T00:00:00", "9999-12-31"]),
        max_size=2,
    )
    asked = st.tuples(
        st.sampled_from(["GET", "POST", "POST", "POST", "PUT", "DELETE"]), st.sampled_from(PATHS), queries, headers, bodies
    )

    def check(requests: list[tuple[str, str, dict[str, str], dict[str, bytes], bytes]]) -> None:
        anyio.run(ask, requests)

    async def ask(requests: list[tuple[str, str, dict[str, str], dict[str, bytes], bytes]]) -> None:
        with stores.empty() as (store, _):
            transport = httpx.ASGITransport(create_app(AsyncSessionStore(store), names=None), raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
                for method, path, query, named, body in requests:
                    answer = await client.request(method, path, params=query, headers=list(named.items()), content=body)
                    statuses[answer.status_code] += 1
                    assert answer.status_code < 500, answer.text
                    if answer.content:
                        json.loads(answer.content)

    tried(trial, check, push=8, nightly=500, release=5_000, requests=st.lists(asked, min_size=5, max_size=15))
    trial.report(f"{statuses.total():,} odd requests to a collector: 0 answers of 500", statuses=dict(statuses))


@pytest.mark.fault("G26")
def test_trackers_take_odd_values_or_refuse_them(trial: Trial, stores: Stores) -> None:
    """A tracker never raises anything but our errors into an agent."""
    methods = {
        "start_conversation": ("agent_id", "user_id", "metadata"),
        "end_conversation": ("session_id", "quality_score", "user_feedback", "message_count", "metadata"),
        "record_failed_session": ("session_id", "error_message"),
        "resume_conversation": ("session_id", "metadata"),
        "touch_session": ("session_id",),
        "is_session_active": ("session_id",),
        "get_session_ttl_remaining": ("session_id",),
        "get_session_info": ("session_id",),
        "set_session_ttl": ("hours",),
        "get_failed_sessions": ("agent_id",),
    }
    values = {"metadata": odd_objects, "hours": odd_seconds}
    call = st.sampled_from(sorted(methods)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.fixed_dictionaries({each: values.get(each, anything | letters) for each in methods[name]})
        )
    )

    def check(calls: list[tuple[str, dict[str, Any]]]) -> None:
        with stores.fresh() as (store, path), watching(path) as watch:
            tracker = sessionstore.AgentPerformanceTracker(None, store=store, background=False)
            for name, given in calls:
                judged(lambda name=name, given=given: getattr(tracker, name)(**given), watch)
            works(store)

    examples = tried(trial, check, push=8, nightly=500, release=5_000, calls=st.lists(call, max_size=6))
    trial.report(f"{examples:,} trackers with odd values: right or refused")
