"""Session files of go-deep-agent: a folder in and a folder out, in the layouts of both of its generations."""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import ConflictError, InvalidInputError, NewMessage, SessionStore
from sessionstore.formats.file_names import escaped, file_name, session_id_of

# As Go's encoder writes them.
OLD = (
    '[\n  {\n    "Role": "user",\n    "Content": "1 \\u003c 2 \\u0026 é"\n  },\n'
    '  {\n    "Role": "assistant",\n    "Content": "yes\\n"\n  }\n]'
)
NEW = """[
  {
    "Role": "user",
    "Content": "weather?",
    "ToolCalls": null,
    "ToolCallID": ""
  },
  {
    "Role": "assistant",
    "Content": "",
    "ToolCalls": [
      {
        "ID": "call_1",
        "Type": "function",
        "Name": "get_weather",
        "Arguments": "{\\"city\\":\\"Hanoi\\"}"
      }
    ],
    "ToolCallID": ""
  },
  {
    "Role": "tool",
    "Content": "22",
    "ToolCalls": null,
    "ToolCallID": "call_1"
  },
  {
    "Role": "moderator",
    "Content": "no such role",
    "ToolCalls": null,
    "ToolCallID": "",
    "Mood": {
      "kept": [
        1
      ]
    }
  }
]"""


def folder_of(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "sessions"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def test_both_generations_come_back_byte_by_byte(store: SessionStore, tmp_path: Path) -> None:
    source = folder_of(tmp_path, old=OLD, new=NEW, none="[]")
    receipt = store.import_file(source)
    assert (receipt.format, receipt.sessions, receipt.messages) == ("go-deep-agent", 3, 6)
    out = tmp_path / "out"
    receipt = store.export_file(out, format="go-deep-agent")
    texts = {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}
    assert texts == {"old.json": OLD, "new.json": NEW, "none.json": "[]"}
    assert (receipt.sessions, receipt.messages, receipt.size_bytes) == (3, 6, sum(len(text.encode()) for text in texts.values()))


def test_a_flat_call_becomes_a_chat_call(store: SessionStore, tmp_path: Path) -> None:
    store.import_file(folder_of(tmp_path, chat=NEW) / "chat.json", format="go-deep-agent")
    asked, called, answered, other = store.messages("chat")
    function = {"name": "get_weather", "arguments": '{"city":"Hanoi"}'}
    assert asked.to_dict() == {"role": "user", "content": "weather?"}
    assert called.to_dict() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    assert answered.to_dict() == {"role": "tool", "content": "22", "tool_call_id": "call_1"}
    assert called.tool_call_ids == (answered.tool_call_id,)
    assert (other.kind, other.to_dict()) == ("go-deep-agent", {"role": "moderator", "content": "no such role"})
    assert other.metadata == {"go_deep_agent": {"Mood": {"kept": [1]}}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x"},
        {"ROLE": "user", "cOnTeNt": "x", "toolcalls": None, "TOOLCALLID": ""},
        {"role": "user", "content": "x", "tool_calls": [], "tool_call_id": ""},
        {"Role": "system", "role": "user", "Content": "y", "content": "x"},
    ],
)
def test_keys_are_read_in_any_case_and_the_last_of_equal_ones_counts(store: SessionStore, message: dict[str, Any]) -> None:
    store.import_file(io.BytesIO(json.dumps([message]).encode()), format="go-deep-agent", session_id="s")
    assert [message.to_dict() for message in store.messages("s")] == [{"role": "user", "content": "x"}]


def test_an_old_session_that_got_a_tool_call_goes_out_in_the_newer_layout(store: SessionStore, tmp_path: Path) -> None:
    store.import_file(folder_of(tmp_path, chat=OLD))
    store.append("chat", "assistant", tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}])
    store.export_file(tmp_path / "out", format="go-deep-agent")
    keys = [list(message) for message in json.loads((tmp_path / "out" / "chat.json").read_text())]
    assert keys == [["Role", "Content", "ToolCalls", "ToolCallID"]] * 3


