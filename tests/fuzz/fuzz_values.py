"""Strategies: for every parameter of the public calls what it may be given, and what it must refuse or keep as it is."""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NamedTuple

from fuzz_store import CALL, CANARY
from hypothesis import strategies as st

from sessionstore import NewMessage, NewMetric
from sessionstore.content import ROLES
from sessionstore.formats import EXPORT_FORMATS, IMPORT_FORMATS
from sessionstore.queries.transfer import ON_CONFLICT
from sessionstore.values import ACTIVITY_KINDS, AGENT_STATUSES, END_STATUSES, SESSION_STATUSES, STATE_SCOPES

Values = st.SearchStrategy[Any]


class Liar(str):
    """A text that says of itself that it is another one."""

    __slots__ = ()

    def __str__(self) -> str:
        return CANARY

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class Parameter(NamedTuple):
    """What a parameter takes, and what else may be given to it."""

    good: Values
    odd: Values


def numbered(values: Sequence[Any]) -> Values:
    """One of the values, drawn by its number: what is drawn from stands in the repr of each strategy that is made of this one."""

    def value(number: int) -> Any:
        return values[number]

    return st.sampled_from(range(len(values))).map(value)


# -- texts

characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, max_size=40)
any_texts = st.text(max_size=40)
ODD_TEXTS: Final = (
    "",
    " ",
    "\t",
    "a\0b",
    "x\ud800",
    b"x\xff".decode(errors="surrogateescape"),
    "e\u0301",
    "a\u202eb",
    "\ufeffa",
    "a\u200bb",
    "../../etc/cron.d/x",
    "/abs",
    "C:\\x",
    "..",
    "con",
    "' OR 1=1 --",
    '"; DROP TABLE sessions; --',
    "%",
    "_",
    "$.a",
    "{}",
    "*",
    "x" * 257,
    "x" * 70_000,
    "\U0001f469\u200d\U0001f680",
    "\uffff",
    Liar("liar"),
    '"hello',
    "(",
    "hello AND",
    "NEAR(",
    "c++?",
    "-x",
    "foo-bar",
    "x:hello",
    "OR",
    "\u0e01\u4e00",
    "?mode=memory",
    "file:x",
    "~",
    "#",
    "%00",
    "1e999",
    "\r\n",
    "\x7f\x85\u2028",
)

odd_texts = numbered([text if isinstance(text, Liar) else text + CANARY * (len(text) % 2) for text in ODD_TEXTS]) | any_texts
letters = st.text("abcxyz019_-.:/é漢", min_size=1, max_size=12)

# -- anything

_NAIVE: Final = datetime(2026, 1, 1)  # noqa: DTZ001 - that is what is odd about it

junk = numbered(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        2**63,
        -(2**63) - 1,
        10**400,
        0.5,
        float("nan"),
        float("inf"),
        -0.0,
        1e308,
        b"x",
        bytearray(b"x"),
        memoryview(b"x"),
        (),
        [],
        {},
        set(),
        frozenset({"x"}),
        object(),
        object,
        Decimal(1),
        uuid.UUID(int=1),
        1j,
        ...,
        range(3),
        date(2026, 1, 1),
        _NAIVE,
        _NAIVE.min,
        timedelta(1),
        ValueError("x"),
        print,
        iter(()),
        ["x", 1],
        {"x": 1},
        {1: 2},
        [None],
        [[]],
        ("a", "b"),
    ]
)
anything = junk | odd_texts


# -- JSON

plain_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
json_values = st.recursive(
    plain_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=10
)
objects = st.dictionaries(texts, json_values, max_size=5)


def nested(depth: int, inner: object = 1) -> Any:
    """Lists and dicts in turn, so deep."""
    for level in range(depth):
        inner = [inner] if level % 2 else {"k": inner}
    return inner


def cyclic() -> dict[str, Any]:
    """A dict that holds itself."""
    made: dict[str, Any] = {"text": CANARY}
    made["self"] = made
    return made


odd_scalars = junk | odd_texts | st.integers() | st.floats()
odd_objects = st.one_of(
    st.dictionaries(st.text(max_size=5) | odd_scalars.filter(lambda key: key.__hash__ is not None), odd_scalars, max_size=4),
    st.sampled_from([63, 64, 65, 200, 2_000]).map(lambda depth: {"k": nested(depth)}),
    st.builds(cyclic),
    st.sampled_from(
        [{"a": 2**63}, {"a": -(2**63) - 1}, {"a": float("nan")}, {"\ud800": 1}, {"a": "\ud800" + CANARY}, {"": 1}, {"\0": "\0"}]
    ),
    objects,
)

# -- messages

