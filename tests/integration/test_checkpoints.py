"""Checkpoints belong to their session: they live, move, are copied and are erased with it, and leave nothing behind."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import SessionStore
from sessionstore.database import upgrade
from sessionstore.values.checkpoints import Base, ChannelValue, Encoded, Found, Kept, NewCheckpoint, NewWrite

TABLES = ("checkpoints", "checkpoint_values", "checkpoint_writes")
SECRET = b"kingfisher"


def value(channel: str, version: str, content: bytes, *, base: Base | None = None, items: int | None = None) -> ChannelValue:
    encoded = Encoded(items, "raw", content)
    return ChannelValue(channel=channel, version=version, is_new=True, base=base, rest=encoded, whole=lambda: encoded)


def put(store: SessionStore, session_id: str, checkpoint_id: str, *values: ChannelValue, **named: Any) -> dict[str, Kept]:
    """Store a checkpoint, as an adapter does."""
    new: dict[str, Any] = {"checkpoint_ns": "", "parent_id": None, "run_id": None, "metadata": ("raw", b"about"), **named}
    new |= {"checkpoint_id": checkpoint_id, "checkpoint": ("raw", b"state of " + checkpoint_id.encode()), "values": values}
    return store._put_checkpoint(store._new_session(session_id, {}), NewCheckpoint(**new), None)


def write(store: SessionStore, session_id: str, checkpoint_id: str, content: bytes = b"written") -> None:
    rows = [NewWrite(0, "ch", "raw", content), NewWrite(-3, "__interrupt__", "raw", b"stop")]
    store._put_checkpoint_writes(store._new_session(session_id, {}), "", checkpoint_id, rows, task_id="t", task_path="p")


def filled(store: SessionStore, session_id: str = "s") -> None:
    """Two checkpoints, of which the second one continues a list of the first, and a write."""
    first = put(store, session_id, "1", value("list", "1", b"a", items=1), value("plain", "1", b"x"), run_id="r1")
    put(store, session_id, "2", value("list", "2", b"b", base=Base(*first["list"][:2]), items=1), parent_id="1", run_id="r2")
    write(store, session_id, "2")


def found(store: SessionStore, session_id: str = "s", checkpoint_id: str | None = None) -> Found | None:
    return store._find_checkpoint(session_id, "", checkpoint_id)


def contents(store: SessionStore, session_id: str = "s", checkpoint_id: str | None = None) -> dict[str, list[bytes]]:
    """The pieces of each value of a checkpoint."""
    at = found(store, session_id, checkpoint_id)
    assert at is not None
    return {channel: [piece.value for piece in pieces] for channel, pieces in at.values.items()}


def rows(store: SessionStore) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables, without the keys that a store gives."""
    columns = {table: ", ".join(name for name in sessionstore.sql.COLUMNS[table] if name != "session_key") for table in TABLES}
    return {table: sorted(store.query(f"SELECT {names} FROM {table}").rows, key=repr) for table, names in columns.items()}


def count(store: SessionStore) -> tuple[int, ...]:
    return tuple(store.query(f"SELECT count(*) FROM {table}").rows[0][0] for table in TABLES)


NOTHING = (0, 0, 0)


# -- what is stored


def test_a_value_that_continues_another_one_comes_back_with_it(store: SessionStore) -> None:
    filled(store)
    assert contents(store) == {"list": [b"a", b"b"]}
    assert contents(store, checkpoint_id="1") == {"list": [b"a"], "plain": [b"x"]}
    newest = found(store)
    assert newest is not None
    assert [each.channel for each in newest.writes] == ["__interrupt__", "ch"]
    assert newest.row.parent_id == "1"


def test_a_value_whose_base_is_gone_is_stored_whole(store: SessionStore) -> None:
    """Another process may have pruned it; its number may even be another value's by now."""
    first = put(store, "s", "1", value("list", "1", b"a", items=1))["list"]
    for base in (Base(first.number, first.stamp + 1), Base(first.number + 7, first.stamp)):
        whole = ChannelValue(
            channel="list",
            version="2",
            is_new=True,
            base=base,
            rest=Encoded(1, "raw", b"b"),
            whole=lambda: Encoded(2, "raw", b"ab"),
        )
        kept = put(store, "s", "2", whole)
        assert kept["list"].is_whole
        assert contents(store) == {"list": [b"ab"]}