def test_what_go_cannot_say_comes_back_and_gives_way_to_what_go_changed(store: SessionStore, tmp_path: Path) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "x"}}]}
    store.create("s")
    store.append_many("s", [parts, parts, NewMessage({"any": "shape"}, kind="own"), {"type": "reasoning", "summary": []}])
    store.export_file(tmp_path / "out", format="go-deep-agent")
    path = tmp_path / "out" / "s.json"
    objects = json.loads(path.read_text())
    assert objects[0]["Content"] == "look"
    objects[1]["Content"] = "changed"
    path.write_text(json.dumps(objects))
    with sessionstore.open(in_memory=True) as other:
        other.import_file(tmp_path / "out")
        held = other.messages("s")
    assert [message.to_dict() for message in held] == [
        parts,
        {"role": "user", "content": "changed"},
        {"any": "shape"},
        {"type": "reasoning", "summary": []},
    ]
    assert [message.kind for message in held] == ["message", "message", "own", "reasoning"]


def test_real_conversations_come_back_equal(tmp_path: Path, airline_conversations: list[dict[str, Any]]) -> None:
    with sessionstore.open(in_memory=True) as store, sessionstore.open(in_memory=True) as other:
        for number, conversation in enumerate(airline_conversations):
            store.create(f"s{number}")
            store.append_many(f"s{number}", conversation["messages"])
        store.export_file(tmp_path / "out", format="go-deep-agent")
        assert other.import_file(tmp_path / "out").messages == 2526
        for number, conversation in enumerate(airline_conversations):
            assert [message.to_dict() for message in other.messages(f"s{number}")] == conversation["messages"]


texts = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
calls = st.fixed_dictionaries(
    {"id": texts.filter(bool), "type": st.just("function"), "function": st.fixed_dictionaries({"name": texts, "arguments": texts})},
    optional={"index": st.integers(0, 9)},
)
messages = st.builds(
    lambda role, content, more: {"role": role, "content": content, **more},
    st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
    texts | st.none() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2),
    st.fixed_dictionaries(
        {}, optional={"tool_calls": st.lists(calls, max_size=2), "tool_call_id": texts, "name": texts, "x": values}
    ),
)
session_ids = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=40)


def is_id(text: str) -> bool:
    try:
        sessionstore.inputs.identifier("session_id", text)
    except InvalidInputError:
        return False
    return True


def test_random_sessions_come_back_equal() -> None:
    with sessionstore.open(in_memory=True) as store, sessionstore.open(in_memory=True) as other:

        @settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
        @given(st.dictionaries(session_ids.filter(is_id), st.lists(messages, max_size=4), max_size=3))
        def survive(sessions: dict[str, list[dict[str, Any]]]) -> None:
            for session_id, history in sessions.items():
                store.create(session_id)
                store.append_many(session_id, history)
            with tempfile.TemporaryDirectory() as folder:
                store.export_file(folder, format="go-deep-agent")
                assert other.import_file(folder).sessions == len(sessions)
            for held in other.list(limit=10):
                texts = [message.to_dict() for message in other.messages(held.session_id)]
                # Of ids that differ in their case only, one gets a name with a hash.
                assert texts == sessions[held.session_id.rpartition("~")[0] if held.session_id not in sessions else held.session_id]
            for opened in (store, other):
                opened.delete([info.session_id for info in opened.list(limit=10)])

        survive()


@pytest.mark.parametrize(
    ("session_id", "name"),
    [
        ("plain-1_é", "plain-1_é"),
        ("../../etc/passwd", "%2E./../etc/passwd".replace("/", "%2F")),
        ("a/b\\c:d", "a%2Fb%5Cc%3Ad"),
        (".hidden", "%2Ehidden"),
        ("50%", "50%25"),
        ("nul", "%6Eul"),
        ("COM1.x", "%43OM1.x"),
        ("end.", "end%2E"),
    ],
)
def test_an_id_is_never_a_path(session_id: str, name: str) -> None:
    assert file_name(session_id, set()) == name
    assert session_id_of(name) == session_id


@pytest.mark.parametrize("session_id", ["a", "Alice", "a/b", "50%", "a~0123456789abcdef", "a~b~c"])
def test_a_name_with_a_hash_leads_back_to_its_id(session_id: str) -> None:
    name = file_name(session_id, {session_id.casefold(), escaped(session_id).casefold()})
    assert name != escaped(session_id)
    assert session_id_of(name) == session_id


def test_an_id_that_looks_like_a_name_with_a_hash_gets_another_one() -> None:
    hashed = file_name("a", {"a"})
    name = file_name(hashed, set())
    assert name != hashed
    assert session_id_of(name) == hashed


@pytest.mark.parametrize("name", ["%FF", "%C3", "a~", "~", "a~0000000000000000", "%zz"])
def test_a_name_that_somebody_else_made_stands_for_itself(name: str) -> None:
    assert session_id_of(name) == name


