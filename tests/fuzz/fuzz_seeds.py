"""Seeds: small inputs that each target takes, made by this library itself, and the mutations that begin with them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import sessionstore
from sessionstore import NewMessage, SessionStore, packing
from sessionstore.values.checkpoints import ChannelValue, Encoded, NewCheckpoint, NewWrite

_CALL: Final = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
_LARGE: Final = "large text " * 7_000
# Tables and columns of llm's, of both generations, with a conversation in each; all that the import reads.
_LLM: Final[dict[str, list[dict[str, Any]]]] = {
    "_llm_migrations": [{"name": "m", "applied_at": "x"}],
    "threads": [
        {"id": "01j00000000000000000000001", "name": "one", "tip_message_hash": "h2", "forked_from": None},
        {"id": "01j00000000000000000000002", "name": "two", "tip_message_hash": "h1", "forked_from": "01j00000000000000000000001"},
    ],
    "turns": [
        {
            "id": "01j00000000000000000000003",
            "thread_id": "01j00000000000000000000001",
            "parent_message_hash": None,
            "tip_message_hash": "h2",
            "model": "m",
            "resolved_model": None,
            "options_json": '{"t": 1}',
            "schema_id": None,
            "input_tokens": 3,
            "output_tokens": 4,
            "token_details": '{"reasoning_tokens": 1}',
            "duration_ms": 20,
            "datetime_utc": "2026-01-01T00:00:00+00:00",
        },
    ],
    "messages": [
        {"hash": "h1", "parent_hash": None, "role": "user", "provider_metadata": None},
        {"hash": "h2", "parent_hash": "h1", "role": "assistant", "provider_metadata": '{"k": 1}'},
    ],
    "parts": [
        {"message_hash": "h1", "position": 0, "type": "text", "tool_name": None, "text": "hello", "payload": None},
        {
            "message_hash": "h1",
            "position": 1,
            "type": "attachment",
            "tool_name": None,
            "text": None,
            "payload": '{"attachment": {"id": "a1"}}',
        },
        {
            "message_hash": "h1",
            "position": 2,
            "type": "text",
            "tool_name": None,
            "text": None,
            "payload": '{"text_ref": [{"fragment": "f1"}, {"literal": "!"}]}',
        },
        {"message_hash": "h2", "position": 0, "type": "reasoning", "tool_name": None, "text": "hm", "payload": "{}"},
        {
            "message_hash": "h2",
            "position": 1,
            "type": "tool_call",
            "tool_name": "f",
            "text": None,
            "payload": '{"name": "f", "arguments": {"x": 1}, "tool_call_id": null}',
        },
        {
            "message_hash": "h2",
            "position": 2,
            "type": "tool_result",
            "tool_name": "f",
            "text": None,
            "payload": '{"name": "f", "output": "1", "attachments": [{"id": "a1"}], "exception": "E"}',
        },
    ],
    "fragments": [{"id": "f1", "content": "fragment", "hash": "x"}],
    "attachments": [{"id": "a1", "type": "image/png", "path": None, "url": None, "content": b"\x89PNG"}],
    "conversations": [{"id": "01h00000000000000000000001", "name": "old", "model": "m"}],
    "responses": [
        {
            "id": "01h00000000000000000000002",
            "model": "m",
            "resolved_model": None,
            "prompt": "p",
            "system": "s",
            "options_json": "{}",
            "response": "r",
            "reasoning": "why",
            "conversation_id": "01h00000000000000000000001",
            "duration_ms": 5,
            "datetime_utc": "2025-01-01T00:00:00",
            "input_tokens": 1,
            "output_tokens": 2,
            "token_details": "{}",
            "schema_id": None,
        },
    ],
    "tool_calls": [{"id": 1, "response_id": "01h00000000000000000000002", "name": "f", "arguments": "{}", "tool_call_id": None}],
    "tool_results": [
        {"id": 1, "response_id": "01h00000000000000000000002", "name": "f", "output": "1", "tool_call_id": "c", "exception": None}
    ],
    "prompt_attachments": [{"response_id": "01h00000000000000000000002", "attachment_id": "a1", "order": 0}],
    "prompt_fragments": [{"response_id": "01h00000000000000000000002", "fragment_id": "f1", "order": 0}],
    "log": [
        {
            "id": 1,
            "model": "m",
            "timestamp": "2024-01-01",
            "datetime_utc": None,
            "prompt": "p",
            "system": None,
            "options_json": None,
            "response": "r",
            "chat_id": None,
            "duration_ms": None,
        }
    ],
}
_CELLS: Final = [(table, row, column) for table, rows in _LLM.items() for row, each in enumerate(rows) for column in each]


def llm_database(path: Path, changes: bytes) -> None:
    """A database as `llm` writes it, with some cells changed: two bytes say which, one of what kind, one how long the value is."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")
        for table, rows in _LLM.items():
            columns = ", ".join(f'"{column}"' for column in rows[0])
            connection.execute(f'CREATE TABLE "{table}" ({columns})')
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', [tuple(row.values()) for row in rows])
        stream = io.BytesIO(changes)
        while len(head := stream.read(4)) == 4:
            table, row, column = _CELLS[int.from_bytes(head[:2]) % len(_CELLS)]
            statement = f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?'
            connection.execute(statement, (_cell(head[2], stream.read(head[3] % 48)), row + 1))
        connection.execute("COMMIT")