calls = st.lists(st.just(CALL) | json_values, max_size=2)
message_dicts = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(ROLES), texts),
    st.builds(
        lambda role, body: {**body, "role": role}, st.sampled_from(ROLES), objects.map(lambda body: body | {"content": "x"})
    ).map(lambda message: {key: value for key, value in message.items() if key != "type"}),
    st.builds(lambda kind, body: {**body, "type": kind}, st.sampled_from(["reasoning", "function_call", "x"]), objects),
    st.builds(lambda made, text: {"role": "assistant", "content": text, "tool_calls": made}, calls, st.none() | texts),
    st.builds(lambda text: {"role": "tool", "tool_call_id": "c1", "content": text}, texts),
    st.builds(lambda size: {"role": "user", "content": "word " * size}, st.sampled_from([100, 5_000, 20_000])),
)
odd_messages = st.one_of(
    anything,
    odd_objects,
    st.builds(lambda role, text: {"role": role, "content": text}, odd_texts | st.sampled_from(ROLES), odd_scalars | odd_objects),
    st.builds(lambda kind, body: {**body, "type": kind}, odd_scalars, objects),
    st.builds(lambda body: {"role": "user", "content": CANARY, "extra": body}, odd_objects),
)
details = st.fixed_dictionaries(
    {},
    optional={
        "model": letters,
        "finish_reason": letters,
        "input_tokens": st.integers(0, 2**63 - 1),
        "output_tokens": st.integers(0, 2**63 - 1),
        "cache_read_tokens": st.integers(0, 9),
        "reasoning_tokens": st.integers(0, 9),
        "response_time_ms": st.floats(0, 1e12),
        "metadata": objects,
    },
)
new_messages = message_dicts | st.builds(lambda message, known: NewMessage(message, **known), message_dicts, details)


@st.composite
def _odd_new_messages(draw: st.DrawFn) -> Any:
    message = draw(odd_messages)
    if draw(st.sampled_from(["alone", "alone", "detailed"])) == "alone":
        return message
    name = draw(st.sampled_from(["model", "input_tokens", "response_time_ms", "metadata", "created_at", "dedupe_key", "kind"]))
    return NewMessage(message, **{name: draw(anything | odd_objects)})


odd_new_messages = _odd_new_messages()

# -- times and numbers

zones = st.sampled_from(
    [UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12)), timezone(timedelta(hours=5, minutes=45))]
)
instants = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001 - the zones are added
odd_instants = st.datetimes(timezones=st.none() | zones) | anything
seconds = st.floats(1e-3, 3e9) | st.integers(1, 10**9) | st.timedeltas(timedelta(milliseconds=1), timedelta(days=36_000))
odd_seconds = st.floats() | st.integers() | st.timedeltas() | anything
whole = st.integers(0, 12)
odd_whole = st.integers() | st.floats() | anything

# -- parameters


def one_of(*words: str) -> Parameter:
    return Parameter(st.sampled_from(words), anything | st.sampled_from(words).map(str.upper))


def noisy(words: Values) -> Values:
    """Mostly known, sometimes not."""
    return words | odd_texts


