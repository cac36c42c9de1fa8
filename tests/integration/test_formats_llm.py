"""The `logs.db` of llm: what its own package wrote comes in whole, of both generations, and the file stays as it is."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import ConflictError, InvalidInputError, SessionStore

llm = pytest.importorskip("llm", reason="the package llm is not installed; the group `test` brings it")

from llm.logs import LogStore  # noqa: E402 - only if it is there
from llm_logs import ScriptedModel, calls, logs, says, thinks  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"
USAGE = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}}


@pytest.fixture(autouse=True)
def llm_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llm keeps its settings away from the user's."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs.db"


def weather(city: str) -> str:
    """The weather in a city."""
    return f"22 in {city}"


def contents(store: SessionStore, session_id: str) -> list[dict[str, Any]]:
    return [message.to_dict() for message in store.messages(session_id)]


def chat(path: Path, *prompts: str, **options: Any) -> str:
    """A conversation of plain texts; its id."""
    with logs(path) as database:
        conversation = ScriptedModel(*([says(f"answer to {prompt}")] for prompt in prompts), **options).conversation()
        for prompt in prompts:
            response = conversation.prompt(prompt)
            response.text()
            response.log_to_db(database)
        return conversation.id


# -- threads


def test_a_chat_comes_in_with_its_usage(store: SessionStore, path: Path) -> None:
    thread = chat(path, "one", "two", resolved="scripted-2026", details=USAGE)
    receipt = store.import_file(path)
    assert (receipt.format, receipt.sessions, receipt.messages) == ("llm", 1, 4)
    assert contents(store, thread) == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer to one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "answer to two"},
    ]
    with closing(sqlite3.connect(path)) as connection:
        turns = connection.execute("SELECT id, datetime_utc, duration_ms FROM turns ORDER BY id").fetchall()
    messages = store.messages(thread)
    for (turn, when, duration), asked, answered in zip(turns, messages[::2], messages[1::2], strict=True):
        assert asked.created_at == datetime.fromisoformat(when)
        assert (answered.created_at - asked.created_at).total_seconds() == duration / 1000
        assert answered.figures() == {
            "model": "scripted-2026",
            "input_tokens": 11,
            "output_tokens": 7,
            "cache_read_tokens": 3,
            "reasoning_tokens": 2,
            "response_time_ms": float(duration),
        }
        assert answered.metadata == {"llm": {"turn": {"id": turn, "model": "scripted", "token_details": USAGE}}}
        assert not asked.has_figures
    info = store.get(thread)
    assert info is not None
    assert (info.title, info.created_at) == ("one", messages[0].created_at)


def test_tools_reasoning_system_and_options_come_in(store: SessionStore, path: Path) -> None:
    with logs(path) as database:
        signed = thinks("hmm", provider_metadata={"signature": "s"})
        answers = [[signed, says("Rome.")], calls("weather", {"city": "Hanoi é"}, "call_1"), [says("It is 22.")]]
        conversation = ScriptedModel(*answers).conversation(tools=[weather])
        first = conversation.prompt("Capital of Italy?", system="Be short", temperature=0.5)
        first.text()
        first.log_to_db(database)
        chain = conversation.chain("Weather?")
        chain.text()
        chain.log_to_db(database)
        assert LogStore(database).verify() == []
    store.import_file(path)
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Hanoi é"}'}}
    assert contents(store, conversation.id) == [
        {"role": "system", "content": "Be short"},
        {"role": "user", "content": "Capital of Italy?"},
        {"role": "assistant", "content": "Rome.", "reasoning_content": "hmm"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "22 in Hanoi é"},
        {"role": "assistant", "content": "It is 22."},
    ]
    answer = store.messages(conversation.id)[2]
    assert answer.metadata is not None
    assert answer.metadata["llm"]["turn"]["options"] == {"temperature": 0.5}
    assert answer.metadata["llm"]["parts"] == [{"part": 0, "provider_metadata": {"signature": "s"}}]
    assert store.check(conversation.id).ok


def test_a_call_and_result_of_the_provider_s_own_stand_apart(store: SessionStore, path: Path) -> None:
    with logs(path) as database:
        found = llm.parts.StreamEvent(
            type="tool_result", chunk="found", tool_call_id="ws", tool_name="search", server_executed=True
        )
        answer = [says("Let me look."), *calls("search", {"q": "x"}, "ws", server_executed=True), found, says("Here.")]
        conversation = ScriptedModel(answer).conversation()
        response = conversation.prompt("Look")
        response.text()
        response.log_to_db(database)
    store.import_file(path)
    roles = [(message["role"], message["content"]) for message in contents(store, conversation.id)]
    assert roles == [("user", "Look"), ("assistant", "Let me look."), ("tool", "found"), ("assistant", "Here.")]
    assert store.check(conversation.id).ok
    assert [message.has_figures for message in store.messages(conversation.id)] == [False, False, False, True]


def test_calls_without_an_id_are_paired_by_name_and_order(store: SessionStore, path: Path) -> None:
    with logs(path) as database:
        log = LogStore(database)
        parts = llm.parts
        thread = log.create_thread(name="t")
        made = [parts.ToolCallPart(name=name, arguments={"n": n}) for n, name in enumerate(["f", "g", "f"])]
        answered = [parts.ToolResultPart(name=name, output=text) for name, text in [("g", "of 1"), ("f", "of 0"), ("f", "of 2")]]
        log.append(thread, [parts.Message("assistant", made), parts.Message("tool", answered)])
    store.import_file(path)
    call, *results = contents(store, thread)
    number_of = {each["id"]: json.loads(each["function"]["arguments"])["n"] for each in call["tool_calls"]}
    assert [(number_of[each["tool_call_id"]], each["content"]) for each in results] == [(1, "of 1"), (0, "of 0"), (2, "of 2")]
    assert store.check(thread).ok


def test_attachments_and_fragments_come_in_resolved(store: SessionStore, path: Path, tmp_path: Path) -> None:
    (tmp_path / "held.pdf").write_bytes(b"%PDF-1.4")
    attachments = [
        llm.Attachment(type="image/png", content=PNG),
        llm.Attachment(type="audio/wav", content=b"RIFF"),
        llm.Attachment(type="application/pdf", content=b"%PDF"),
        llm.Attachment(type="image/png", url="https://example.org/x.png"),
        llm.Attachment(type="application/pdf", path=str(tmp_path / "held.pdf")),
    ]
    with logs(path) as database:
        conversation = ScriptedModel([says("seen")]).conversation()
        response = conversation.prompt("See", fragments=["a novel", "another"], attachments=attachments)
        response.text()
        response.log_to_db(database)
        assert database.execute("SELECT count(*) FROM parts WHERE payload LIKE '%text_ref%'").fetchone() == (1,)
    store.import_file(path)
    text, image, audio, pdf, linked, held = contents(store, conversation.id)[0]["content"]
    assert text == {"type": "text", "text": "a novel\nanother\nSee"}
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert audio == {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert pdf["file"]["file_data"] == "data:application/pdf;base64,JVBERg=="
    assert linked == {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    path_of = {"filename": "held.pdf", "path": str(tmp_path / "held.pdf"), "media_type": "application/pdf"}
    assert held == {"type": "file", "file": path_of}, "a path stays a path: no file that a database names is read"


def test_a_fork_comes_in_with_what_it_shares_and_its_own(store: SessionStore, path: Path) -> None:
    thread = chat(path, "one", "two")
    with logs(path) as database:
        log = LogStore(database)
        (tip,) = database.execute("SELECT tip_message_hash FROM turns ORDER BY id LIMIT 1").fetchone()
        fork = log.fork(tip, name="the other way", forked_from=thread)
        log.append(fork, [llm.parts.user("three")])
    assert store.import_file(path).sessions == 2
    shared = store.messages(thread)[:2]
    assert contents(store, fork) == [*(message.to_dict() for message in shared), {"role": "user", "content": "three"}]
    assert [message.figures() for message in store.messages(fork)][:2] == [message.figures() for message in shared]
    info = store.get(fork)
    assert info is not None
    assert (info.title, info.metadata) == ("the other way", {"llm": {"forked_from": thread}})
    assert info.forked_at == 2
    assert store.parent(fork) == store.get(thread)
    assert [each.session_id for each in store.branches(thread)] == [fork]


@pytest.mark.parametrize("on_conflict", ["skip", "replace", "merge", "new-id"])
def test_a_second_import_links_forks_again(store: SessionStore, path: Path, on_conflict: Any) -> None:
    thread = chat(path, "one")
    with logs(path) as database:
        log = LogStore(database)
        fork = log.fork(database.execute("SELECT tip_message_hash FROM turns").fetchone()[0], forked_from=thread)
        # Whichever of them comes first.
        database.execute("UPDATE threads SET id = 'a fork' WHERE id = ?", [fork])
        database.execute("UPDATE threads SET id = 'a thread', forked_from = NULL WHERE id = ?", [thread])
        database.execute("UPDATE threads SET forked_from = 'a thread' WHERE id = 'a fork'")
        database.conn.commit()
    store.import_file(path)
    store.delete("a thread")
    assert store.parent("a fork") is None
    receipt = store.import_file(path, on_conflict=on_conflict)
    parent = store.parent(dict(receipt.renamed).get("a fork", "a fork"))
    assert parent is not None
    assert parent.session_id == "a thread"


def test_every_message_that_llm_itself_loads_comes_in(store: SessionStore, path: Path) -> None:
    """The chat text of every thread is that which llm's own reader gives."""
    threads = [chat(path, *prompts) for prompts in (["a"], ["b", "c é 語"], ["", "d"])]
    with logs(path) as database:
        expected = {
            thread: [
                (message.role, "".join(part.text for part in message.parts))
                for message in LogStore(database).thread_messages(thread)
            ]
            for thread in threads
        }
    store.import_file(path)
    found = {thread: [(message["role"], message["content"]) for message in contents(store, thread)] for thread in threads}
    assert found == expected