def test_a_checkpoint_that_is_put_again_takes_its_own_place(store: SessionStore) -> None:
    put(store, "s", "1", value("c", "1", b"old"))
    put(store, "s", "1", value("c", "2", b"new"))
    assert contents(store) == {"c": [b"new"]}
    assert count(store) == (1, 1, 0)


def test_of_writes_the_first_stays_and_of_special_ones_the_last(store: SessionStore) -> None:
    write(store, "s", "1", b"first")
    special = [NewWrite(0, "ch", "raw", b"second"), NewWrite(-3, "__interrupt__", "raw", b"again")]
    store._put_checkpoint_writes(store._new_session("s", {}), "", "1", special, task_id="t", task_path="p")
    put(store, "s", "1")
    there = found(store)
    assert there is not None
    assert [each.value for each in there.writes] == [b"again", b"first"]


def test_a_missing_value_is_damage_and_the_doctor_says_so(store: SessionStore, store_path: Path) -> None:
    filled(store)
    assert store.doctor().ok
    store.close()
    with closing(sqlite3.connect(store_path)) as raw, raw:
        raw.execute("DELETE FROM checkpoint_values WHERE base_number IS NULL AND channel = 'list'")
    with sessionstore.open(store_path) as damaged:
        with pytest.raises(sessionstore.StoreCorruptError, match="values of a checkpoint are missing"):
            found(damaged)
        (check,) = [check for check in damaged.doctor().checks if check.name == "checkpoints"]
        assert not check.ok
        assert check.detail.startswith("2 ")


def test_namespaces_keep_threads_apart(store: SessionStore) -> None:
    filled(store)
    other = store.in_namespace("team")
    assert found(other) is None
    put(other, "s", "9", value("c", "1", b"theirs"))
    assert contents(store) == {"list": [b"a", b"b"]}
    other._delete_checkpoint_runs(["r1", "r2"])
    assert contents(store) == {"list": [b"a", b"b"]}


# -- life and death


def test_a_checkpoint_lengthens_the_life_of_its_session(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=60)
    frozen.go(50)
    put(store, "s", "1")
    assert store.remaining("s") == 60
    frozen.go(50)
    write(store, "s", "1")
    assert store.remaining("s") == 60


def test_an_expired_thread_reads_as_empty_and_begins_anew(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=60)
    filled(store)
    frozen.go(60)
    assert found(store) is None
    assert store._list_checkpoints(session_id="s", checkpoint_ns=None, checkpoint_id=None, before=None, most=None) == []
    put(store, "s", "3", value("c", "1", b"anew"))
    assert contents(store) == {"c": [b"anew"]}
    assert found(store, checkpoint_id="1") is None


def test_a_sweep_that_deletes_takes_the_checkpoints(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, on_expire="delete") as store:
        store.session("s", ttl=60)
        filled(store)
        frozen.go(60)
        assert store.sweep().expired == 1
        assert count(store) == NOTHING