def test_ids_that_differ_by_case_or_are_long_have_names_of_their_own(store: SessionStore, tmp_path: Path) -> None:
    for session_id in ("a", "A", "語" * 200):
        store.session(session_id).append("user", session_id)
    store.export_file(tmp_path / "out", format="go-deep-agent")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len({name.casefold() for name in names}) == 3
    assert max(len(name.encode()) for name in names) < 255


def test_a_name_that_only_looks_escaped_stands_for_itself(store: SessionStore, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, **{"50%41": OLD, "50%": OLD})
    store.import_file(folder)
    assert {info.session_id for info in store.list()} == {"50%41", "50%"}


def test_files_in_folders_are_named_by_their_path(store: SessionStore, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "team").mkdir()
    (folder / "team" / "chat.json").write_text(OLD)
    store.import_file(folder)
    assert [info.session_id for info in store.list()] == ["team/chat"]
    store.export_file(tmp_path / "out", format="go-deep-agent")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["team%2Fchat.json"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_only_the_owner_can_read_what_is_written(store: SessionStore, tmp_path: Path) -> None:
    store.session("s").append("user", "secret")
    store.export_file(tmp_path / "out", format="go-deep-agent")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out", tmp_path / "out" / "s.json")]
    assert modes == [0o700, 0o600]


def test_a_file_that_is_there_is_replaced_and_others_stay(store: SessionStore, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, s=OLD, other=OLD)
    store.session("s").append("user", "new")
    store.export_file(folder, format="go-deep-agent")
    assert json.loads((folder / "s.json").read_text())[0]["Content"] == "new"
    assert sorted(path.name for path in folder.iterdir()) == ["other.json", "s.json"]
    assert (folder / "other.json").read_text(encoding="utf-8") == OLD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1 of bad.json: is not a JSON array"),
        ("{}", "line 1 of bad.json: is not a JSON array"),
        (OLD[:-1], "line 10 of bad.json: is not JSON"),
        (OLD[:40], "line 4 of bad.json: is not JSON"),
        (OLD + "]", "line 10 of bad.json: has something behind its end"),
        ("[\n1]", "line 2 of bad.json: must be a message object"),
        ('[\n\n{"Role": "user", "Content": 3}]', "line 3 of bad.json: Content: must be a text"),
        ('[{"Role": "user",\n"Content": "", "ToolCalls": {"a": 1}}]', "line 1 of bad.json: ToolCalls: must be a list"),
        ('[{"Role": "a"},]', "line 1 of bad.json: is not JSON"),
        ("[" * 100_000, "line 1 of bad.json: is nested too deeply"),
        ('[{"Role": "user", "Content": "\\ud800"}]', "line 1 of bad.json: content"),
    ],
)
def test_a_damaged_file_is_named_with_its_line_and_nothing_of_it_is_stored(
    store: SessionStore, tmp_path: Path, text: str, reason: str
) -> None:
    folder = folder_of(tmp_path, a=OLD, bad=text, c=OLD)
    with pytest.raises(InvalidInputError, match=reason) as refused:
        store.import_file(folder)
    assert refused.value.field == "source"
    assert str(refused.value).endswith("; 1 conversation before it is stored")
    assert [info.session_id for info in store.list()] == ["a"]


def test_a_taken_id_is_refused_skipped_replaced_or_renamed(store: SessionStore, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a=OLD)
    store.import_file(folder)
    with pytest.raises(ConflictError, match=r"a\.json: there is a session 'a' already"):
        store.import_file(folder)
    assert store.import_file(folder, on_conflict="skip").skipped == 1
    assert store.import_file(folder, on_conflict="replace").replaced == 1
    assert store.import_file(folder, on_conflict="new-id").renamed == (("a", "a-2"),)


def test_a_folder_is_needed_to_write_and_named_by_a_path(store: SessionStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (io.BytesIO(), tmp_path / "file"):
        with pytest.raises(InvalidInputError, match="must be a"):
            store.export_file(target, format="go-deep-agent")
    with pytest.raises(InvalidInputError, match="the files of a folder name their own"):
        store.import_file(folder_of(tmp_path, a=OLD), session_id="s")


def test_progress_counts_bytes_of_all_files(store: SessionStore, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a=OLD, b=NEW)
    seen: list[tuple[int, int | None]] = []
    store.import_file(folder, progress=lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert seen == [((folder / "a.json").stat().st_size, total), (total, total)]
