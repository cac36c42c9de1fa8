"""A copy of a store holds all of it, can be done again, and never costs anybody a message."""

from __future__ import annotations

import os
import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from test_native_format import BIG, family, rows_in, view

import sessionstore
from sessionstore import InvalidInputError, SessionStore, StoreCorruptError, WrongKeyError

SEED = int(os.environ.get("SESSIONSTORE_SEED", "20261122"))
KEY = bytes(range(32))


@pytest.fixture
def other(tmp_path: Path) -> Any:
    with sessionstore.open(tmp_path / "other.db") as opened:
        yield opened


def full(store: SessionStore) -> None:
    """A store with all that there can be."""
    family(store)
    store.in_namespace("team").session("root").append("user", "its life is over")
    store.in_namespace("team").set_ttl("root", 1e-6)
    store.sweep()
    store.in_namespace("team").session("root").append("user", "the same id elsewhere")
    store.archive("deep")
    store.end("fork", "failed", error="boom")


def raw(store: SessionStore, table: str, columns: str) -> list[tuple[Any, ...]]:
    return sorted(store.query(f"SELECT {columns} FROM {table}").rows, key=repr)


def everything(store: SessionStore) -> dict[str, Any]:
    """What the public calls tell, and what they do not: expired sessions, figures, agents."""
    return {
        "sessions": view(store),
        "expired": store.in_namespace("team").list(status="expired").items,
        "metrics": raw(store, "metric_events", "namespace, name, value, agent_id, session_id, attributes, occurred_at"),
        "activity": store.activity(),
        "agents": store.agents(),
        "state": raw(store, "state_values", "namespace, scope, name, value, updated_at"),
        "rows": raw(store, "messages", "seq, kind, role, text, extra, facts, created_at, packed"),
    }


def test_a_copy_holds_all_and_shares_as_the_source_does(store: SessionStore, other: SessionStore) -> None:
    full(store)
    steps: list[tuple[int, int | None]] = []
    receipt = store.copy_to(other, progress=lambda done, total: steps.append((done, total)))
    assert receipt.equal
    assert (receipt.sessions, receipt.copied, receipt.metrics, receipt.agents, receipt.activities) == (5, 5, 2, 1, 2)
    assert everything(other) == everything(store)
    assert rows_in(other, "blobs") == rows_in(store, "blobs")
    assert rows_in(other, "superseded_messages") == rows_in(store, "superseded_messages")
    assert all(check.ok for check in other.doctor().checks)
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1] == 2 * receipt.messages


def test_copying_again_writes_nothing(store: SessionStore, other: SessionStore) -> None:
    full(store)
    store.copy_to(other)
    before = everything(other)
    receipt = store.copy_to(other)
    assert (receipt.copied, receipt.again, receipt.equal) == (0, 0, True)
    assert everything(other) == before


def test_copying_again_brings_what_was_changed(store: SessionStore, other: SessionStore) -> None:
    full(store)
    store.copy_to(other)
    chat = store.session("root")
    chat.pop()
    chat.append("user", "instead")
    chat.replace_range(1, 2, [{"role": "user", "content": "shorter"}])
    store.rename("fork", "renamed")
    store.set_state("deep", {"k": 1})
    store.session("new").append("user", BIG)
    store.record("later", 1)
    receipt = store.copy_to(other)
    assert receipt.equal
    assert (receipt.copied, receipt.again) == (4, 3)
    assert view(other) == view(store)
    assert other.get("fork") is None
    assert all(check.ok for check in other.doctor().checks)


def test_what_was_changed_in_the_target_is_left_and_told(store: SessionStore, other: SessionStore) -> None:
    full(store)
    store.copy_to(other)
    other.session("root").append("user", "only here")
    store.session("root").append("user", "only there")
    receipt = store.copy_to(other)
    assert not receipt.equal
    assert receipt.kept == (("", "root"),)
    assert other.messages("root")[-1].text == "only here"


def test_another_session_of_the_name_is_left_and_told(store: SessionStore, other: SessionStore) -> None:
    full(store)
    other.session("root").append("user", "another one")
    receipt = store.copy_to(other)
    assert receipt.kept == (("", "root"),)
    assert [message.text for message in other.messages("root")] == ["another one"]
    assert view(other)[""]["fork"][1] == view(store)[""]["fork"][1], "forks are whole without their parent"


def test_an_older_state_does_not_take_the_place_of_a_newer_one(tmp_path: Path, store: SessionStore, other: SessionStore) -> None:
    chat = store.session("s")
    chat.append("user", "one")
    store.backup(tmp_path / "backup.db")
    chat.append("user", "two")
    store.copy_to(other)
    with sessionstore.open(tmp_path / "backup.db") as old:
        old.session("later", title="its key is one that the store gave to none").append("user", "x")
        assert old.copy_to(other).kept == (("", "s"),)
    assert [message.text for message in other.messages("s")] == ["one", "two"]
    store.session("first").append("user", "a key that the backup gave to another session")
    assert store.copy_to(other).equal
    assert {info.session_id for info in other.list()} == {"s", "later", "first"}