def test_sessions_of_many_checkpoints_go_in_transactions_of_their_own(
    store_path: Path, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other writers wait for one, not for all."""
    from sessionstore.queries import removal, retention

    monkeypatch.setattr(removal, "MOST_MESSAGES", 8)
    with sessionstore.open(store_path, on_expire="delete") as store:
        for number in range(4):
            store.session(f"s{number}", ttl=60)
            filled(store, f"s{number}")
        going = store._read(lambda db: retention.surplus(db, "", retention.Rules(max_sessions=0)))
        assert [len(batch) for batch in retention.batches(going)] == [1, 1, 1, 1]
        frozen.go(60)
        before = store.status().commits
        assert store.sweep().expired == 4
        assert store.status().commits - before >= 4
        assert count(store) == NOTHING


@pytest.mark.parametrize(
    "end",
    [
        lambda store: store.delete("s"),
        lambda store: store.erase("s"),
        lambda store: store.prune(max_sessions=0),
        lambda store: store.prune(max_bytes=10),
        lambda store: store._delete_checkpoints("s"),
    ],
    ids=["delete", "erase", "prune", "prune by size", "delete_checkpoints"],
)
def test_what_ends_a_session_ends_its_checkpoints(store: SessionStore, end: Callable[[SessionStore], object]) -> None:
    filled(store)
    filled(store.in_namespace("team"), "s")
    before = count(store)
    end(store)
    assert count(store) == tuple(number // 2 for number in before)
    assert store.doctor().ok


def test_the_size_of_checkpoints_counts(store: SessionStore) -> None:
    put(store, "large", "1", value("c", "1", b"x" * 100_000))
    put(store, "small", "1", value("c", "1", b"x"))
    assert store.prune(max_bytes=50_000).session_ids == ("large",)
    put(store, "kept", "1", value("c", "1", b"x" * 1_000))
    sizes = store.status(storage=True).storage
    assert sizes is not None
    assert sizes.graph_checkpoints == 2
    assert 1_001 < sizes.graph_checkpoint_bytes < 1_100


def test_the_sizes_of_a_store_hide_nothing_of_its_status() -> None:
    """The command line shows them as one table."""
    names = [{each.name for each in dataclasses.fields(kind)} for kind in (sessionstore.StorageSizes, sessionstore.StoreStatus)]
    assert not names[0] & names[1]


def test_the_command_line_tells_how_many_checkpoints_it_erases(store: SessionStore, store_path: Path) -> None:
    from typer.testing import CliRunner

    from sessionstore.cli.app import app

    filled(store)
    done = CliRunner().invoke(app, ["--store", str(store_path), "erase", "s", "--dry-run"])
    assert "1 session, 0 messages, 2 checkpoints, 0 events, 0 figures" in done.output


def test_a_thread_that_got_a_checkpoint_meanwhile_is_not_pruned(store: SessionStore, frozen: FrozenClock) -> None:
    from sessionstore.queries import retention

    put(store, "s", "1")
    frozen.go(100)
    rules = retention.Rules(max_age=50)
    going = store._read(lambda db: retention.surplus(db, "", rules))
    put(store, "s", "2")
    assert store._write(lambda db: retention.remove(db, going)) == []
    assert found(store) is not None


def test_a_renamed_thread_keeps_its_checkpoints(store: SessionStore) -> None:
    filled(store)
    store.rename("s", "t")
    assert found(store, "s") is None
    assert contents(store, "t") == {"list": [b"a", b"b"]}


def test_a_fork_begins_without_checkpoints_and_clear_keeps_them(store: SessionStore) -> None:
    filled(store)
    store.append("s", "user", "x")
    store.fork("s", "forked")
    assert found(store, "forked") is None
    store.clear("s")
    assert found(store) is not None


# -- what goes and what stays


def test_deleted_runs_leave_what_others_need(store: SessionStore) -> None:
    filled(store)
    store._delete_checkpoint_runs(["r1", "unknown"])
    assert contents(store) == {"list": [b"a", b"b"]}
    assert found(store, checkpoint_id="1") is None
    assert count(store) == (1, 2, 2), "the value that only the first one had is gone"
    store._delete_checkpoint_runs(["r2"])
    assert count(store) == NOTHING


def test_pruning_keeps_the_newest_of_each_checkpoint_namespace(store: SessionStore) -> None:
    filled(store)
    put(store, "s", "1", checkpoint_ns="child")
    put(store, "s", "3", checkpoint_ns="child")
    write(store, "s", "4")
    store._prune_checkpoints("s", lambda *_: ())
    assert store.query("SELECT checkpoint_ns, checkpoint_id FROM checkpoints ORDER BY 1, 2").rows == (("", "2"), ("child", "3"))
    assert contents(store) == {"list": [b"a", b"b"]}
    assert store.query("SELECT DISTINCT checkpoint_id FROM checkpoint_writes ORDER BY 1").rows == (("2",), ("4",))


def test_pruning_keeps_what_channels_are_rebuilt_from(store: SessionStore) -> None:
    for number in range(6):
        name = str(number)
        put(store, "s", name, *([value("d", name, b"seed")] if number in (0, 2) else ()), parent_id=str(number - 1))
        write(store, "s", name)
    store._prune_checkpoints("s", lambda *_: {"d"})
    assert [row[0] for row in store.query("SELECT checkpoint_id FROM checkpoints ORDER BY 1").rows] == ["2", "3", "4", "5"]
    past = store._checkpoint_past("s", "", "5", ["d", "ch"])
    assert [piece.value for piece in past["d"].seed or ()] == [b"seed"]
    assert (past["ch"].seed, len(past["ch"].writes)) == (None, 3)


def test_a_circle_of_parents_has_an_end(store: SessionStore) -> None:
    put(store, "s", "1", parent_id="2")
    put(store, "s", "2", parent_id="1")
    put(store, "s", "3", parent_id="3")
    assert store._checkpoint_past("s", "", "2", ["x"])["x"] == (None, [])
    assert store._checkpoint_past("s", "", "3", ["x"])["x"] == (None, [])


# -- copies


def test_checkpoints_are_copied_beside_those_that_are_there(store: SessionStore) -> None:
    filled(store)
    put(store, "t", "1", value("list", "1", b"replaced"))
    put(store, "t", "0", value("list", "0", b"stays"))
    store._copy_checkpoints("s", store._new_session("t", {}))
    assert contents(store, "t") == {"list": [b"a", b"b"]}
    assert contents(store, "t", "1") == {"list": [b"a"], "plain": [b"x"]}
    assert contents(store, "t", "0") == {"list": [b"stays"]}
    store.delete("s")
    assert contents(store, "t") == {"list": [b"a", b"b"]}
    assert store.doctor().ok


def test_nothing_is_copied_from_nothing_and_to_itself(store: SessionStore) -> None:
    store._copy_checkpoints("absent", store._new_session("t", {}))
    assert store.get("t") is None
    filled(store)
    before = rows(store)
    store._copy_checkpoints("s", store._new_session("s", {}))
    assert rows(store) == before


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SessionStore]:
    with sessionstore.open(tmp_path / "other.db") as opened:
        yield opened


def test_a_copy_of_a_store_has_them_and_brings_what_is_new(store: SessionStore, other: SessionStore) -> None:
    filled(store)
    assert store.copy_to(other).equal
    assert rows(other) == rows(store)
    assert store.copy_to(other).copied == 0
    put(store, "s", "3", value("c", "1", b"more"), parent_id="2")
    receipt = store.copy_to(other)
    assert (receipt.equal, receipt.again) == (True, 1)
    assert rows(other) == rows(store)
    assert other.doctor().ok


def test_a_checkpoint_that_was_put_in_the_target_is_left(store: SessionStore, other: SessionStore) -> None:
    filled(store)
    store.copy_to(other)
    put(other, "s", "3", value("c", "1", b"only here"))
    put(store, "s", "4", value("c", "1", b"only there"))
    assert store.copy_to(other).kept == (("", "s"),)
    assert contents(other) == {"c": [b"only here"]}


def exported(store: SessionStore) -> bytes:
    file = io.BytesIO()
    store.export_file(file)
    return file.getvalue()


def test_an_export_is_lossless(store: SessionStore, other: SessionStore) -> None:
    filled(store)
    chat = store.session("s")
    chat.append("user", "x")
    chat.replace_range(1, 1, [{"role": "user", "content": "y"}])
    store.session("after").append("user", "the next session is read right")
    other.import_file(io.BytesIO(exported(store)))
    assert rows(other) == rows(store)
    assert [message.text for message in other.messages("after")] == ["the next session is read right"]
    assert exported(other) == exported(store)
    assert other.doctor().ok


@pytest.mark.parametrize("how", ["skip", "replace", "merge", "new-id"])
def test_an_import_that_meets_the_session_does_as_it_is_told(store: SessionStore, other: SessionStore, how: Any) -> None:
    filled(store)
    put(other, "s", "0", value("c", "1", b"was there"))
    put(other, "s", "2", value("c", "2", b"was there, too"))
    other.import_file(io.BytesIO(exported(store)), on_conflict=how)
    other.import_file(io.BytesIO(exported(store)), on_conflict="merge")
    names = ["s", "s-2"] if how == "new-id" else ["s"]
    assert sorted(info.session_id for info in other.list()) == names
    ids = [row[0] for row in other.query("SELECT checkpoint_id FROM checkpoints WHERE session_key = 1 ORDER BY 1").rows]
    if how == "replace":
        assert rows(other) == rows(store)
    else:
        assert ids == ["0", "1", "2"]
        assert contents(other) == {"c": [b"was there, too"]}
        assert contents(other, checkpoint_id="1") == {"list": [b"a"], "plain": [b"x"]}
    assert other.doctor().ok


DAMAGES = {
    "base64": (b'"value": "YQ=="', b'"value": "!"', "value: must be base64"),
    "number": (b'"number": 1', b'"number": -1', "number: must"),
    "kind": (b'"type": "checkpoint_write"', b'"type": "checkpoint_note"', "type: must be that of a checkpoint"),
    "unknown": (b'"type": "checkpoint_write",', b'"type": "checkpoint_write", "mood": 1,', "keys: holds a key"),
    "base": (b'"base_number": 1', b'"base_number": 3', "base_number: must be that of a value before it"),
    "lost": (b'"base_number": 1, "items": 1', b'"base_number": 0, "items": 1', "checkpoints: name values that the file"),
    "channel": (b'"plain": 2', b'"plain": 20', "checkpoints: name values that the file"),
    "missing": (b'"task_path": "p", ', b"", "task_path: is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_line_that_is_wrong_is_refused(store: SessionStore, other: SessionStore, damage: str) -> None:
    filled(store)
    old, new, reason = DAMAGES[damage]
    text = exported(store)
    assert old in text
    lines = text.replace(old, new, 1).splitlines(keepends=True)
    trailer = json.loads(lines[-1]) | {"sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}
    lines[-1] = json.dumps(trailer).encode() + b"\n"
    with pytest.raises(sessionstore.InvalidInputError, match=reason):
        other.import_file(io.BytesIO(b"".join(lines)))
    assert count(other) == NOTHING


# -- erasing


SCAN = """
import sys
from pathlib import Path
print(any(sys.argv[2].encode() in file.read_bytes() for file in Path(sys.argv[1]).parent.iterdir() if file.is_file()))
"""


def is_left(path: Path) -> bool:
    """Whether another process finds the secret in any file beside the store."""
    done = subprocess.run([sys.executable, "-c", SCAN, str(path), SECRET.decode()], capture_output=True, text=True, check=True)
    return done.stdout == "True\n"


def test_an_erased_thread_leaves_no_byte(store: SessionStore, store_path: Path) -> None:
    filled(store, "stays")
    for number in range(20):
        content = SECRET + str(number).encode() * 200
        put(store, "s", str(number), value(SECRET.decode(), "1", content), metadata=("raw", content), run_id=SECRET.decode())
        write(store, "s", str(number), content)
    assert is_left(store_path)
    told = store.erase("s", dry_run=True)
    assert (told.checkpoints, count(store)[0]) == (20, 22)
    receipt = store.erase("s")
    assert (receipt.checkpoints, receipt.complete) == (20, True)
    assert not is_left(store_path)
    assert contents(store, "stays") == {"list": [b"a", b"b"]}


# -- older files


def test_a_file_of_the_revision_before_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sessionstore.open(path) as store:
        store.session("s").append("user", "was there")
    with closing(sqlite3.connect(path)) as raw, raw:
        # All that the revision and the one after it add.
        for table in (*TABLES, "outbox_unanswered"):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("ALTER TABLE store_info DROP COLUMN remote_after_metric")
        raw.execute("UPDATE sessionstore_version SET version_num = '0004'")
    with sessionstore.open(path) as store:
        assert store.status().schema_revision == upgrade.HEAD_REVISION
        assert store.query("SELECT session_id, message_count FROM v_sessions").rows == (("s", 1),)
        assert [message.text for message in store.messages("s")] == ["was there"]
        filled(store)
        assert contents(store) == {"list": [b"a", b"b"]}
        assert store.doctor().ok


def test_numbers_given_again_are_told_apart_by_their_stamps(store: SessionStore) -> None:
    put(store, "s", "0", value("c", "0", b"first"))
    put(store, "s", "1", value("c", "1", b"deleted"), run_id="r")
    stamps = set()
    for turn in range(20):
        kept = put(store, "s", f"2{turn}", value("c", "1", b"again"), run_id="r")["c"]
        stamps.add(kept.stamp)
        store._delete_checkpoint_runs(["r"])
    assert len(stamps) == 20
