"""Erase: what is chosen goes with all that names it, forks are asked about, and the receipt says what is left and why."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock
from collecting import running

import sessionstore
from sessionstore import ConflictError, InvalidInputError, SessionStore
from sessionstore.cli import main

ROOT = Path(__file__).parents[2]
REMOTE = "http://127.0.0.1:9"


def say(store: SessionStore, session: str, *texts: str, **attributes: Any) -> None:
    store.session(session, **attributes).append_many([{"role": "user", "content": text} for text in texts])


def texts(store: SessionStore, session: str) -> list[str | None]:
    return [message.text for message in store.messages(session)]


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


# -- what is chosen


def test_a_session_goes_by_its_id_with_its_earlier_lives(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    say(store, "s", "old", ttl=10)
    frozen.go(11)
    say(store, "s", "new")
    say(store, "other", "stays")
    receipt = store.erase("s")
    assert (receipt.session_ids, receipt.messages, receipt.complete, receipt.reasons) == (("s",), 2, True, ())
    assert rows(store_path, "SELECT session_id FROM sessions") == [("other",)]
    assert texts(store, "other") == ["stays"]
    assert store.doctor().ok


def test_an_id_without_a_session_is_missing_and_what_names_it_goes(store: SessionStore) -> None:
    store.record("speed", 1, session_id="gone")
    receipt = store.erase(["gone"])
    assert (receipt.sessions, receipt.missing, receipt.metrics, receipt.complete) == (0, ("gone",), 1, True)


def test_a_user_goes_with_the_user_s_state_and_expired_sessions(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    say(store, "old", "x", user_id="alice", ttl=10)
    frozen.go(11)
    say(store, "new", "x", user_id="alice")
    say(store, "bob", "x", user_id="bob")
    store.set_state("new", {"likes": "tea"}, scope="user")
    store.set_state("bob", {"likes": "coffee"}, scope="user")
    store.archive("new")
    store.log_activity("a", "spoke", details={"user_id": "alice", "said": "x"})
    receipt = store.erase(user_id="alice")
    assert (receipt.session_ids, receipt.activity, receipt.complete) == (("old", "new"), 1, True)
    assert rows(store_path, "SELECT owner FROM state_values") == [("bob",)]
    assert rows(store_path, "SELECT action, details FROM agent_activity") == [("spoke", None)]


def test_a_user_s_state_stays_when_only_some_sessions_are_chosen(store: SessionStore) -> None:
    say(store, "private", "x", user_id="alice", tags=["private"])
    say(store, "s", "x", user_id="alice")
    store.set_state("s", {"likes": "tea"}, scope="user")
    assert store.erase(user_id="alice", tag="private").session_ids == ("private",)
    assert store.state("s") == {"likes": "tea"}


def test_an_expired_life_goes_alone_with_what_was_recorded_in_its_time(store: SessionStore, frozen: FrozenClock) -> None:
    store.set_remote(REMOTE)
    say(store, "s", "old", ttl=10)
    store.record("old", 1, session_id="s")
    frozen.go(11)
    say(store, "s", "new")
    store.record("new", 2, session_id="s")
    receipt = store.erase(status="expired")
    assert (receipt.session_ids, receipt.messages, receipt.metrics, receipt.told_remote) == (("s",), 1, 1, False)
    assert (receipt.complete, receipt.reasons, receipt.untold) == (True, (), ("s",))
    assert texts(store, "s") == ["new"]
    assert store.query("SELECT name FROM metric_events").rows == (("new",),)
    told = [store.outbox.get(event.key) for event in store.outbox.list("pending", limit=100).items]
    assert {event.occurred_at for event in told if event is not None} == {frozen.now}


def test_without_a_remote_an_expired_life_goes_completely(store: SessionStore, frozen: FrozenClock) -> None:
    say(store, "s", "old", ttl=10)
    frozen.go(11)
    say(store, "s", "new")
    receipt = store.erase(status="expired")
    assert (receipt.session_ids, receipt.complete, receipt.reasons, receipt.untold) == (("s",), True, (), ())


@pytest.mark.parametrize("text", ["the same words", "the same words " * 10_000], ids=["row", "blob"])
def test_what_another_session_was_told_itself_stays_and_is_no_reason(store: SessionStore, text: str) -> None:
    say(store, "s", text)
    say(store, "t", text)
    receipt = store.erase("s")
    assert (receipt.complete, receipt.reasons, receipt.shared_with, receipt.blobs) == (True, (), (), 0)
    assert texts(store, "t") == [text]
    assert store.doctor().ok


def test_other_namespaces_stay(store: SessionStore) -> None:
    other = store.in_namespace("other")
    for each in (store, other):
        say(each, "s", "x", user_id="u")
        each.record("m", 1, session_id="s")
    store.erase(user_id="u")
    store.erase("s")
    assert texts(other, "s") == ["x"]
    assert other.query("SELECT namespace FROM metric_events").rows == (("other",),)


@pytest.mark.parametrize(
    ("ids", "options"),
    [(None, {}), ("s", {"tag": "x"}), (["s", ""], {}), ("s", {"forks": "maybe"}), ("s", {"tell": 1}), ("s", {"rebuild": None}),
     ("s", {"dry_run": "yes"}), (7, {})],
)  # fmt: skip
def test_refused_arguments_erase_nothing(store: SessionStore, ids: Any, options: dict[str, Any]) -> None:
    say(store, "s", "x")
    with pytest.raises(InvalidInputError):
        store.erase(ids, **options)
    assert texts(store, "s") == ["x"]


def test_an_unknown_filter_is_a_type_error(store: SessionStore) -> None:
    with pytest.raises(TypeError, match="no argument 'colour'"):
        store.erase(colour="red")  # type: ignore[call-arg]


# -- forks


def test_forks_are_named_and_nothing_is_erased(store: SessionStore) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f")
    store.fork("f", "g", at=1)
    before = store.query("SELECT * FROM sessions").rows
    with pytest.raises(ConflictError, match="'f', 'g'"):
        store.erase("s")
    assert store.query("SELECT * FROM sessions").rows == before


def test_a_dry_run_tells_what_would_go_and_which_forks_are_in_the_way(store: SessionStore, dump: Any) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f")
    store.fork("f", "g", at=1)
    before = dump()
    receipt = store.erase("s", dry_run=True)
    assert (receipt.session_ids, receipt.messages, receipt.forks_in_the_way, receipt.forks_kept) == (("s",), 2, ("f", "g"), ())
    assert (receipt.complete, len(receipt.reasons)) == (False, 1)
    assert dump() == before
    assert store.erase("s", forks="keep", dry_run=True).forks_in_the_way == ()


def test_forks_go_too_if_that_is_said(store: SessionStore, store_path: Path) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f").append("user", "three")
    store.fork("f", "g", copy=True)
    receipt = store.erase("s", forks="erase")
    assert (receipt.session_ids, receipt.complete, receipt.forks_kept) == (("s", "f", "g"), True, ())
    assert rows(store_path, "SELECT count(*) FROM messages") == [(0,)]
    assert rows(store_path, "SELECT count(*) FROM message_words_docsize") == [(0,)]


def test_forks_keep_what_they_share_and_the_receipt_says_so(store: SessionStore) -> None:
    say(store, "s", "one", "two", "three")
    store.fork("s", "f", at=2)
    receipt = store.erase("s", forks="keep")
    assert (receipt.forks_kept, receipt.complete) == (("f",), False)
    assert "'f'" in receipt.reasons[0]
    assert texts(store, "f") == ["one", "two"]
    assert store.erase("f").complete, "the last one that shared them takes them along"


@pytest.mark.parametrize("copy", [False, True])
def test_a_fork_that_is_erased_leaves_its_parent_whole_and_names_it(store: SessionStore, copy: bool) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f", copy=copy).append("user", "three")
    receipt = store.erase("f")
    assert (receipt.session_ids, receipt.shared_with, receipt.complete) == (("f",), ("s",), False)
    assert texts(store, "s") == ["one", "two"]


def test_a_sibling_that_shares_with_a_deleted_parent_is_named(store: SessionStore) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f")
    store.fork("s", "g")
    store.delete("s")
    assert store.erase("f").shared_with == ("g",)
    assert texts(store, "g") == ["one", "two"]
    assert store.erase("g").complete


def test_a_parent_that_replaced_the_shared_messages_holds_them_as_superseded(store: SessionStore) -> None:
    say(store, "s", "one")
    store.fork("s", "f")
    store.replace_range("s", 1, 1, [{"role": "user", "content": "other"}])
    store.clear("s")
    assert store.erase("f").shared_with == ("s",)
    store.clear_superseded("s")
    store.fork("s", "g")
    assert store.erase("g").complete


def test_a_sibling_that_replaced_a_shared_message_is_named(store: SessionStore) -> None:
    """Its parent is gone, so that nothing but the replaced message tells."""
    say(store, "s", "one", "two")
    store.fork("s", "f")
    store.fork("s", "g")
    store.replace_range("f", 1, 2, [{"role": "user", "content": "other"}])
    assert store.erase("s", forks="keep").forks_kept == ("f", "g")
    receipt = store.erase("g", dry_run=True)
    assert (receipt.shared_with, receipt.complete) == (("f",), False)
    store.clear_superseded("f")
    assert store.erase("g").complete


def test_a_distant_fork_that_has_what_was_replaced_is_named(store: SessionStore) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f")
    store.fork("f", "g")
    store.delete("f")
    store.replace_range("s", 1, 2, [{"role": "user", "content": "other"}])
    receipt = store.erase("s", forks="keep")
    assert (receipt.shared_with, receipt.complete) == (("g",), False)
    assert texts(store, "g") == ["one", "two"]
    assert store.erase("g").complete


def test_a_root_that_shows_what_a_distant_fork_replaced_is_named(store: SessionStore) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f")
    store.fork("f", "g")
    store.delete("f")
    store.replace_range("g", 1, 2, [{"role": "user", "content": "other"}])
    receipt = store.erase("g")
    assert (receipt.superseded, receipt.shared_with, receipt.complete) == (2, ("s",), False)
    assert texts(store, "s") == ["one", "two"]


def test_strangers_that_replaced_messages_are_not_named(store: SessionStore, frozen: FrozenClock) -> None:
    """Also those of the same time and place, as none was forked."""
    for name in ("s", "t"):
        say(store, name, "one", "two")
    frozen.go(1)
    say(store, "other", "one", "two")
    store.fork("other", "fork")
    for name in ("s", "t"):
        store.replace_range(name, 2, 2, [{"role": "assistant", "content": "new"}])
    assert store.erase("s").complete


def test_a_family_that_goes_together_is_complete(store: SessionStore) -> None:
    say(store, "s", "one", "two")
    store.fork("s", "f")
    assert store.erase(["f", "s"]).complete


# -- what names it elsewhere


def test_events_that_wait_are_emptied_and_the_remote_is_told_once(store: SessionStore, store_path: Path) -> None:
    store.set_remote(sessionstore.Remote(REMOTE, sync_messages=True))
    say(store, "s", "secret", metadata={"k": "secret"}, agent_id="a")
    say(store, "other", "x")
    store.log_activity("a", "spoke", details={"session_id": "s", "said": "secret"})
    waiting = store.outbox.stats().pending
    receipt = store.erase("s")
    assert (receipt.events, receipt.told_remote, receipt.activity) == (3, True, 1)
    assert store.outbox.stats().pending == waiting - 3 + 1
    (told,) = store.outbox.list(kind="erase").items
    assert told.stream == "session:s"
    left = rows(store_path, "SELECT stream, kind, state, body FROM outbox")
    assert [row[:3] for row in left if "secret" in row[3] or row[0] == "session:s"] == [("session:s", "erase", "pending")]
    assert store.erase("s", tell=False).told_remote is False


def test_an_event_under_a_former_name_goes_and_the_remote_forgets_that_name(store: SessionStore, store_path: Path) -> None:
    store.set_remote(sessionstore.Remote(REMOTE, sync_messages=True))
    say(store, "before", "secret")
    store.rename("before", "s")
    store.erase("s")
    assert {event.stream for event in store.outbox.list(kind="erase").items} == {"session:s", "session:before"}
    assert [row for row in rows(store_path, "SELECT body FROM outbox") if "secret" in row[0]] == []


def test_without_a_remote_nobody_is_told(store: SessionStore, store_path: Path) -> None:
    say(store, "s", "x")
    assert not store.erase("s").told_remote
    assert rows(store_path, "SELECT count(*) FROM outbox") == [(0,)]


def test_figures_of_others_stay(store: SessionStore) -> None:
    say(store, "s", "x")
    for session in ("s", "t", None):
        store.record("m", 1, session_id=session, attributes={"about": session})
    store.record("m", 1, attributes={"session_id": "s"})
    assert store.erase("s").metrics == 2
    assert store.query("SELECT session_id FROM metric_events ORDER BY id").rows == (("t",), (None,))


def test_what_agents_are_said_to_be_for_the_session_goes(store: SessionStore, store_path: Path) -> None:
    store.set_remote(REMOTE)
    say(store, "s", "x", user_id="alice")
    store.register_agent("a", metadata={"session_id": "s", "said": "secret"})
    store.set_status("b", "busy", metadata={"user_id": "alice", "said": "secret"})
    store.set_status("c", "busy", metadata={"kept": True})
    receipt = store.erase(user_id="alice")
    assert (receipt.activity, receipt.complete) == (4, True)
    assert rows(store_path, "SELECT agent_id, metadata FROM agents") == [("a", None), ("b", None), ("c", '{"kept": true}')]
    assert rows(store_path, "SELECT body FROM outbox WHERE body LIKE '%secret%'") == []


def test_events_of_a_user_s_sessions_that_were_deleted_go(store: SessionStore, store_path: Path) -> None:
    store.set_remote(sessionstore.Remote(REMOTE, sync_messages=True))
    for name in ("gone", "again", "passed on"):
        say(store, name, f"secret of {name}", user_id="alice")
    store.record("m", 1, session_id="gone")
    store.delete(["gone", "again"])
    store.update("passed on", user_id="bob")
    say(store, "again", "not hers", user_id="bob")
    receipt = store.erase(user_id="alice")
    assert (receipt.session_ids, receipt.missing, receipt.metrics, receipt.complete) == ((), (), 1, True)
    left = [body for (body,) in rows(store_path, "SELECT body FROM outbox WHERE body LIKE '%\"message\"%'")]
    assert ["secret of passed on" in left[0], "not hers" in left[1], len(left)] == [True, True, 2]
    assert [event.stream for event in store.outbox.list(kind="erase").items] == ["session:gone"]


def test_the_note_of_a_copied_session_goes_with_it(store: SessionStore, store_path: Path, tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "source.db") as source:
        say(source, "s", "x")
        say(source, "t", "x")
        source.copy_to(store)
    notes = "SELECT key FROM received_events ORDER BY key"
    assert rows(store_path, notes) == [("1",), ("2",)]
    store.erase("t")
    assert rows(store_path, notes) == [("1",)]


def test_a_blob_that_another_message_has_stays(store: SessionStore, store_path: Path) -> None:
    mine, ours = "a" * 100_000, "b" * 100_000
    say(store, "s", mine, ours)
    say(store, "t", ours)
    assert store.erase("s").blobs == 1
    assert texts(store, "t") == [ours]
    assert rows(store_path, "SELECT count(*) FROM blobs") == [(1,)]


# -- the receipt


def test_a_dry_run_tells_what_a_real_one_does_and_does_nothing(store: SessionStore, dump: Any) -> None:
    store.set_remote(REMOTE)
    say(store, "s", "x" * 100_000, "y")
    store.replace_range("s", 2, 2, [{"role": "user", "content": "z"}])
    store.record("m", 1, session_id="s")
    store.search("y")
    before = dump()
    would = store.erase("s", dry_run=True)
    assert dump() == before
    did = store.erase("s")
    assert (would.dry_run, did.dry_run) == (True, False)
    for name in ("session_ids", "messages", "superseded", "blobs", "events", "metrics", "told_remote", "complete", "reasons"):
        assert getattr(would, name) == getattr(did, name), name
    assert (did.messages, did.superseded, did.blobs, did.metrics) == (2, 1, 1, 1)


def test_copies_that_lie_beside_the_file_are_named(store: SessionStore, store_path: Path) -> None:
    say(store, "s", "x")
    copies = [store_path.with_name("agent.db.pre-upgrade-0003.db"), store_path.with_name("agent.db.before-restore-20260101")]
    for copy in copies:
        shutil.copy(__file__, copy)
    receipt = store.erase("s")
    assert not receipt.complete
    assert all(any(str(copy) in reason for reason in receipt.reasons) for copy in copies)
    for copy in copies:
        copy.unlink()
    assert store.erase("s").complete


@pytest.mark.fault("F34")
def test_a_reader_of_another_process_makes_it_incomplete_until_it_is_done(store: SessionStore, store_path: Path) -> None:
    say(store, "s", "x")
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN');"
        "c.execute('SELECT count(*) FROM messages').fetchall(); print('reading', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(store_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        receipt = store.erase("s")
        assert (receipt.complete, receipt.session_ids) == (False, ("s",))
        assert "another program" in receipt.reasons[0]
        reader.stdin.close()
        assert reader.wait(20) == 0
    assert store.erase("s").complete


def test_a_call_of_this_process_that_reads_is_told_from_others(store: SessionStore) -> None:
    say(store, "s", "x")
    database = store._database

    def inside(db: Any) -> sessionstore.EraseReceipt:
        # The first read pins the snapshot.
        db.driver.execute("SELECT count(*) FROM messages").fetchall()
        return store.erase("s")

    receipt = database.read(inside, timeout=5)
    assert not receipt.complete
    assert "a call of this process" in receipt.reasons[0]
    assert store.erase("s").complete


@pytest.mark.fault("F34")
def test_without_a_rebuild_it_is_not_complete(store: SessionStore) -> None:
    say(store, "s", "x")
    receipt = store.erase("s", rebuild=False)
    assert not receipt.complete
    assert "rebuild=False" in receipt.reasons[0]
    assert store.erase("s").complete


@pytest.mark.fault("F34")
@pytest.mark.parametrize("failing", ["merge_some", "rebuild", "helped"])
def test_a_full_disk_after_the_rows_went_is_a_reason(store: SessionStore, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sessionstore.database import full_disk, vacuums
    from sessionstore.queries import search_index

    def fail(*_: Any, **__: Any) -> None:
        raise sessionstore.DiskFullError("agent.db", "no room")

    say(store, "s", "x")
    with monkeypatch.context() as patched:
        patched.setattr({"merge_some": search_index, "rebuild": vacuums, "helped": full_disk}[failing], failing, fail)
        receipt = store.erase("s")
    assert (receipt.session_ids, receipt.complete, len(receipt.reasons)) == (("s",), False, 1)
    assert store.erase("s").complete


def test_a_store_in_memory_erases() -> None:
    with sessionstore.open(in_memory=True) as store:
        say(store, "s", "x")
        assert store.erase("s").complete
        assert store.get("s") is None


def test_damaged_words_are_not_left_in_the_index(store: SessionStore, store_path: Path) -> None:
    say(store, "s", "unmistakable")
    say(store, "t", "findable")
    assert store.search("unmistakable").items
    with closing(sqlite3.connect(store_path)) as other:
        other.execute("UPDATE messages SET text = 'damaged' WHERE text = 'unmistakable'")
        other.commit()
    assert store.erase("s").complete
    assert rows(store_path, "SELECT count(*) FROM message_words_docsize WHERE id NOT IN (SELECT id FROM messages)") == [(0,)]
    assert [hit.session_id for hit in store.search("findable").items] == ["t"]
    assert store.doctor().ok


# -- the other faces


def test_a_handle_erases_its_session(store: SessionStore) -> None:
    chat = store.session("s")
    chat.append("user", "x")
    assert chat.erase().session_ids == ("s",)
    assert store.get("s") is None


@pytest.mark.anyio
async def test_the_asynchronous_face_erases(tmp_path: Path) -> None:
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        chat = await store.session("s", user_id="u")
        await chat.append("user", "x")
        assert (await chat.erase(dry_run=True)).messages == 1
        assert (await store.erase(user_id="u")).complete
        assert (await chat.erase()).missing == ("s",)


def test_the_command_line_erases_only_if_it_is_sure(store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cli(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = main(["--store", str(path), "erase", *arguments])
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    with sessionstore.open(store_path) as store:
        say(store, "s", "x", tags=["t"])
        store.fork("s", "f")
    refused = cli(store_path, "s")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "error: nothing brings erased sessions back; add --yes\n"
    would = cli(store_path, "s", "--dry-run")
    assert (would.returncode, would.stdout) == (0, "")
    assert "would erase 1 session, 1 message" in would.stderr
    forked = cli(store_path, "s", "--yes")
    assert (forked.returncode, forked.stdout) == (1, "")
    for told in (would.stderr, forked.stderr):
        assert "'f'" in told
        assert "--forks erase erases these, too; --forks keep leaves them" in told
        assert 'forks="' not in told
    assert json.loads(cli(store_path, "--tag", "t", "--forks", "erase", "--dry-run", "--json").stdout)["sessions"] == 2
    kept = cli(store_path, "s", "--forks", "keep", "--yes")
    assert (kept.returncode, "not complete: forks keep" in kept.stderr) == (1, True)
    done = cli(store_path, "f", "--yes", "--json")
    receipt = json.loads(done.stdout)
    assert (done.returncode, receipt["complete"], receipt["session_ids"]) == (0, True, ["f"])
    assert cli(store_path, "s", "--tag", "t", "--yes").returncode == cli(store_path, "--yes").returncode == 2


class Terminal(io.StringIO):
    """Somebody who can be asked."""

    def isatty(self) -> bool:
        return True


def test_nobody_is_asked_to_erase_what_forks_are_in_the_way_of(
    store_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    with sessionstore.open(store_path) as store:
        say(store, "s", "x")
        store.fork("s", "f")
    assert main(["--store", str(store_path), "erase", "s"]) == 1
    said = capsys.readouterr().err
    assert ("--forks keep" in said, "for good?" in said) == (True, False)
    with sessionstore.open(store_path) as store:
        assert texts(store, "s") == ["x"]


# -- the remote


def test_a_collector_forgets_what_was_erased(tmp_path: Path) -> None:
    collected = tmp_path / "collected.db"
    with running(collected) as collector, sessionstore.open(tmp_path / "a.db") as store:
        store.set_remote(sessionstore.Remote(collector.url, sync_messages=True))
        say(store, "s", "unmistakable", user_id="u", agent_id="a", metadata={"k": "unmistakable"})
        say(store, "t", "stays", agent_id="a")
        store.record("m", 1, session_id="s", attributes={"k": "unmistakable"})
        assert store.flush(20)
        assert rows(collected, "SELECT session_id FROM sessions ORDER BY 1") == [("s",), ("t",)]
        assert store.erase("s").told_remote
        assert store.flush(20)
        assert rows(collected, "SELECT session_id FROM sessions") == [("t",)]
        assert rows(collected, "SELECT text FROM messages") == [("stays",)]
        assert rows(collected, "SELECT count(*) FROM metric_events WHERE attributes LIKE '%unmistakable%'") == [(0,)]
        assert rows(tmp_path / "a.db", "SELECT stream FROM outbox WHERE stream <> ''") == []