def _cell(kind: int, raw: bytes) -> Any:
    values = (
        None,
        int.from_bytes(raw[:8], signed=True) if raw else 0,
        raw,
        raw.decode(errors="replace"),
        float(len(raw)) * 1e300,
        json.dumps({"text": raw.hex(), "attachment": 1, "attachments": [1], "name": [], "arguments": {"n": 1}}),
        "[1]",
        "01j00000000000000000000001",
    )
    return values[kind % len(values)]


def changed_llm() -> Iterator[bytes]:
    """Each cell changed to each kind of value, one at a time."""
    for place in range(len(_CELLS)):
        for kind in range(8):
            yield place.to_bytes(2) + bytes([kind, 4]) + b"\xff\x00a1"


def filled(store: SessionStore) -> None:
    """Something of every kind of line that the lossless format has."""
    chat = store.session(
        "s", user_id="u", agent_id="a", title="Ünïcode", tags=["one"], metadata={"k": [1, None, {"x": 0.5}]}, ttl=10**9
    )
    chat.append_many(
        [
            {"role": "system", "content": "be kind"},
            NewMessage(
                {"role": "user", "content": "hello \u202e there"}, created_at=datetime(2026, 1, 1, tzinfo=UTC), dedupe_key="d"
            ),
            NewMessage({"role": "assistant", "content": None, "tool_calls": [_CALL]}, model="m", input_tokens=5, metadata={"a": 1}),
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c2", "output": "x"},
            {"role": "user", "content": [{"type": "text", "text": _LARGE}]},
            NewMessage({"any": "shape"}, kind="odd"),
        ]
    )
    store.set_state("s", {"x": 1, "y": {"z": []}})
    store.set_state("s", {"name": "n"}, scope="user")
    store.fork("s", "fork", at=4).append("user", "elsewhere")
    store.append("s", "user", "old")
    store.replace_range("s", 9, 9, [{"role": "user", "content": "new"}])
    store.end("fork", "failed", error="why")
    store.register_agent("a", metadata={"k": 1})
    store.log_activity("a", "did", {"n": 1}, duration=0.5)
    store.record("figure", 1.5, "ms", {"k": 1}, agent_id="a", session_id="s")
    value = Encoded(1, "raw", b"value")
    channel = ChannelValue(channel="ch", version='"1"', is_new=True, base=None, rest=value, whole=lambda: value)
    row = NewCheckpoint(
        checkpoint_ns="",
        checkpoint_id="1",
        parent_id=None,
        run_id="r",
        checkpoint=("raw", b"state"),
        metadata=("raw", b"about"),
        values=(channel,),
    )
    store._put_checkpoint(store._new_session("s", {}), row, None)
    writes = [NewWrite(0, "ch", "raw", b"written"), NewWrite(-3, "x", "raw", b"stop")]
    store._put_checkpoint_writes(store._new_session("s", {}), "", "1", writes, task_id="t", task_path="p")