# -- the older tables


def insert(path: Path, table: str, **values: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        names = ", ".join(f'"{name}"' for name in values)
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", list(values.values()))


def legacy_conversation(path: Path) -> str:
    """Rows as llm 0.27 writes them; the ids are those of a real file."""
    with logs(path):
        pass
    conversation = "01m81z6cv95ffevc5h1vmgm3sq"
    insert(path, "conversations", id=conversation, name="novel Hi", model="scripted")
    common = {"model": "scripted", "conversation_id": conversation, "options_json": "{}", "duration_ms": 250}
    ids = ["01m81z6cvb93z2f0k7hgj007vn", "01m81z6d0v4cg91hp7p9qna4xj", "01m81z6d0v4cg91hp7p9qna4xk", "01m81z6d5f6pw7mdtvkx0qtqv7"]
    rows: list[dict[str, Any]] = [
        {"prompt": "Hi", "system": "Be short", "response": "answer 1", "input_tokens": 5, "output_tokens": 6,
         "token_details": json.dumps(USAGE)},
        {"prompt": "Weather?", "system": None, "response": "", "reasoning": "hmm"},
        {"prompt": "", "system": None, "response": "answer 3", "resolved_model": "scripted-2025"},
        {"prompt": "See", "system": "Be long", "response": "answer 4"},
    ]  # fmt: skip
    for number, (one, row) in enumerate(zip(ids, rows, strict=True)):
        insert(path, "responses", id=one, datetime_utc=f"2025-01-0{number + 1}T00:00:00+00:00", **common, **row)
    insert(path, "fragments", id=1, hash="h1", content="novel")
    insert(path, "fragments", id=2, hash="h2", content="rules")
    insert(path, "prompt_fragments", response_id=ids[0], fragment_id=1, order=0)
    insert(path, "system_fragments", response_id=ids[0], fragment_id=2, order=0)
    insert(path, "tool_calls", response_id=ids[1], name="weather", arguments='{"city": "Hanoi"}', tool_call_id="call_1")
    insert(path, "tool_results", response_id=ids[2], name="weather", output="22", tool_call_id="call_1", exception="Odd: x")
    insert(path, "attachments", id="a" * 64, type="image/png", content=PNG)
    insert(path, "prompt_attachments", response_id=ids[3], attachment_id="a" * 64, order=0)
    return conversation


LEGACY = [
    {"role": "system", "content": "rules\n\nBe short"},
    {"role": "user", "content": "novel\nHi"},
    {"role": "assistant", "content": "answer 1"},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hmm",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Hanoi"}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "22"},
    {"role": "assistant", "content": "answer 3"},
    {"role": "system", "content": "Be long"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "See"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
    },
    {"role": "assistant", "content": "answer 4"},
]