def test_the_outbox_and_the_remote_stay_behind(tmp_path: Path, store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set_remote("http://127.0.0.1:9")
    store.session("told", agent_id="a")
    monkeypatch.setenv("SESSIONSTORE_SYNC_URL", "http://127.0.0.1:9")
    assert store.copy_to(tmp_path / "copy.db").equal
    monkeypatch.delenv("SESSIONSTORE_SYNC_URL")
    with sessionstore.open(tmp_path / "copy.db") as copy:
        assert rows_in(copy, "outbox") == 0
        assert copy.query("SELECT remote_url FROM store_info").rows == ((None,),)
        assert copy.get("told") is not None


def test_a_store_is_not_copied_to_itself(store_path: Path, store: SessionStore) -> None:
    for target in (store, store.in_namespace("x"), store_path):
        with pytest.raises(InvalidInputError, match="is this store itself"):
            store.copy_to(target)
    with pytest.raises(InvalidInputError, match="must be a path"):
        store.copy_to(3)  # type: ignore[arg-type]


def test_a_damaged_message_is_not_copied(tmp_path: Path, store: SessionStore) -> None:
    chat = store.session("s")
    chat.append("user", "hello")
    store._write(lambda db: db.driver.execute("UPDATE messages SET text = 'hullo'").rowcount)
    with pytest.raises(StoreCorruptError, match="is damaged"):
        store.copy_to(tmp_path / "copy.db")


def test_sessions_that_are_changed_meanwhile_are_taken_again(tmp_path: Path, store: SessionStore, other: SessionStore) -> None:
    for number in range(150):
        store.session(f"s{number}").append_many([{"role": "user", "content": f"{number} {each}"} for each in range(30)])
    seen: list[int] = []

    def meddle(done: int, total: int | None) -> None:
        if len(seen) < 20:
            seen.append(done)
            # Copied already, and read again only by the comparison.
            store.session("s0").append("user", f"meanwhile {len(seen)}")
            store.session(f"later{len(seen)}").append("user", "x")

    receipt = store.copy_to(other, progress=meddle)
    assert receipt.equal
    assert receipt.again == 1
    assert view(other) == view(store)


def test_a_store_that_is_written_by_others_is_copied_whole(store: SessionStore, other: SessionStore) -> None:
    full(store)
    chance = random.Random(SEED)
    print(f"SESSIONSTORE_SEED={SEED}")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            name = f"s{chance.randrange(20)}"
            chat = store.session(name)
            chat.append("user", str(chance.random()))
            if chance.random() < 0.2:
                chat.pop()
            if chance.random() < 0.1:
                chat.fork()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while store.count() < 60:
            assert store.copy_to(other).kept == ()
    finally:
        stop.set()
        writer.join()
    assert store.copy_to(other).equal
    assert view(other) == view(store)
    assert all(check.ok for check in other.doctor().checks)


def test_a_plain_store_is_copied_to_an_encrypted_one_and_back(tmp_path: Path, store: SessionStore) -> None:
    pytest.importorskip("sqlcipher3")
    full(store)
    secret, again, plain = (tmp_path / name for name in ("secret.db", "again.db", "plain.db"))
    assert store.copy_to(secret, key=KEY).equal
    with pytest.raises(WrongKeyError):
        sessionstore.open(secret)
    with sessionstore.open(secret, key=KEY) as encrypted:
        assert everything(encrypted) == everything(store)
        assert encrypted.copy_to(again).equal, "a copy of an encrypted store is encrypted, too"
        with pytest.raises(WrongKeyError):
            sessionstore.open(again)
        assert encrypted.copy_to(plain, key=None).equal
    with sessionstore.open(plain) as back:
        assert everything(back) == everything(store)


@pytest.mark.anyio
async def test_the_awaited_copy_is_the_same(tmp_path: Path) -> None:
    async with sessionstore.aopen(tmp_path / "a.db") as first, sessionstore.aopen(tmp_path / "b.db") as second:
        await (await first.session("s")).append("user", "hello")
        assert (await first.copy_to(second)).equal
        assert [message.text for message in await second.messages("s")] == ["hello"]
        assert (await first.copy_to(tmp_path / "c.db")).copied == 1


def test_the_command_copies_and_tells_what_differs(
    tmp_path: Path, store: SessionStore, store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from sessionstore.cli import main

    full(store)
    target = tmp_path / "copy.db"
    assert main(["copy", str(store_path), str(target)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the copy has all of it" in said
    assert re.search(r"\d state values? of users and applications", said)
    with sessionstore.open(target) as copy:
        assert everything(copy) == everything(store)
        copy.session("root").append("user", "only here")
    store.session("root").append("user", "only there")
    assert main(["copy", str(store_path), str(target), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["equal"], told["kept"], told["copied"]) == (False, [["", "root"]], 0)
    assert main(["--store", str(store_path), "copy", str(store_path), str(target)]) == 2
    assert main(["copy", str(store_path), str(target), "--plain", "--target-key-file", "x"]) == 2
    assert main(["copy", str(tmp_path / "absent.db"), str(target)]) == 1