identifiers = Parameter(st.sampled_from(["s", "s", "fork", "other"]) | letters, anything)
optional_ids = Parameter(st.none() | st.sampled_from(["a", "b", "u"]) | letters, anything)
flags = Parameter(st.booleans(), anything)
numbers = Parameter(st.none() | whole, odd_whole)
needed_numbers = Parameter(whole, odd_whole)
jsons = Parameter(st.none() | objects, odd_objects | anything)
new_metrics = st.builds(
    NewMetric,
    letters,
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    optional_ids.good,
    jsons.good,
    agent_id=optional_ids.good,
    session_id=optional_ids.good,
    at=st.none() | instants,
)
odd_new_metrics = st.builds(
    lambda metric, name, value: replace(metric, **{name: value}),
    new_metrics,
    st.sampled_from([each.name for each in fields(NewMetric)]),
    odd_instants | odd_objects | odd_whole,
)
titles = Parameter(st.none() | texts, anything)
lists_of_ids = Parameter(
    st.sampled_from(["s", ["s", "fork"], ("other",), {"gone"}, []]), anything | st.lists(odd_scalars, max_size=3)
)
tag_lists = Parameter(st.lists(letters, max_size=3), anything | st.lists(odd_scalars, max_size=3) | st.just(["x"] * 101))
lives = Parameter(st.none() | seconds, odd_seconds)
times = Parameter(st.none() | instants, odd_instants)
filters_of_metadata = Parameter(
    st.none() | st.dictionaries(st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True), plain_scalars, max_size=2),
    odd_objects
    | anything
    | st.dictionaries(st.sampled_from(["x') OR 1=1 --", "a.b", 'a"b', "$", "[0]", ""]), plain_scalars, max_size=2),
)
cursors = Parameter(
    st.none(), anything | st.binary(max_size=90).map(lambda data: __import__("base64").urlsafe_b64encode(data).decode())
)
pages = Parameter(st.integers(1, 5), odd_whole)
dates = Parameter(st.none() | st.dates() | instants, odd_instants)
progress = Parameter(st.none() | st.just(lambda *_: None), st.none())
SQL: Final = (
    "SELECT 1",
    "SELECT * FROM v_messages",
    "SELECT ?",
    "SELECT :a",
    "SELECT count(*) FROM sessions",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT i FROM n",
    "SELECT * FROM json_each('[1,2]')",
    "VALUES (1), ('x'), (x'00')",
)
ODD_SQL: Final = (
    "",
    ";",
    "SELECT 1; SELECT 2",
    "DELETE FROM sessions",
    "PRAGMA user_version = 9",
    "ATTACH 'x.db' AS x",
    "SELECT load_extension('x')",
    "SELECT CAST(x'ff' AS TEXT)",
    "SELECT '\ud800'",
    "SELECT 'a\0b'",
    "\0",
    "EXPLAIN SELECT 1",
    "BEGIN",
    "COMMIT",
    "VACUUM INTO 'x.db'",
    "SELECT" + " (" * 2_000,
    "SELECT 9223372036854775808, 1e999, -1e999",
    "SELECT json('{')",
    "SELECT abs(-9223372036854775808)",
    "SELECT * FROM pragma_database_list",
    "INSERT INTO sessions DEFAULT VALUES RETURNING *",
    "SELECT printf('%.*c', 99999999, 'x') = 1",
    "CREATE TABLE t (a)",
    "SELECT zeroblob(2147483647)",
    "-- only words",
    "SELECT * FROM nowhere",
    "SELECT x'",
    "SELECT ?, ?",
    "SELECT :b",
    "SELECT * FROM messages WHERE rowid = 'x' COLLATE nothing",
    "select sqlite_version(), random(), changes()",
    "REINDEX",
    "ANALYZE",
)
files = Parameter(
    st.sampled_from([b'{"messages": [{"role": "user", "content": "x"}]}\n', b'{"role": "user", "content": "x"}\n', b""]).map(
        io.BytesIO
    ),
    st.binary(max_size=60).map(io.BytesIO) | junk.filter(lambda value: not isinstance(value, str)),
)