def test_the_older_tables_come_in(store: SessionStore, path: Path) -> None:
    conversation = legacy_conversation(path)
    assert store.import_file(path).messages == len(LEGACY)
    assert contents(store, conversation) == LEGACY
    messages = store.messages(conversation)
    assert messages[2].figures() == {
        "model": "scripted", "input_tokens": 5, "output_tokens": 6, "cache_read_tokens": 3, "reasoning_tokens": 2,
        "response_time_ms": 250.0,
    }  # fmt: skip
    assert messages[2].created_at == datetime(2025, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    assert messages[5].metadata == {"llm": {"result": {"exception": "Odd: x"}}}
    assert messages[6].model == "scripted-2025"
    info = store.get(conversation)
    assert info is not None
    assert (info.title, info.metadata) == ("novel Hi", {"llm": {"model": "scripted"}})
    assert store.check(conversation).ok


def test_a_conversation_that_went_on_after_the_upgrade_comes_in_once(store: SessionStore, path: Path) -> None:
    """llm copies the older messages into the thread, without their attachments and with JSON of its own spacing."""
    conversation = legacy_conversation(path)
    with logs(path) as database:
        log, parts = LogStore(database), llm.parts
        log.create_thread(id=conversation, name="go on")
        call = parts.ToolCallPart(name="weather", arguments={"city": "Hanoi"}, tool_call_id="call_1")
        result = parts.ToolResultPart(name="weather", output="22", tool_call_id="call_1")
        older = [
            parts.system("rules\n\nBe short"), parts.user("novel\nHi"), parts.assistant("answer 1"), parts.user("Weather?"),
            parts.assistant(call), parts.tool_message(result), parts.assistant("answer 3"), parts.system("Be long"),
            parts.user("See"), parts.assistant("answer 4"),
        ]  # fmt: skip
        log.append(conversation, [*older, parts.user("go on"), parts.assistant("new answer")])
    assert store.import_file(path).sessions == 1
    newer = [{"role": "user", "content": "go on"}, {"role": "assistant", "content": "new answer"}]
    assert contents(store, conversation) == [*LEGACY, *newer]
    info = store.get(conversation)
    assert info is not None
    assert info.title == "novel Hi"


def test_turns_of_both_generations_are_put_together_by_their_ids(store: SessionStore, path: Path) -> None:
    thread = chat(path, "new")
    insert(path, "conversations", id=thread, name="old", model="scripted")
    for one, text in (("00000000000000000000000001", "old"), ("zzzzzzzzzzzzzzzzzzzzzzzzzz", "newest")):
        insert(path, "responses", id=one, model="m", prompt=text, response=f"to {text}", conversation_id=thread)
    with closing(sqlite3.connect(path)) as connection:
        (turn,) = connection.execute("SELECT id FROM turns").fetchone()
    insert(path, "responses", id=turn, model="m", prompt="the turn once more", response="x", conversation_id=thread)
    store.import_file(path)
    texts = [message["content"] for message in contents(store, thread)]
    assert texts == ["old", "to old", "new", "answer to new", "newest", "to newest"]


def test_a_response_without_a_conversation_is_one_of_its_own(store: SessionStore, path: Path) -> None:
    with logs(path):
        pass
    one = "01h3fq9jd8wvs1p7ar5m5wn8yz"
    insert(path, "responses", id=one, model="m", prompt="a", response="b")
    store.import_file(path)
    assert [message.text for message in store.messages(one)] == ["a", "b"]
    assert store.messages(one)[0].created_at.year == 2023, "the id tells the time"


def test_the_first_table_of_all_comes_in(store: SessionStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE logs (id INTEGER PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, response TEXT, chat_id INTEGER,"
            " duration_ms INTEGER, datetime_utc TEXT)"
        )
    for one, chat_id in ((1, None), (2, 1), (3, None)):
        insert(
            path,
            "logs",
            id=one,
            model="gpt",
            prompt=f"p{one}",
            response=f"r{one}",
            chat_id=chat_id,
            datetime_utc="2023-04-05 06:07:08.9",
        )
    assert store.import_file(path).sessions == 2
    assert [message.text for message in store.messages("log-1")] == ["p1", "r1", "p2", "r2"]
    assert [message.text for message in store.messages("log-3")] == ["p3", "r3"]
    assert store.messages("log-3")[0].created_at == datetime(2023, 4, 5, 6, 7, 8, 900_000, tzinfo=UTC)


# -- the file


def test_the_file_stays_as_it_is_byte_by_byte(store: SessionStore, path: Path) -> None:
    chat(path, "one")
    before = path.read_bytes()
    path.chmod(0o400)
    store.import_file(path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir() if each.name.startswith("logs.db")] == ["logs.db"]


def test_a_program_that_has_the_file_open_keeps_its_lock(store: SessionStore, path: Path) -> None:
    """Opening the file by anything but SQLite would drop the locks that this process holds on it."""
    chat(path, "one")
    with closing(sqlite3.connect(path, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        store.import_file(path)
        script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert "database is locked" in done.stderr


def test_it_is_told_by_its_name_or_by_its_format(store: SessionStore, path: Path) -> None:
    chat(path, "one")
    other = path.rename(path.with_name("logs.backup"))
    with pytest.raises(InvalidInputError):
        store.import_file(other)
    assert store.import_file(other, format="llm").sessions == 1


def test_a_second_import_skips_or_replaces_what_is_there(store: SessionStore, path: Path) -> None:
    thread = chat(path, "one")
    store.import_file(path)
    second = chat(path, "two")
    with pytest.raises(ConflictError, match=f"conversation {thread} of logs.db: there is a session"):
        store.import_file(path)
    receipt = store.import_file(path, on_conflict="skip")
    assert (receipt.sessions, receipt.skipped) == (1, 1)
    assert store.import_file(path, on_conflict="replace").replaced == 2
    assert {info.session_id for info in store.list()} == {thread, second}


DAMAGE = {
    "a message is missing": ("DELETE FROM messages WHERE parent_hash IS NULL", "is missing, or follows itself"),
    "a message follows itself": ("UPDATE messages SET parent_hash = hash", "is missing, or follows itself"),
    "a fragment is missing": ("DELETE FROM fragments", "1 is missing in the table fragments"),
    "an attachment is missing": ("DELETE FROM attachments", "is missing in the table attachments"),
    "a payload is no JSON": ("UPDATE parts SET payload = '{'", "a part is not JSON"),
    "a payload is no object": ("UPDATE parts SET payload = '[1]'", "a part is no JSON object"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_of_a_damaged_conversation_is_stored(store: SessionStore, path: Path, damage: str) -> None:
    with logs(path) as database:
        conversation = ScriptedModel([says("seen")]).conversation()
        attachment = llm.Attachment(type="image/png", content=PNG)
        response = conversation.prompt("See", fragments=["a novel"], attachments=[attachment])
        response.text()
        response.log_to_db(database)
    statement, reason = DAMAGE[damage]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(InvalidInputError, match=f"conversation {conversation.id} of logs.db: .*{reason}") as refused:
        store.import_file(path)
    assert refused.value.field == "source"
    assert store.count() == 0


def bad_sources(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "text.db").write_text("not a database, though it is long enough to be taken for one" * 100)
    yield folder / "text.db", "SQLite cannot read it"
    with closing(sqlite3.connect(folder / "foreign.db")) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    yield folder / "foreign.db", "none that llm wrote"


def test_other_files_are_refused(store: SessionStore, tmp_path: Path, store_path: Path) -> None:
    for source, reason in bad_sources(tmp_path):
        with pytest.raises(InvalidInputError, match=reason):
            store.import_file(source)
    with pytest.raises(InvalidInputError, match="belongs to the store itself"):
        store.import_file(store_path)
    with pytest.raises(InvalidInputError, match="must be a path"):
        store.import_file(sys.stdin.buffer, format="llm")
    with pytest.raises(FileNotFoundError):
        store.import_file(tmp_path / "nowhere.db")
    assert not (tmp_path / "nowhere.db").exists()


def test_old_conversations_live_on_in_a_store_with_lives(path: Path, tmp_path: Path) -> None:
    """The idle time begins with the import; a longest life is counted from it."""
    legacy = legacy_conversation(path)
    for options in ({"ttl": 3600}, {"max_age": 3600}):
        with sessionstore.open(in_memory=True, **options) as store:  # type: ignore[arg-type]
            store.import_file(path)
            info = store.get(legacy)
            assert info is not None
            assert info.expires_at is not None
            assert store.append(legacy, "user", "still here").seq == len(LEGACY) + 1


def test_progress_counts_conversations(store: SessionStore, path: Path) -> None:
    for prompt in "abc":
        chat(path, prompt)
    seen: list[tuple[int, int | None]] = []
    store.import_file(path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_thread_that_grew_gets_what_it_lacks(store: SessionStore, path: Path) -> None:
    thread = chat(path, "one")
    store.import_file(path)
    with logs(path) as database:
        LogStore(database).append(thread, [llm.parts.user("two"), llm.parts.assistant("answer to two")])
    assert store.import_file(path, on_conflict="merge").messages == 2
    assert [message.text for message in store.messages(thread)] == ["one", "answer to one", "two", "answer to two"]
    assert store.import_file(path, on_conflict="merge").messages == 0