@cache
def exported() -> dict[str, bytes]:
    """A file of each format."""
    found: dict[str, bytes] = {}
    with sessionstore.open(in_memory=True) as store:
        filled(store)
        for file_format in ("sessionstore", "openai", "openai-messages", "responses", "responses-items"):
            target = io.BytesIO()
            one = {"session_ids": "s"} if file_format.endswith(("messages", "items")) else {}
            store.export_file(target, format=file_format, **one)  # type: ignore[arg-type]
            found[file_format] = target.getvalue()
        with tempfile.TemporaryDirectory() as folder:
            store.export_file(folder, format="go-deep-agent", session_ids="s")
            found["go-deep-agent"] = next(Path(folder).iterdir()).read_bytes()
            path = Path(folder) / "logs.db"
            llm_database(path, b"")
            found["llm"] = path.read_bytes()
    return found


def _json(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


_BODY: Final = {"session_id": "s", "agent_id": "a", "start_time": "2026-01-01T00:00:00+00:00"}
_EVENTS: Final[list[dict[str, Any]]] = [
    {"kind": "conversation_start", "body": {**_BODY, "metadata": {"k": 1}}},
    {"kind": "conversation_end", "body": {**_BODY, "end_time": "2026-01-01T00:01:00", "status": "failed", "quality_score": 5}},
    {"kind": "conversation_expired", "body": {**_BODY, "end_time": "2026-01-01T00:01:00.000000+00:00"}},
    {"kind": "agent_register", "body": {"agent_id": "a", "registration_time": "2026-01-01T00:00:00Z"}},
    {"kind": "agent_status", "body": {"agent_id": "a", "status": "busy", "timestamp": "2026-01-01T00:00:00Z"}},
    {"kind": "agent_activity", "body": {"agent_id": "a", "action": "x", "timestamp": "2026-01-01T00:00:00Z", "details": {}}},
    {
        "kind": "metric",
        "body": {
            "name": "message",
            "value": 1.5,
            "unit": "ms",
            **_BODY,
            "timestamp": "2026-01-01T00:00:00Z",
            "attributes": {"seq": 1, "role": "user", "input_tokens": 5},
        },
    },
    {
        "kind": "message",
        "body": {
            **_BODY,
            "seq": 1,
            "kind": "message",
            "timestamp": "2026-01-01T00:00:00Z",
            "message": {"role": "user", "content": "x"},
            "attributes": None,
        },
    },
    {"kind": "erase", "body": {"session_id": "s", "timestamp": "2026-01-01T00:00:00Z"}},
]
_RESULTS: Final = (
    b'{"results": [{"key": "key-1", "status": "stored"}, '
    b'{"key": "key-2", "status": "rejected", "error": "\\ud800 canary/key+0123456789abcdef"}]}'
)
_DEPTHS: Final = (10, 64, 65, 900, 980, 990, 2_000, 100_000)


def _deep() -> list[bytes]:
    """JSON that is nested near the limits of whatever reads it, and numbers beyond them."""
    arrays = [b"[" * depth + b"]" * depth for depth in _DEPTHS]
    objects = [b'{"a":' * depth + b"1" + b"}" * depth for depth in _DEPTHS]
    return [
        *arrays,
        *objects,
        b"1" * 5_000,
        b'{"n": ' + b"9" * 5_000 + b"}",
        b'{"n": 1e999}',
        b'{"n": NaN}',
        b'{"\\ud800": "\\udfff"}',
    ]


def _in(before: bytes, after: bytes) -> list[bytes]:
    return [before + value + after for value in _deep()]


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """What a target begins with."""
    return tuple(_SEEDS[name]() if name in _SEEDS else [b"", b"x"])


def _native_lines() -> bytes:
    return b"".join(exported()["sessionstore"].splitlines(keepends=True)[1:-1])


_SEEDS: Final[dict[str, Any]] = {
    "openai_file": lambda: [
        exported()["openai"],
        *_in(b'{"messages": [{"role": "user", "content": ', b"}]}"),
        *_in(b'{"messages": [], "m": ', b"}"),
    ],
    "openai_messages_file": lambda: [exported()["openai-messages"], *_in(b'{"role": "user", "x": ', b"}")],
    "responses_file": lambda: [exported()["responses"], *_in(b'{"items": [{"type": "x", "y": ', b"}]}")],
    "responses_items_file": lambda: [exported()["responses-items"], *_in(b'{"type": "x", "y": ', b"}")],
    "deep_agent_file": lambda: [
        exported()["go-deep-agent"],
        *_deep(),
        *_in(b'[{"Role": "user", "x": ', b"}]"),
        *_in(b'[{"Role": "assistant", "ToolCalls": [{"ID": "1", "Arguments": {"a": ', b"}}]}]"),
        *_in(
            b'[{"Role": "user", "Content": "x", "ToolCalls": ', b', "sessionstore": {"message": {"role": "user", "content": "x"}}}]'
        ),
        *_in(b'[{"Role": "", "Content": "", "sessionstore": {"message": {"a": ', b'}, "kind": "k"}}]'),
    ],
    "native_file": lambda: [exported()["sessionstore"], gzip.compress(exported()["sessionstore"], mtime=0)],
    "native_lines": lambda: [
        _native_lines(),
        *_native_lines().splitlines(),
        b'{"type": []}',
        b'{"type": {}}',
        b'{"type": "metric"}',
        b'{"type": "blob"}',
        *_in(b'{"type": ', b"}"),
        *(line.replace(b'"s"', value) for line in _native_lines().splitlines()[:3] for value in _deep()[:20:3]),
    ],
    "told_file": lambda: [
        *(data for name, data in exported().items() if name != "llm"),
        gzip.compress(exported()["openai"], mtime=0),
        b"\xef\xbb\xbf{}",
    ],
    "llm_values": lambda: [b"", *changed_llm()],
    "llm_file": lambda: [exported()["llm"], b"SQLite format 3\0", b""],
    "json_lines": lambda: [*exported()["openai"].splitlines(), *_deep()],
    "json_arrays": lambda: [exported()["go-deep-agent"], b"null", b"[1, 2]", *_deep()],
    "deep_agent_messages": lambda: [exported()["go-deep-agent"], b"null", *_in(b'[{"role": "x", "tool_calls": [{"y": ', b"}]}]")],
    "message": lambda: [
        *exported()["openai-messages"].splitlines(),
        *_deep(),
        *_in(b'{"role": "user", "content": ', b"}"),
        *_json({"role": "user", "content": "data:image/png;base64," + base64.b64encode(b"x" * 70_000).decode()}),
    ],
    "packed_message": lambda: [
        packing.pack("text " * 50, '{"a": 1}', level=3) or b"",
        packing.pack(None, '"x"' * 99, level=9) or b"",
        b"\0\0\0\0\5x",
    ],
    "packed_blob": lambda: [(1_000).to_bytes(3) + packing.compressed(b"a" * 1_000, level=3)[1]],
    "stored_row": lambda: (
        [bytes([number]) + value for number in range(24) for value in (b"", b"null", b'{"blobs":[[[],1,2]]}', b"[]", b"\xff")]
        + [
            bytes([number]) + b'{"blobs":[' + inner + b"]}"
            for number in range(9, 12)
            for inner in (b"1", b'["x","y",1]', b'[["a","b"],"c",1]', b"[]", b"{}")
        ]
    ),
    "stored_blob": lambda: [bytes([kind]) + b"\0\0\5" + b"hello" for kind in range(16)],
    "cursor": lambda: [
        base64.urlsafe_b64encode(value)
        for value in (b'[[1], "x"]', b"{}", b"[[]]", b"[" * 80 + b"]" * 80, b'{"a":1,"b":2}', b"\xff")
    ],
    "encryption_key": lambda: [b"x" * 32, b"x" * 31, b"ab" * 32, base64.b64encode(b"y" * 32), b"password", b"\0" * 32],
    "masked_text": lambda: [
        b"https://u:p@h/?api_key=x",
        b'{"password": "x", "n": [1, {"token": "y"}]}',
        b"Authorization: Bearer abc",
        b"name='a\\'b" * 20,
        b"-----BEGIN PRIVATE KEY-----" * 3,
        b"://" * 50,
        b"key=" * 60,
        b'"\\' * 60,
        *_deep(),
    ],
    "file_name": lambda: [b"../x", b"con", b"A", "é%41~0123456789abcdef".encode(), b"x" * 256, b"a~0123456789abcdef", b".", b"%2e"],
    "search": lambda: [b"fox", b'"quick brown', b"C++ foo-bar", "漢字 การ".encode(), b"NEAR( OR *", b"x " * 40],
    "raw_search": lambda: [
        b'"quick brown" OR fox',
        b"fo*",
        b"NEAR(quick fox, 5)",
        b"text : fox",
        b"^the",
        b"(",
        b"{a b} : c",
        b"-x",
        b"\0",
    ],
    "user_sql": lambda: [
        b"SELECT * FROM v_messages",
        b"DELETE FROM sessions",
        b"SELECT json_extract(metadata, '$.k') FROM v_sessions",
        b"SELECT 1;",
        b"PRAGMA writable_schema = 1",
        b"SELECT CAST(x'ff' AS TEXT)",
        b"ATTACH 'x' AS y",
        b"SELECT printf('%s', 1)",
        b"WITH a AS (SELECT 1) SELECT",
    ],
    "remote_answer": lambda: [
        status.to_bytes(2) + header + b"\n" + body
        for status in (100, 200, 326, 409, 300, 903)
        for header in (
            b"5",
            b"Wed, 21 Oct 2015 07:28:00 GMT",
            b"Fri, 31 Dec 9999 23:59:59 -2359",
            b"Mon, 01 Jan 0001 00:00:00 +2359",
            b"http://[",
            b"//h:99999",
            b"1" * 400,
            b"a b c d e f",
        )
        for body in (
            b"",
            _RESULTS,
            b'{"error": {"message": "no"}}',
            b'{"results": [{"key": [], "status": {}}]}',
            b"[" * 3_000,
        )
    ],
    "remote_capabilities": lambda: (
        _json(
            {
                "api": "sessionstore",
                "version": 1,
                "batch": {"path": "/events/batch", "max_events": 5, "max_bytes": 10**400, "encodings": ["gzip"]},
                "kinds": ["metric", 1],
            },
            {"api": "sessionstore", "version": True, "batch": {"path": "/..//x"}},
        )
        + _deep()
    ),
    "model_answer": lambda: [
        *_json(
            {
                "choices": [{"message": {"role": "assistant", "content": "x", "tool_calls": [_CALL]}, "finish_reason": "stop"}],
                "model": "m",
                "usage": {"prompt_tokens": 1},
            },
            {
                "choices": [
                    {"delta": {"content": "x", "tool_calls": [{"index": 0, "function": {"name": "f"}}]}, "finish_reason": "stop"}
                ]
            },
        ),
        *_in(b'{"choices": [{"message": {"content": "x", "tool_calls": [{"function": {"name": "f", "arguments": ', b"}}]}}]}"),
        *_in(
            b'{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ',
            b'}}]}, "finish_reason": "stop"}]}',
        ),
        *_in(b'{"choices": [{"message": {"content": "x", "y": ', b"}}]}"),
    ],
    "collector_batch": lambda: [
        *_json(
            {"source": "s", "events": [{"key": str(number), "namespace": "n", **event} for number, event in enumerate(_EVENTS)]}
        ),
        *_in(b'{"events": [', b"]}"),
        *_in(b'{"events": [{"key": "k", "kind": "metric", "body": {"attributes": ', b"}}]}"),
    ],
    "collector_event": lambda: [*_json(*(event["body"] for event in _EVENTS)), *_deep()],
    "collector_body": lambda: [
        gzip.compress(b"{}", mtime=0),
        packing.compressed(b"x" * 500, level=3)[1],
        gzip.compress(b"0" * (2 << 20), mtime=0),
    ],
    "location": lambda: [
        b"sqlite:///x.db",
        b"sqlite:////abs/x%20y.db?mode=memory",
        b"postgresql://u:p@h/x",
        b":memory:",
        b"a\0b",
        b"x/",
        b"file:x",
        b"sqlite:///%00",
        b"\xff",
    ],
    "remote_url": lambda: [
        b"https://h/v1",
        b"http://127.0.0.1:80/",
        b"https://[::1]:443/x/../y",
        b"ftp://h",
        b"HTTPS://H.EXAMPLE.:0443/%2e%2e",
        b"http://0x7f.1",
        b"https://h:99999",
        b" https://h",
    ],
}


# -- mutations


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The data after some damage: bytes changed, cut, doubled or swapped, lines likewise, JSON values exchanged."""
    for _ in range(chance.randint(1, 4)):
        data = chance.choice((_flipped, _cut, _doubled, _lines, _lines, _json_changed, _json_changed, _json_changed, _inserted))(
            data, chance
        )
    return data


_ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "s",
    "\ud800",
    "x" * 300,
    "\0",
    [],
    {},
    [[]],
    [None],
    {"a": []},
    "2026-13-01",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
    ["content"],
    [["content"], "x"],
    "message",
    "session",
    {"role": "user", "content": "x"},
)


def _flipped(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    place = chance.randrange(len(data))
    return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.randint(1, 40) :] if chance.random() < 0.8 else data[:start]


def _doubled(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[: start + chance.randint(1, 40)] + data[start:]


def _inserted(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    piece = chance.choice(
        (
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
            b"\\ud800",
            b'"',
            b"{",
            b"[",
            b"9" * 30,
            b"NaN",
            b"1e999",
            b"\n",
            b"\r",
            "漢".encode(),
            b"-",
            b"\x1f\x8b",
        )
    )
    return data[:place] + piece + data[place:]


def _lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        match chance.randrange(3):
            case 0:
                lines[one], lines[other] = lines[other], lines[one]
            case 1:
                del lines[one]
            case _:
                lines.insert(one, lines[other])
    return b"".join(lines)


def _json_changed(data: bytes, chance: random.Random) -> bytes:
    """A value somewhere in one of the lines becomes another one, goes, or changes places with another one."""
    lines = data.splitlines(keepends=True) if not data.startswith(b"[") else [data]
    number = chance.randrange(len(lines)) if lines else 0
    try:
        tree = json.loads(lines[number])
        _change(tree, chance)
        lines[number] = json.dumps(tree).encode() + b"\n"
    except (ValueError, RecursionError, IndexError):
        return data
    return b"".join(lines)


def _change(tree: Any, chance: random.Random) -> None:
    places = list(_places(tree))
    container, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del container[key]
        case 1:
            other, other_key = chance.choice(places)
            container[key] = json.loads(json.dumps(other[other_key]))
        case 2 if isinstance(container, dict):
            container[chance.choice(("odd", "type", "role", "content", "key", "shares", "blobs"))] = container.pop(key)
        case _:
            container[key] = chance.choice(_ODD)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict | list):
            for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
                yield container, key
                waiting.append(value)
