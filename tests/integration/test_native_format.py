"""The lossless format with all that a store can hold: forks, blobs, replaced messages, state, figures and agents."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import ConflictError, InvalidInputError, SessionStore
from sessionstore.formats import native

SEED = int(os.environ.get("SESSIONSTORE_SEED", "20261122"))
EXAMPLES = int(os.environ.get("SESSIONSTORE_FORMAT_EXAMPLES", "15"))
LARGE_MESSAGES = int(os.environ.get("SESSIONSTORE_FORMAT_MESSAGES", "30000"))
BIG = "large text, " * 8_000
IMAGE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 400).decode()


def view(store: SessionStore) -> dict[str, Any]:
    """All that the public calls tell of a store."""
    return {namespace: of_namespace(store.in_namespace(namespace)) for namespace in store.namespaces()}


def of_namespace(store: SessionStore) -> dict[str, Any]:
    infos = [info for archived in (False, True) for info in store.list(limit=1000, archived=archived)]
    return {info.session_id: (info, *of_session(store, info.session_id)) for info in infos}


def of_session(store: SessionStore, session_id: str) -> tuple[Any, ...]:
    parent = store.parent(session_id)
    return (
        [native.message_object(message) for message in store.messages(session_id)],
        [(each.superseded_at, native.message_object(each.message)) for each in store.superseded(session_id)],
        store.state(session_id),
        None if parent is None else parent.session_id,
    )


def exported(store: SessionStore, **options: Any) -> bytes:
    stream = io.BytesIO()
    store.export_file(stream, **options)
    return stream.getvalue()


def lines_of(data: bytes, kind: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, data.splitlines()) if line.get("type") == kind]


def rows_in(store: SessionStore, table: str) -> int:
    return int(store.query(f"SELECT count(*) FROM {table}").rows[0][0])


@pytest.fixture
def other(tmp_path: Path) -> Any:
    with sessionstore.open(tmp_path / "other.db") as opened:
        yield opened


def family(store: SessionStore) -> None:
    """A session with forks of forks, replaced messages, large texts and state."""
    chat = store.session("root", user_id="u", agent_id="a", tags=["x"])
    chat.append_many([{"role": "user", "content": f"root {number}"} for number in range(8)])
    chat.append("user", BIG)
    chat.append({"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]})
    fork = chat.fork("fork", at=9)
    fork.append({"role": "assistant", "content": BIG}, model="m", output_tokens=3)
    fork.fork("deep", at=10).append("user", "deep")
    chat.replace_range(3, 5, [{"role": "user", "content": "summary " + BIG}])
    store.set_state("root", {"a": 1, "n": None})
    store.set_state("root", {"theme": "dark"}, scope="user")
    store.set_state("root", {"limit": [1, 2.5]}, scope="app")
    store.record("cost", 0.25, session_id="root", attributes={"k": "v"})
    store.record("cost", 0.25)
    store.register_agent("a", metadata={"k": 1})
    store.log_activity("a", "looked", {"at": "x"}, duration=1.5)


# -- nothing is lost


def test_a_family_comes_back_equal_and_shares_its_messages_again(store: SessionStore, other: SessionStore) -> None:
    family(store)
    data = exported(store, all_namespaces=True)
    receipt = other.import_file(io.BytesIO(data))
    assert (receipt.sessions, receipt.messages) == (3, sum(info.message_count for info in store.list()))
    assert view(other) == view(store)
    assert exported(other, all_namespaces=True) == data
    assert rows_in(other, "messages") == rows_in(store, "messages")
    assert rows_in(other, "blobs") == rows_in(store, "blobs")
    assert all(check.ok for check in other.doctor().checks)


def test_a_message_and_a_large_string_stand_in_the_file_once(store: SessionStore) -> None:
    family(store)
    data = exported(store)
    assert len(lines_of(data, "message")) == rows_in(store, "messages")
    blobs = lines_of(data, "blob")
    assert len({blob["hash"] for blob in blobs}) == len(blobs) == 3
    assert all(hashlib.sha256(blob["text"].encode()).hexdigest() == blob["hash"] for blob in blobs)


def test_forks_of_what_is_not_in_the_file_have_their_messages(store: SessionStore, other: SessionStore) -> None:
    family(store)
    before = {name: of_session(store, name)[:3] for name in ("fork", "deep")}
    data = exported(store, session_ids=["deep", "fork"])
    other.import_file(io.BytesIO(data))
    assert {name: of_session(other, name)[0] for name in ("fork", "deep")} == {name: each[0] for name, each in before.items()}
    assert [info.session_id for info in other.branches("fork")] == ["deep"]
    assert other.parent("fork") is None
    assert len(lines_of(data, "message")) == 11, "the second one shares with the first"


def test_forks_of_a_deleted_session_share_what_is_left_of_it(store: SessionStore, other: SessionStore) -> None:
    family(store)
    store.session("root").fork("late")
    store.delete("root")
    other.import_file(io.BytesIO(exported(store)))
    assert view(other) == view(store)
    assert rows_in(other, "messages") == rows_in(store, "messages")


def test_what_belongs_to_no_session_is_put_once_however_often_it_comes(store: SessionStore, other: SessionStore) -> None:
    family(store)
    data = exported(store)
    for _ in range(3):
        other.import_file(io.BytesIO(data), on_conflict="skip")
    columns = "name, value, session_id, attributes, occurred_at"
    wanted = store.query(f"SELECT {columns} FROM metric_events ORDER BY id").rows
    assert other.query(f"SELECT {columns} FROM metric_events ORDER BY occurred_at").rows == wanted
    assert other.activity(agent_id="a") == store.activity(agent_id="a")
    assert other.agent("a") == store.agent("a")


def test_a_part_of_a_store_has_nothing_that_belongs_to_no_session(store: SessionStore) -> None:
    family(store)
    data = exported(store, tag="x")
    assert lines_of(data, "session")
    assert not any(lines_of(data, kind) for kind in ("metric", "agent", "activity"))
    assert all("scope" not in line for line in lines_of(data, "state"))


actions = st.lists(
    st.tuples(
        st.sampled_from(["append", "large", "fork", "replace", "truncate", "pop", "delete", "state", "archive", "again"]),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    min_size=5,
    max_size=40,
)


def act(store: SessionStore, names: list[str], action: str, first: int, second: int) -> None:
    """One change of one of the sessions."""
    name = names[first % len(names)]
    chat = store.session(name, user_id=f"u{first % 3}")
    info = chat.get()
    assert info is not None
    if action in ("append", "again"):
        chat.append_many([{"role": "user", "content": f"{name} {second} {number}"} for number in range(second % 5 + 1)])
    elif action == "large":
        chat.append({"role": "user", "content": [{"type": "text", "text": BIG + str(second % 3)}, {"type": "text", "text": "s"}]})
    elif action == "fork":
        names.append(chat.fork(f"{name[:20]}-{len(names)}", at=second % (info.last_seq + 1)).session_id)
    elif action == "replace":
        low = second % (info.last_seq + 1)
        held = sum(low <= message.seq <= low + 4 for message in chat.messages())
        if low and held:
            chat.replace_range(low, low + 4, [{"role": "user", "content": f"instead {second}"}])
    elif action == "truncate":
        chat.truncate(after=second)
    elif action == "pop":
        chat.pop()
    elif action == "delete":
        store.delete(name)
    elif action == "state":
        store.set_state(name, {f"k{second % 4}": second}, scope="user" if second % 2 else "session")
    else:
        chat.archive()


@seed(SEED)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(done=actions)
def test_random_families_come_back_equal(tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int, int]]) -> None:
    print(f"SESSIONSTORE_SEED={SEED}")
    folder = tmp_path_factory.mktemp("family")
    with sessionstore.open(folder / "a.db", durability="normal") as store:
        names = ["root"]
        for action in done:
            act(store, names, *action)
        expected, data = view(store), exported(store)
        rows = rows_in(store, "messages")
    for name, packed in (("b", data), ("c", gzip.compress(data))):
        with sessionstore.open(folder / f"{name}.db", durability="normal") as other:
            other.import_file(io.BytesIO(packed))
            assert view(other) == expected
            assert rows_in(other, "messages") <= rows
            assert all(check.ok for check in other.doctor().checks)
            other.import_file(io.BytesIO(data), on_conflict="merge")
            assert view(other) == expected, "merging what is there changes nothing"
            for session_id in list(expected.get("", ()))[::2]:
                other.delete(session_id)
            other.import_file(io.BytesIO(packed), on_conflict="skip")
            assert {key: value[1:4] for key, value in of_namespace(other).items()} == {
                key: value[1:4] for key, value in expected.get("", {}).items()
            }, "what was deleted comes back whole beside what was left"


def test_real_conversations_forked_at_every_tenth_message_come_back_equal(
    store: SessionStore, other: SessionStore, airline_conversations: list[dict[str, Any]]
) -> None:
    for number, conversation in enumerate(airline_conversations):
        chat = store.session(f"c{number}", metadata={"reward": conversation["reward"]})
        chat.append_many(conversation["messages"])
        for at in range(10, len(conversation["messages"]), 10):
            chat.fork(f"c{number}-at-{at}", at=at).append("user", f"another way at {at}")
    expected = {
        info.session_id: [native.message_object(message) for message in store.messages(info.session_id)]
        for info in store.list(limit=1000)
    }
    data = exported(store)
    store.delete(list(expected))
    assert store.count() == 0
    assert store.import_file(io.BytesIO(data)).sessions == len(expected)
    for name, messages in expected.items():
        assert [native.message_object(message) for message in store.messages(name)] == messages
    assert all(check.ok for check in store.doctor().checks)
    other.import_file(io.BytesIO(data))
    assert exported(other) == data


# -- merging


def test_merging_appends_what_is_new_and_takes_the_attributes_that_were_changed_last(
    store: SessionStore, other: SessionStore
) -> None:
    chat = store.session("s", title="old")
    chat.append("user", "one")
    other.import_file(io.BytesIO(exported(store)))
    chat.append("assistant", "two")
    store.update("s", title="new", tags=["t"])
    store.set_state("s", {"k": 2})
    receipt = other.import_file(io.BytesIO(exported(store)), on_conflict="merge")
    assert (receipt.sessions, receipt.merged, receipt.messages) == (0, 1, 1)
    found = other.get("s")
    assert found is not None
    assert ([message.text for message in other.messages("s")], found.title, found.tags) == (["one", "two"], "new", ("t",))
    assert other.state("s") == {"k": 2}


def test_merging_keeps_what_only_the_store_has(store: SessionStore, other: SessionStore) -> None:
    store.session("s").append("user", "one")
    data = exported(store)
    other.import_file(io.BytesIO(data))
    other.session("s").append("user", "here only")
    before = view(other)
    assert other.import_file(io.BytesIO(data), on_conflict="merge").messages == 0
    assert view(other) == before


@pytest.mark.parametrize("merged", ["p", "f"])
def test_a_message_that_was_taken_back_is_merged_into_its_session_alone(
    store: SessionStore, other: SessionStore, merged: str
) -> None:
    """Forks were made where it had stood: their ranges go on over its seq."""
    store.session("p").append_many([{"role": "user", "content": str(number)} for number in range(1, 7)])
    other.import_file(io.BytesIO(exported(store)))
    other.fork("p", "f", at=6)
    store.pop("p")
    store.fork("p", "f", at=6)
    store.fork("f", "g", at=6)
    receipt = store.import_file(io.BytesIO(exported(other, session_ids=merged)), on_conflict="merge")
    assert (receipt.merged, receipt.messages) == (1, 1)
    texts = {name: [message.text for message in store.messages(name)] for name in "pfg"}
    five = ["1", "2", "3", "4", "5"]
    assert texts == {name: [*five, "6"] if name == merged else five for name in "pfg"}
    assert [(hit.session_id, hit.seq) for hit in store.search("6")] == [(merged, 6)]
    assert all(check.ok for check in store.doctor().checks)


def test_what_went_apart_is_not_merged(store: SessionStore, other: SessionStore) -> None:
    store.session("s").append("user", "one")
    other.import_file(io.BytesIO(exported(store)))
    store.session("s").append("user", "two here")
    other.session("s").append("user", "two there")
    before = view(other)
    with pytest.raises(ConflictError, match="cannot be merged"):
        other.import_file(io.BytesIO(exported(store)), on_conflict="merge")
    assert view(other) == before


def test_a_fork_is_merged_by_the_messages_that_it_shares(store: SessionStore, other: SessionStore) -> None:
    family(store)
    other.import_file(io.BytesIO(exported(store)))
    store.session("deep").append("user", "deeper")
    receipt = other.import_file(io.BytesIO(exported(store)), on_conflict="merge")
    assert (receipt.merged, receipt.messages) == (3, 1)
    assert of_session(other, "deep")[0] == of_session(store, "deep")[0]


def test_a_fork_is_whole_although_another_session_has_the_name_of_its_parent(store: SessionStore, other: SessionStore) -> None:
    family(store)
    other.session("root").append("user", "another one")
    other.import_file(io.BytesIO(exported(store)), on_conflict="skip")
    for name in ("fork", "deep"):
        assert of_session(other, name)[0] == of_session(store, name)[0]
    assert [message.text for message in other.messages("root")] == ["another one"]


# -- what is damaged


def sealed(lines: list[dict[str, Any]]) -> bytes:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    kinds = [line.get("type") for line in lines]
    sums = (kinds.count("session"), kinds.count("message"), hashlib.sha256(body).hexdigest(), len(lines) - 1)
    return body + native.end_line(native.Trailer(*sums)).encode()


def test_a_file_that_is_cut_short_or_damaged_anywhere_stores_nothing(store: SessionStore, other: SessionStore) -> None:
    family(store)
    data = exported(store)
    starts = [place for place in range(1, len(data)) if data[place - 1 : place] == b"\n"]
    damaged = [data[:place] for place in [*starts, *range(1, len(data) - 1, len(data) // 40)]]
    damaged += [data[:place] + b"?" + data[place + 1 :] for place in range(0, len(data) - 200, len(data) // 40)]
    for each in damaged:
        with pytest.raises(InvalidInputError):
            other.import_file(io.BytesIO(each), format="sessionstore")
    assert other.count() == 0
    assert rows_in(other, "metric_events") == rows_in(other, "blobs") == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: {**line, "shares": [[1, 2, 99]]}, "names a session that does not stand before it"),
        (lambda line: {**line, "shares": [[1, 500, line["shares"][0][2]]]}, "message_count|is one that the session shares"),
        (lambda line: {**line, "shares": [[5, 2, 1]]}, "shares"),
        (lambda line: {**line, "message_count": 99}, "message_count"),
    ],
)
def test_a_fork_that_tells_what_is_not_so_is_refused(store: SessionStore, other: SessionStore, change: Any, reason: str) -> None:
    chat = store.session("root")
    chat.append_many([{"role": "user", "content": str(number)} for number in range(6)])
    chat.fork("fork", at=4).append("user", "own")
    *lines, _ = map(json.loads, exported(store).splitlines())
    lines = [change(line) if line.get("session_id") == "fork" else line for line in lines]
    with pytest.raises(InvalidInputError, match=reason):
        other.import_file(io.BytesIO(sealed(lines)))
    assert other.get("fork") is None


def test_a_large_string_that_is_another_one_is_refused(store: SessionStore, other: SessionStore) -> None:
    store.session("s").append("user", BIG)
    *lines, _ = map(json.loads, exported(store).splitlines())
    for change in ({"text": "other"}, {"hash": "0" * 64}):
        changed = [{**line, **change} if line.get("type") == "blob" else line for line in lines]
        with pytest.raises(InvalidInputError, match="hash"):
            other.import_file(io.BytesIO(sealed(changed)))
    assert other.count() == 0


def test_a_file_of_version_1_is_read(other: SessionStore, store: SessionStore) -> None:
    store.session("s").append("user", "hello")
    header, session, message, _ = map(json.loads, exported(store).splitlines())
    del session["forked_at"]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in ({**header, "version": 1, "schema": "0002"}, session, message))
    end = {"type": "end", "sessions": 1, "messages": 1, "sha256": hashlib.sha256(body).hexdigest()}
    assert other.import_file(io.BytesIO(body + json.dumps(end).encode())).messages == 1
    assert view(other) == view(store)


# -- memory

MEASURE = """
import resource, sys
import sessionstore


action, path, file, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
with sessionstore.open(path, durability="normal") as store:
    if action == "fill":
        for number in range(0, count, 1000):
            chat = store.session("one" if number < count // 2 else f"s{number}")
            chat.append_many([{"role": "user", "content": f"message {each} " + "x" * 200} for each in range(number, number + 1000)])
    elif action == "export":
        store.export_file(file)
    else:
        store.import_file(file)
try:
    # What getrusage tells of a child begins with what its parent had.
    peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(peak // 1024)
"""


@pytest.mark.timeout(3600)
def test_exporting_and_importing_take_a_fixed_amount_of_memory(tmp_path: Path) -> None:
    """SESSIONSTORE_FORMAT_MESSAGES=1000000 is the promise of the issue; half of the messages are those of one session."""

    def run(action: str, path: Path) -> int:
        given = [sys.executable, "-c", MEASURE, action, str(path), str(tmp_path / "all.jsonl"), str(LARGE_MESSAGES)]
        return int(subprocess.run(given, capture_output=True, text=True, check=True).stdout)

    run("fill", tmp_path / "a.db")
    used = {"export": run("export", tmp_path / "a.db"), "import": run("import", tmp_path / "b.db")}
    print(used)
    assert max(used.values()) <= 150