# What each parameter takes, by its name; `PARAMETERS_OF` has those that mean something else in one call.
PARAMETERS: Final[dict[str, Parameter]] = {
    "session_id": identifiers,
    "new_session_id": identifiers,
    "session_ids": Parameter(st.none() | lists_of_ids.good, lists_of_ids.odd),
    "user_id": optional_ids,
    "agent_id": optional_ids,
    "sdk_version": optional_ids,
    "title": titles,
    "tags": tag_lists,
    "tag": Parameter(st.none() | letters | tag_lists.good, tag_lists.odd),
    "metadata": jsons,
    "attributes": jsons,
    "details": jsons,
    "pinned": flags,
    "archived": flags,
    "ttl": lives,
    "max_age": lives,
    "status": one_of(*SESSION_STATUSES),
    "previous_status": one_of(*AGENT_STATUSES),
    "since": times,
    "until": times,
    "created_at": times,
    "now": Parameter(st.none() | st.just(datetime(2026, 1, 1, tzinfo=UTC)), odd_instants),
    "start_date": dates,
    "end_date": dates,
    "bucket": one_of("hour", "day", "week", "month"),
    "text": Parameter(st.none() | letters, anything),
    "role": one_of(*ROLES),
    "message": Parameter(st.sampled_from(ROLES) | message_dicts, odd_messages),
    "content": Parameter(st.none() | texts, anything | st.lists(json_values, max_size=2)),
    "name": Parameter(letters, anything),
    "tool_calls": Parameter(st.none() | calls, anything | odd_objects.map(lambda call: [call])),
    "tool_call_id": optional_ids,
    "kind": optional_ids,
    "dedupe_key": Parameter(st.none() | st.sampled_from(["key", "new"]), anything),
    "model": optional_ids,
    "finish_reason": optional_ids,
    "input_tokens": numbers,
    "output_tokens": numbers,
    "cache_read_tokens": numbers,
    "reasoning_tokens": numbers,
    "response_time_ms": Parameter(st.none() | st.floats(0, 1e9), odd_whole),
    "messages": Parameter(st.lists(new_messages, max_size=3), anything | st.lists(odd_new_messages, max_size=3)),
    "state": Parameter(st.none() | st.dictionaries(st.sampled_from(STATE_SCOPES), objects, max_size=2), odd_objects | anything),
    "values": Parameter(st.dictionaries(letters, json_values, max_size=3), odd_objects | anything),
    "expected": Parameter(st.none() | st.dictionaries(letters, json_values, max_size=2), odd_objects | anything),
    "scope": one_of(*STATE_SCOPES),
    "names": Parameter(st.lists(letters, max_size=2), st.lists(anything, max_size=3)),
    "by": Parameter(st.integers(-5, 5) | st.floats(-5, 5), odd_whole),
    "default": Parameter(anything, anything),
    "expected_last_seq": numbers,
    "expected_version": numbers,
    "first": needed_numbers,
    "last": numbers,
    "before": numbers,
    "after": needed_numbers,
    "at": numbers,
    "seq": numbers,
    "page_size": pages,
    "limit": pages,
    "max_sessions": Parameter(st.none() | st.integers(1, 9), odd_whole),
    "max_bytes": Parameter(st.none() | st.integers(1, 10**9), odd_whole),
    "cursor": cursors,
    "query": Parameter(letters | st.lists(letters, max_size=3).map(" ".join), anything | st.text(max_size=1_100)),
    "fts_query": Parameter(letters, anything | st.text('ab"*()^-:+{} NEAR/OR AND', max_size=40)),
    "match": one_of("words", "prefix"),
    "order": one_of("rank", "newest"),
    "mode": one_of("on", "deferred", "off"),
    "cut_pairs": one_of("snap", "raise", "keep"),
    "forks": one_of("raise", "erase", "keep"),
    "format": one_of(*(set(EXPORT_FORMATS) & set(IMPORT_FORMATS))),
    "on_conflict": one_of(*ON_CONFLICT),
    "view": Parameter(st.sampled_from(["v_messages", "v_sessions"]), anything),
    "source": files,
    "namespace": Parameter(st.just("") | letters, anything),
    "action": Parameter(letters, anything),
    "duration": Parameter(st.none() | st.floats(0, 1e9), odd_whole),
    "value": Parameter(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9), odd_whole),
    "unit": optional_ids,
    "quality_score": Parameter(st.none() | st.integers(1, 5), odd_whole),
    "error": titles,
    "sql": Parameter(st.sampled_from(SQL), st.sampled_from(ODD_SQL) | anything),
    "parameters": Parameter(
        st.just(()) | st.lists(plain_scalars, max_size=2), anything | odd_objects | st.lists(odd_scalars, max_size=2)
    ),
    "key": Parameter(letters, anything),
    "keys": lists_of_ids,
    "older_than": lives,
    "interval": Parameter(seconds, odd_seconds),
    "timeout": Parameter(
        st.floats(0, 0.01), anything.filter(lambda value: value is not None and not isinstance(value, int | float))
    ),
    "target": Parameter(st.builds(io.BytesIO), junk.filter(lambda value: not isinstance(value, str))),
    "progress": progress,
    **dict.fromkeys(
        [
            "all_namespaces",
            "blobs",
            "copy",
            "dry_run",
            "full",
            "keep_pairs",
            "overwrite",
            "rebuild",
            "replace",
            "storage",
            "strict",
            "tell",
            "touch",
        ],
        flags,
    ),
}

PARAMETERS_OF: Final[dict[tuple[str, str], Parameter]] = {
    ("set_status", "status"): one_of(*AGENT_STATUSES),
    ("agents", "status"): one_of(*AGENT_STATUSES),
    ("end", "status"): one_of(*END_STATUSES),
    ("activity", "kind"): one_of(*ACTIVITY_KINDS),
    ("outbox.list", "state"): one_of("pending", "claimed", "dead"),
    ("outbox.purge", "state"): one_of("pending", "dead"),
    ("outbox.erase", "tell"): flags,
    ("set_remote", "remote"): Parameter(
        st.sampled_from(["https://collector.example/v1", "http://127.0.0.1:9", None]),
        anything
        | st.sampled_from(
            [
                "ftp://h",
                "file:///x",
                "//x",
                "http://",
                " https://h",
                f"https://u:{CANARY}@h/",
                f"https://h/?api_key={CANARY}",
                "https://h/#f",
                "https://h:0",
                "https://h:99999",
                "http://[::1",
                "https://h\0",
                "https://\u0440.example",
                "https://h h",
                "http://far.example",
            ]
        ),
    ),
    ("set_remote", "api_key"): Parameter(st.none() | st.just("a-long-enough-key"), anything),
    ("iterate", "after"): needed_numbers,
    ("truncate", "after"): needed_numbers,
    ("replace_range", "last"): needed_numbers,
    ("register_agent", "agent_id"): identifiers,
    ("set_status", "agent_id"): identifiers,
    ("log_activity", "agent_id"): identifiers,
    ("agent", "agent_id"): identifiers,
    ("record_many", "figures"): Parameter(st.lists(new_metrics, max_size=3), anything | st.lists(odd_new_metrics, max_size=3)),
    ("increment_state", "name"): Parameter(st.sampled_from(["n", "x", "new"]), anything),
}
