"""What fuzzing found, each by its name: these once raised errors that are not ours, or wrote before they refused."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fuzz_seeds import exported, llm_database
from fuzz_store import Stores
from fuzz_targets import sealed

import sessionstore
from sessionstore import ConfigError, InvalidInputError, ModelAnswer, ModelError, SessionStore, StoreCorruptError
from sessionstore.chat.answers import checked_answer
from sessionstore.formats import deep_agent

Line = dict[str, Any]


@pytest.fixture
def store(stores: Stores) -> Any:
    with stores.empty() as (opened, _):
        yield opened


def changed(change: Callable[[list[Line]], None]) -> io.BytesIO:
    """A file of the lossless format with something changed in its lines, under a trailer that fits."""
    lines = [json.loads(line) for line in exported()["sessionstore"].splitlines()[1:-1]]
    change(lines)
    return io.BytesIO(sealed(b"\n".join(json.dumps(line).encode() for line in lines)))


def of_kind(lines: list[Line], kind: str) -> Line:
    return next(line for line in lines if line["type"] == kind)


@pytest.mark.parametrize("kind", [[], {}, None, 1], ids=repr)
def test_the_type_of_a_line_is_a_text(store: SessionStore, kind: Any) -> None:
    with pytest.raises(InvalidInputError, match="type"):
        store.import_file(io.BytesIO(sealed(json.dumps({"type": kind}).encode())))


def test_the_bytes_of_a_checkpoint_are_base64(store: SessionStore) -> None:
    def change(lines: list[Line]) -> None:
        of_kind(lines, "checkpoint")["checkpoint"] = "é"

    with pytest.raises(InvalidInputError, match="base64"):
        store.import_file(changed(change))
    assert store.count() == 0


def test_the_channels_of_a_checkpoint_have_names_that_can_be_stored(store: SessionStore) -> None:
    def change(lines: list[Line]) -> None:
        of_kind(lines, "checkpoint")["channels"] = {"\ud800": 1}

    with pytest.raises(InvalidInputError, match="surrogate"):
        store.import_file(changed(change))
    assert store.count() == 0


@pytest.mark.parametrize("seq", [None, "1", []], ids=repr)
def test_a_fork_of_a_session_that_was_left_out_looks_at_what_it_shares(store: SessionStore, seq: Any) -> None:
    store.create("s")

    def change(lines: list[Line]) -> None:
        of_kind(lines, "message")["seq"] = seq

    with pytest.raises(InvalidInputError, match="seq"):
        store.import_file(changed(change), on_conflict="skip")
    assert store.get("fork") is None


@pytest.mark.parametrize("number", ["1e999", "NaN"])
def test_arguments_that_json_does_not_have_are_refused_in_files_of_go_deep_agent(store: SessionStore, number: str) -> None:
    data = f'[{{"Role": "assistant", "ToolCalls": [{{"Name": "f", "Arguments": {{"x": {number}}}}}]}}]'.encode()
    with pytest.raises(InvalidInputError, match="finite"):
        store.import_file(io.BytesIO(data), format="go-deep-agent", session_id="s")
    with pytest.raises(InvalidInputError, match="finite"):
        deep_agent.messages_of(data)


def test_arguments_that_json_does_not_have_are_no_answer_of_a_model() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": {"x": float("inf")}}}
    with pytest.raises(ModelError, match="finite"):
        checked_answer(ModelAnswer({"role": "assistant", "tool_calls": [call]}))


@pytest.mark.parametrize(("column", "value"), [("packed", "text"), ("packed", 5), ("facts", b"{}"), ("facts", 5)])
def test_a_value_of_another_type_in_a_row_is_damage(stores: Stores, column: str, value: Any) -> None:
    with stores.fresh() as (store, path):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(f"UPDATE messages SET text = NULL, {column} = ? WHERE id & 0xffffff = 1", (value,))
        for read in (store.messages, lambda name: list(store.iterate(name))):
            with pytest.raises(StoreCorruptError):
                read("s")
        assert not store.doctor().ok


@pytest.mark.parametrize("entries", ['[["a"], "b", "c"]', '["x", "y", 1], ["x", "y", "z"]', "1", "{}"])
def test_odd_notes_of_large_strings_are_damage_however_they_are_read(stores: Stores, entries: str) -> None:
    with stores.fresh() as (store, path):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE messages SET facts = ? WHERE id & 0xffffff IN (1, 2)", (f'{{"blobs":[{entries}]}}',))
        for read in (store.messages, lambda name: list(store.iterate(name))):
            with pytest.raises(StoreCorruptError):
                read("s")


ODD_CELLS = {
    "an id that is no text": ("threads", "id", 5),
    "a payload without its text": ("parts", "payload", "{}"),
    "a payload of another shape": ("parts", "payload", '{"text_ref": 1}'),
    "an attachment that is a text": ("attachments", "content", "text"),
    "a duration that is a text": ("responses", "duration_ms", "long"),
    "a time that is a number": ("turns", "datetime_utc", 5),
    "a role that is no text": ("messages", "role", b"user"),
}


@pytest.mark.parametrize(("table", "column", "value"), ODD_CELLS.values(), ids=ODD_CELLS)
def test_values_that_llm_does_not_write_are_refused(
    store: SessionStore, tmp_path: Path, table: str, column: str, value: Any
) -> None:
    path = tmp_path / "logs.db"
    llm_database(path, b"")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
        if "text" in column or table == "parts":
            connection.execute("UPDATE parts SET text = NULL")
    with pytest.raises(InvalidInputError):
        store.import_file(path)


@pytest.mark.parametrize("path", ["x\ud800", "a\0b", ""], ids=repr)
def test_a_path_that_no_file_can_have_is_refused(store: SessionStore, path: str) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.backup(path),
        lambda: store.import_file(path),
        lambda: store.import_file(path, format="llm"),
        lambda: store.import_file(path, format="go-deep-agent"),
        lambda: store.export_file(path),
        lambda: store.export_file(path, format="go-deep-agent"),
    )
    for call in calls:
        with pytest.raises(InvalidInputError, match="must be the path of a file"):
            call()


def test_no_backup_gets_a_name_that_no_store_can_be_opened_by(store: SessionStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="must be the path of a file"):
        store.backup(tmp_path / "x\udcff.db")
    assert not any("\udcff" in found.name for found in tmp_path.iterdir())


@pytest.mark.parametrize("remote", [True, "ftp://x", 5], ids=repr)
def test_a_remote_that_is_none_is_refused_before_there_is_a_file(tmp_path: Path, remote: Any) -> None:
    with pytest.raises(ConfigError):
        sessionstore.open(tmp_path / "new.db", remote=remote)
    assert list(tmp_path.iterdir()) == []


def test_an_address_in_the_environment_that_is_none_is_refused_before_there_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_SYNC_URL", "ftp://x")
    with pytest.raises(ConfigError, match="SESSIONSTORE_SYNC_URL"):
        sessionstore.open(tmp_path / "new.db")
    assert list(tmp_path.iterdir()) == []


def test_the_seeds_hold_what_the_format_can_say() -> None:
    kinds = {json.loads(line).get("type") for line in exported()["sessionstore"].splitlines()}
    assert {"session", "message", "superseded", "state", "blob", "checkpoint", "agent", "activity", "metric", "end"} <= kinds
    assert base64.b64encode(b"state").decode() in exported()["sessionstore"].decode()
