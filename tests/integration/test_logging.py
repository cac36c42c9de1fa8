"""Nothing that the library logs or raises tells the text of a message or a key, whatever is done and whoever listens."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import SessionStore, SessionStoreError
from sessionstore.logs import log
from sessionstore.remote.credentials import ApiKey

CANARY = "Canary-Message-Zq9"
KEY = "canary-key-Zq9-0123456789"
LINE = logging.Formatter("%(levelname)s %(name)s %(message)s")


class Listener(logging.Handler):
    """Keeps all that a handler could write."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        facts = {name: repr(value) for name, value in record.__dict__.items()}
        self.lines.append("\n".join([LINE.format(record), record.getMessage(), repr(record.args), json.dumps(facts)]))

    def events(self) -> list[str]:
        """The names of this library's events."""
        return [record.event for record in self.records if record.name == "sessionstore"]  # type: ignore[attr-defined]


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Call it to hear everything from then on; names are of loggers that would stay quiet by themselves."""
    listener, levels = Listener(), {}

    def begin(*quiet: str) -> Listener:
        for logger in (logging.root, *map(logging.getLogger, ("sessionstore", *quiet))):
            levels[logger] = logger.level
            logger.setLevel(logging.DEBUG)
        logging.root.addHandler(listener)
        return listener

    yield begin
    logging.root.removeHandler(listener)
    for logger, level in levels.items():
        logger.setLevel(level)


def test_a_store_tells_of_its_life_and_of_nothing_else(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    path = tmp_path / "agent.db"
    listener = listen()
    with sessionstore.open(path) as store, sessionstore.open(path) as second:
        store.session("s")
        second.append("s", "user", "x")
        store.messages("s")
    with sessionstore.open(in_memory=True):
        pass
    events = [(record.event, record.path) for record in listener.records if record.name == "sessionstore"]  # type: ignore[attr-defined]
    on_disk = [("store_opened", str(path)), ("store_closed", str(path))]
    assert events == [*on_disk, ("store_opened", "(memory)"), ("store_closed", "(memory)")]
    opened = next(record for record in listener.records if record.name == "sessionstore")
    assert (opened.journal_mode, opened.sqlite_version) == ("wal", sqlite3.sqlite_version)  # type: ignore[attr-defined]


def test_a_handler_may_open_a_store_of_its_own(tmp_path: Path) -> None:
    """Events of opening and closing are told outside of the locks that opening and closing take."""
    path = tmp_path / "agent.db"
    opened: list[str] = []

    class Opening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(opened) < 2:
                opened.append(record.event)  # type: ignore[attr-defined]
                with sessionstore.open(path) as store:
                    store.count()

    logger, handler = logging.getLogger("sessionstore"), Opening()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        sessionstore.open(path).close()
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
    assert opened == ["store_opened", "store_closed"]


def attempts(store: SessionStore, folder: Path) -> Iterator[Callable[[], Any]]:
    """Calls that raise, each with the canary in what it is given."""
    bad = folder / "bad.jsonl"
    bad.write_text(json.dumps({"messages": [{"role": "user", "content": CANARY, "x": None}]})[:-3] + "\n")
    worse = folder / "worse.jsonl"
    worse.write_bytes(b'{"messages": [{"role": "user", "content": "' + CANARY.encode() + b'\xff"}]}\n')
    yield lambda: store.append("nowhere", "user", CANARY)
    yield lambda: store.append("s", CANARY, "x")
    yield lambda: store.append("s", {"content": CANARY})
    yield lambda: store.append("s", {"role": "user", "content": CANARY, "n": float("nan")})
    yield lambda: store.append("s", {"role": "user", "content": CANARY, CANARY: object()})
    yield lambda: store.append("s", "user", CANARY + "\ud800")
    yield lambda: store.append("s", "user", CANARY * 100_000)
    yield lambda: store.append("s", "user", CANARY, metadata={CANARY: float("nan")})
    yield lambda: store.append("s", "user", CANARY, metadata={"x": {CANARY}})
    yield lambda: store.append("s", "user", CANARY, output_tokens=CANARY)  # type: ignore[arg-type]
    yield lambda: store.append("s", "user", CANARY, created_at=CANARY)  # type: ignore[arg-type]
    yield lambda: store.append("s", "user", CANARY + " again", dedupe_key="once")
    yield lambda: store.append_many("s", [{"role": "user", "content": CANARY}, CANARY])  # type: ignore[list-item]
    yield lambda: store.update("s", title=CANARY * 1_000)
    yield lambda: store.update("s", title=CANARY, expected_version=99)
    yield lambda: store.end("s", CANARY)  # type: ignore[arg-type]
    yield lambda: store.end("s", "failed", error=CANARY, quality_score=9)
    yield lambda: store.list(cursor=CANARY)
    yield lambda: store.list(metadata={CANARY + "!": CANARY})
    yield lambda: store.list(text=CANARY, status=CANARY)  # type: ignore[arg-type]
    yield lambda: store.import_file(bad)
    yield lambda: store.import_file(worse)
    yield lambda: store.export_file(folder / "no" / "such" / "folder.jsonl")
    yield lambda: sessionstore.open(folder / "bad.jsonl")


def lifetime(folder: Path) -> list[BaseException]:
    """A store from its beginning to its end, with the canary in all that has text; the errors that it raised."""
    errors: list[BaseException] = []
    with sessionstore.open(folder / "agent.db", max_text_bytes=1 << 20) as store:
        store.session("s", title=CANARY, metadata={"note": CANARY}, tags=[CANARY])
        store.append("s", "user", CANARY, dedupe_key="once", metadata={"note": CANARY})
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"q": CANARY})}}
        store.append("s", {"role": "assistant", "content": [{"type": "text", "text": CANARY}], "tool_calls": [call]})
        store.append_many(
            "s", [{"role": "tool", "tool_call_id": "c1", "content": CANARY}, {"role": "user", "content": CANARY * 9_000}]
        )
        assert len(store.messages("s", last=2, keep_pairs=True)) == 3
        assert [info.title for info in store.list(text=CANARY, tag=CANARY, metadata={"note": CANARY})] == [CANARY]
        store.repair("s")
        for attempt in attempts(store, folder):
            with pytest.raises((SessionStoreError, OSError)) as caught:
                attempt()
            errors.append(caught.value)
        store.export_file(folder / "out.jsonl")
        store.import_file(folder / "out.jsonl", on_conflict="new-id")
        store.pop("s")
        store.truncate("s", after=2)
        assert store.doctor().ok
        store.status()
        store.end("s", "failed", error=CANARY)
        store.delete("s")
    return errors


def told(error: BaseException) -> str:
    """What an error says, with its causes, and what its attributes hold."""
    return "".join([*traceback.format_exception_only(error), str(error), repr(error), repr(error.args), repr(vars(error))])


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.fault("F35")
def test_no_log_and_no_error_tells_the_text_of_a_message(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    listener = listen()
    errors = lifetime(tmp_path)
    assert len(errors) > 20
    for error in errors:
        assert CANARY not in told(error)
        assert CANARY not in "".join(str(cause) for cause in chain(error)), type(error)
    assert {"store_opened", "store_closed"} <= set(listener.events())
    assert [line for line in listener.lines if CANARY in line] == []


@pytest.mark.fault("F35")
def test_not_even_the_engines_own_debug_log_tells_it(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    """SQLAlchemy, told to log everything, would log each row that it reads; it logs nothing of this library's statements."""
    listener = listen("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "alembic")
    lifetime(tmp_path)
    assert [record for record in listener.records if record.name.startswith("sqlalchemy.engine")] == []
    assert [line for line in listener.lines if CANARY in line] == []


@pytest.mark.fault("F35")
def test_damage_is_told_without_what_is_damaged(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    path = tmp_path / "agent.db"
    with sessionstore.open(path) as store:
        store.session("s")
        store.append("s", "user", CANARY)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE messages SET text = text || 'x'")
    listener = listen()
    with sessionstore.open(path) as store:
        with pytest.raises(sessionstore.StoreCorruptError) as caught:
            store.messages("s")
        found = store.doctor()
    assert not found.ok
    assert CANARY not in told(caught.value) + repr(found)
    assert [line for line in listener.lines if CANARY in line] == []


@pytest.mark.fault("F35")
@pytest.mark.parametrize(
    "leak", ["{key!r}", "{key}", "api_key={text}", "Bearer {text}", "https://u:{text}@h/", "https://h/?token={text}"]
)
def test_a_key_is_in_no_log_record(leak: str, listen: Callable[..., Listener]) -> None:
    listener = listen()
    key = ApiKey(KEY)
    text = leak.format(key=key, text=KEY)
    log(
        logging.ERROR,
        "x",
        f"it failed: {text}",
        fact=text,
        error=SessionStoreError(text),
        api_key=KEY,
        key=key,
        headers={"token": KEY},
    )
    assert len(listener.records) == 1
    assert KEY not in listener.lines[0]


@pytest.mark.fault("F35")
def test_the_trackers_key_is_nowhere_but_in_its_object(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    """Not in logs, reprs and errors, and not in the file."""
    listener = listen()
    where = tmp_path / "agent.db"
    tracker = sessionstore.AgentPerformanceTracker("https://api.example.com", KEY, store=where, background=False)
    with tracker:
        session_id = tracker.start_conversation("agent", metadata={"note": "x"})
        tracker.end_conversation(session_id, quality_score=4)
        with pytest.raises(SessionStoreError) as caught:
            tracker.end_conversation(session_id, quality_score=7)
        assert KEY not in told(caught.value) + repr(tracker) + repr(vars(tracker))
    with pytest.raises(sessionstore.ConfigError) as refused:
        sessionstore.AgentPerformanceTracker("https://api.example.com", KEY + "\n", store=where)
    assert KEY not in told(refused.value)
    with pytest.raises(sessionstore.ConfigError) as elsewhere:
        sessionstore.AgentPerformanceTracker(f"https://api.example.com/?api_key={KEY}", store=where)
    assert KEY not in told(elsewhere.value)
    assert {"conversation_started", "conversation_ended"} <= set(listener.events())
    assert [line for line in listener.lines if KEY in line] == []
    assert [file.name for file in tmp_path.iterdir() if KEY.encode() in file.read_bytes()] == []


@pytest.mark.fault("F35")
def test_no_variable_of_ours_in_a_traceback_holds_the_key(tmp_path: Path) -> None:
    """Many tools that report errors show them."""
    with pytest.raises(sessionstore.ConfigError) as caught:
        sessionstore.AgentPerformanceTracker("ftp://api.example.com", KEY, store=tmp_path / "agent.db")
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    own = [frame for frame in frames if frame.f_globals["__name__"].startswith("sessionstore.")]
    assert own
    # An object that is not finished has no repr yet, but it has attributes.
    seen = [
        (frame.f_code.co_qualname, name, getattr(value, "__dict__", value))
        for frame in own
        for name, value in frame.f_locals.items()
    ]
    assert [(function, name) for function, name, value in seen if KEY in repr(value)] == []


def test_an_upgrade_is_told(tmp_path: Path, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.db"
    older = """
import sys
from sessionstore.database import upgrade
upgrade.HEAD_REVISION = "0001"
upgrade.verify_columns = lambda driver, path: None
import sessionstore
sessionstore.open(sys.argv[1]).close()
"""
    subprocess.run([sys.executable, "-c", older, str(path)], check=True)
    listener = listen()
    sessionstore.open(path).close()
    (told_of,) = [record for record in listener.records if getattr(record, "event", "") == "schema_upgraded"]
    assert (told_of.levelname, told_of.path, told_of.from_revision) == ("INFO", str(path), "0001")  # type: ignore[attr-defined]
    assert told_of.to_revision > "0001"  # type: ignore[attr-defined]


@pytest.mark.fault("F35")
def test_reprs_tell_no_text(store: SessionStore) -> None:
    """Reprs end up in logs."""
    session = store.session("s", title=CANARY, metadata={"note": CANARY})
    message = store.append("s", "user", CANARY, metadata={"note": CANARY})
    shown = [store, session, session.get(), message, store.messages("s"), store.list(), store.status(), store.check("s")]
    with suppress(AttributeError):
        shown.append(session.info)  # type: ignore[attr-defined]
    assert CANARY not in repr(shown)
