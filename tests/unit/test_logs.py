"""Events carry their facts without secrets, disturb no program's logging, and are all in the guide."""

from __future__ import annotations

import ast
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore.errors import StoreBusyError
from sessionstore.logs import LOGGER, log

PACKAGE = Path(sessionstore.__file__).parent
GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
KEY = "sk-canary-0123456789abcdef"
PLAIN = logging.makeLogRecord({}).__dict__


class Kept(logging.Handler):
    """A handler that keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """All that the library's logger is given."""
    handler, level = Kept(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    yield handler
    LOGGER.setLevel(level)
    LOGGER.removeHandler(handler)


def own_logger(level: int = logging.DEBUG) -> tuple[logging.Logger, Kept]:
    """A logger that nobody else gets, and what it was given."""
    logger, handler = logging.Logger("mine", level), Kept()  # noqa: LOG001 - getLogger() would share it
    logger.addHandler(handler)
    return logger, handler


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in PLAIN and name != "message"}


def shown(record: logging.LogRecord) -> str:
    """Everything that a handler could write of a record."""
    line = logging.Formatter("%(levelname)s %(name)s %(message)s").format(record)
    return "\n".join([line, repr(record), repr(record.__dict__), json.dumps(record.__dict__, default=repr)])


# -- what a record has


def test_an_event_carries_its_name_and_its_facts(kept: Kept) -> None:
    log(logging.INFO, "sweep_done", "sessions expired", expired=3, session_id="s", path=Path("/data/agent.db"))
    (record,) = kept.records
    assert (record.name, record.levelno, record.getMessage()) == ("sessionstore", logging.INFO, "sessions expired")
    assert facts_of(record) == {"event": "sweep_done", "expired": 3, "session_id": "s", "path": "/data/agent.db"}


def test_a_record_tells_who_logged(kept: Kept) -> None:
    log(logging.INFO, "x", "y")
    assert (kept.records[0].pathname, kept.records[0].funcName) == (__file__, "test_a_record_tells_who_logged")


def test_a_percent_sign_in_a_message_is_a_percent_sign(kept: Kept) -> None:
    log(logging.INFO, "x", "100%s done, 5% left")
    assert kept.records[0].getMessage() == "100%s done, 5% left"


def test_a_fact_never_takes_the_place_of_what_a_record_has(kept: Kept) -> None:
    taken = {"name": 1, "args": 2, "msg": 3, "message": 4, "asctime": 5, "exc_info": 6, "getMessage": 7, "level": 8, "event": 9}
    log(logging.INFO, "x", "y", **taken)  # type: ignore[arg-type]
    (record,) = kept.records
    assert (record.name, record.getMessage(), record.exc_info) == ("sessionstore", "y", None)
    own = {f"fact_{name}": value for name, value in taken.items() if name not in ("level", "event")}
    assert facts_of(record) == {**own, "level": 8, "event": "x"}
    assert logging.Formatter("%(asctime)s %(message)s").format(record).endswith(" y")


def test_a_program_may_set_attributes_of_the_same_name_on_its_records(kept: Kept) -> None:
    """`extra=` would raise there, and fail the call that only wanted to log."""
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.session_id = "the web session"
        return record

    logging.setLogRecordFactory(factory)
    try:
        log(logging.INFO, "x", "y", session_id="s")
    finally:
        logging.setLogRecordFactory(before)
    assert facts_of(kept.records[0]) == {"event": "x", "session_id": "the web session", "fact_session_id": "s"}


def test_another_logger_gets_the_event_instead(kept: Kept) -> None:
    mine, handler = own_logger(logging.INFO)
    log(logging.INFO, "x", "y", logger=mine, n=1)
    log(logging.DEBUG, "x", "too low", logger=mine)
    assert [(record.name, facts_of(record)) for record in handler.records] == [("mine", {"event": "x", "n": 1})]
    assert kept.records == []


def test_an_adapter_adds_what_it_knows(kept: Kept) -> None:
    class Prefixed(logging.LoggerAdapter[logging.Logger]):
        def process(self, msg: Any, kwargs: Any) -> Any:
            return f"[req 7] {msg}", {**kwargs, "extra": self.extra}

    log(logging.INFO, "x", "y", logger=Prefixed(LOGGER, {"request": 7, "api_key": "plain", "event": "its own"}), n=1)
    (record,) = kept.records
    assert record.getMessage() == "[req 7] y"
    assert facts_of(record) == {"request": 7, "api_key": "****", "event": "x", "n": 1}


def test_an_error_of_ours_is_told_and_a_foreign_one_only_named(kept: Kept) -> None:
    """Nobody knows what the text of a foreign error quotes."""
    try:
        json.loads("the text of a message")
    except ValueError as error:
        log(
            logging.ERROR, "x", "y", ours=StoreBusyError("/data/agent.db", f"locked by {KEY}"), foreign=error, new=OSError("quoted")
        )
    facts = facts_of(kept.records[0])
    assert facts["ours"] == "StoreBusyError: /data/agent.db: locked by ****"
    assert re.fullmatch(r"JSONDecodeError at decoder\.py:\d+", facts["foreign"])
    assert facts["new"] == "OSError"
    assert kept.records[0].exc_info is None


# -- what a record never has

CONTAINERS = st.recursive(
    st.text(max_size=20) | st.integers() | st.none() | st.booleans() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEY_SHAPES = st.sampled_from(
    [
        KEY,
        "sk_live_canary0123456789",
        "ghp_canary0123456789abcdefABCDEF",
        "github_pat_canary0123456789",
        "AKIACANARY0123456789",
        "xoxb-canary-0123456789",
        "AIzaCanary0123456789-abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-signature",
        "Bearer canary0123",
        "https://user:canary@host/path",
        "https://host/path?a=1&access_token=canary",
        "Authorization: Basic canary",
        '{"password": "canary"}',
        "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----",
    ]
)
SECRET_NAMES = st.sampled_from(
    ["api_key", "apiKey", "X-Api-Key", "key", "token", "access_token", "refreshToken", "client_secret", "PASSWORD", "db.password",
     "authorization", "Authorization", "credentials", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "cookie", "bearer", "Set-Cookie"]
)  # fmt: skip
HARMLESS_NAMES = st.sampled_from(["path", "session_id", "details", "items"])


@st.composite
def nested(draw: st.DrawFn, leaf: st.SearchStrategy[Any]) -> Any:
    """Something at a random place in nested containers, beside random values."""
    value = draw(leaf)
    for _ in range(draw(st.integers(0, 5))):
        other = draw(CONTAINERS)
        value = draw(
            st.sampled_from(
                [[other, value, other], (value,), {"x": other, draw(HARMLESS_NAMES): value}, {"a": {"b": value}}, [value]]
            )
        )
    return value


def told(**facts: Any) -> str:
    """All that is logged of facts."""
    logger, handler = own_logger()
    log(logging.DEBUG, "x", "y", logger=logger, **facts)
    return shown(handler.records[0])


@settings(deadline=None, print_blob=True)
@given(name=HARMLESS_NAMES, value=nested(KEY_SHAPES.map(lambda key: f"before, {key} after")))
def test_a_key_of_a_known_shape_is_masked_wherever_it_stands(name: str, value: Any) -> None:
    assert "canary" not in told(**{name: value}).lower()


@settings(deadline=None, print_blob=True)
@given(name=HARMLESS_NAMES, secret=SECRET_NAMES, value=nested(st.just("any text: canary")), data=st.data())
def test_what_goes_by_a_secrets_name_is_masked_whatever_it_looks_like(name: str, secret: str, value: Any, data: Any) -> None:
    under = data.draw(st.sampled_from([{secret: value}, {secret.encode(): value}, (secret, value), [{"y": 1, secret: value}]]))
    assert "canary" not in told(**{name: under})
    assert "canary" not in told(**{secret: value})


@settings(deadline=None, print_blob=True)
@given(message=KEY_SHAPES)
def test_a_message_is_masked_too(message: str) -> None:
    logger, handler = own_logger()
    log(logging.DEBUG, "x", f"it failed: {message}", logger=logger)
    assert "canary" not in shown(handler.records[0]).lower()
    assert handler.records[0].args == ()


@settings(deadline=None, print_blob=True)
@given(CONTAINERS)
def test_any_facts_can_be_logged_as_json(value: Any) -> None:
    logger, handler = own_logger()
    log(logging.DEBUG, "x", "y", logger=logger, value=value)
    json.dumps(facts_of(handler.records[0]))


def test_an_object_is_told_by_its_type_only(kept: Kept) -> None:
    class Talkative:
        def __repr__(self) -> str:
            return f"Talkative(text={KEY})"

    ring: list[Any] = []
    ring.append(ring)
    log(
        logging.INFO,
        "x",
        "y",
        it=Talkative(),
        raw=KEY.encode(),
        ring=ring,
        long="ab " * 10_000,
        many=range(5),
        numbers=list(range(999)),
    )
    facts = facts_of(kept.records[0])
    assert (facts["it"], facts["raw"], facts["many"]) == ("<Talkative>", f"<{len(KEY)} bytes>", "<range>")
    assert (len(facts["long"]), facts["long"][-3:], len(facts["numbers"])) == (2_000, "...", 100)
    assert "..." in repr(facts["ring"])


# -- what it costs and leaves alone


def test_facts_of_a_level_that_is_off_are_not_looked_at() -> None:
    class Untouchable(Mapping[str, str]):
        def __getitem__(self, key: str) -> str:
            raise AssertionError

        def __iter__(self) -> Iterator[str]:
            raise AssertionError

        def __len__(self) -> int:
            raise AssertionError

    quiet, _ = own_logger(logging.ERROR)
    log(logging.WARNING, "x", "y", logger=quiet, fact=Untouchable())
    with pytest.raises(AssertionError):
        log(logging.ERROR, "x", "y", logger=quiet, fact=Untouchable())


def test_a_program_without_logging_hears_nothing_and_stays_as_it_is() -> None:
    program = """
import logging
import sessionstore
from sessionstore.logs import log
with sessionstore.open(in_memory=True) as store:
    store.session("s")
log(logging.CRITICAL, "x", "y")
logger = logging.getLogger("sessionstore")
assert logging.root.handlers == [], logging.root.handlers
assert [type(handler).__name__ for handler in logger.handlers] == ["NullHandler"]
assert (logger.level, logger.propagate, logging.root.level) == (logging.NOTSET, True, logging.WARNING)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# -- every event is documented

# Functions that log: at which place the name of the event stands.
LOGGING = {"log": 1, "_tell": 0}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_migrations" not in path.parts)


def calls_in(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The calls of functions that log, each with the name of the function that it stands in."""

    def visit(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and called(child) in LOGGING:
                yield inside, child
            yield from visit(child, child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else inside)

    yield from visit(ast.parse(path.read_text()), "")


def called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def documented() -> dict[str, tuple[str, set[str]]]:
    """Event -> (level, facts) of the guide's table."""
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| ([^|]*)\|", GUIDE.read_text(), re.MULTILINE)
    return {event: (level, set(re.findall(r"`(\w+)`", facts))) for event, level, facts in rows}


def logged() -> dict[str, tuple[str, set[str]]]:
    """Event -> (level, facts) of the code."""
    events: dict[str, tuple[str, set[str]]] = {}
    for path in MODULES:
        for inside, call in calls_in(path):
            if inside in LOGGING:
                continue
            event = call.args[LOGGING[called(call)]]
            assert isinstance(event, ast.Constant), f"{path.name}:{call.lineno}: an event's name must stand where it is logged"
            level = ast.unparse(call.args[0]).removeprefix("logging.") if called(call) == "log" else "INFO"
            events[event.value] = (level, {each.arg or "**" for each in call.keywords} - {"logger"})
    return events


def test_the_guide_names_every_event_with_its_level_and_its_facts() -> None:
    table, code = documented(), logged()
    assert len(code) >= 5
    assert set(table) == set(code)
    for event, (level, facts) in code.items():
        assert table[event][0] == level, event
        # Facts that are gathered elsewhere are not seen here.
        assert "**" in facts or table[event][1] == facts, event


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_logs_or_prints_past_the_masks(path: Path) -> None:
    if path.name == "logs.py" or "cli" in path.parts:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            text = ast.unparse(node.func)
            if text.startswith("logging.getLogger") and "sqlalchemy.engine" in ast.unparse(node):
                # Not to log, but to keep SQLAlchemy from it.
                continue
            assert not re.fullmatch(r"print|logging\.(getLogger|log|debug|info|warning|error|exception|critical)", text), text
            assert not re.search(r"(?i)logger\.(log|debug|info|warning|error|exception|critical)$", text), text
