"""State: values of a session, its user and its application, merged; counters that lose nothing; and values that no file holds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessionstore
from sessionstore import ConflictError, InvalidInputError, NotFoundError, QuotaError, SessionExpiredError, clock
from sessionstore.store import state as state_calls

Store = sessionstore.SessionStore

SCOPES = ("session", "user", "app", "temp")
FILE_SCOPES = ("session", "user", "app")


def rows_of(store: Store) -> list[tuple[Any, ...]]:
    """What the table holds."""
    return list(store.query("SELECT scope, owner, name, value FROM state_values ORDER BY 1, 2, 3").rows)


# -- what a session sees


def test_temp_values_hide_the_sessions_and_those_the_users_and_those_the_applications(store: Store) -> None:
    chat = store.session("s", user_id="u", agent_id="a")
    for depth, scope in enumerate(("app", "user", "session", "temp")):
        chat.set_state({f"from {scope}": depth, **{f"up to {name}": scope for name in SCOPES if depth <= ORDER[name]}}, scope=scope)
    assert chat.state() == {
        "from app": 0,
        "from session": 2,
        "from temp": 3,
        "from user": 1,
        "up to app": "app",
        "up to session": "session",
        "up to temp": "temp",
        "up to user": "user",
    }
    assert list(chat.state()) == sorted(chat.state())
    assert chat.state(scope="user") == {"from user": 1, "up to session": "user", "up to temp": "user", "up to user": "user"}
    assert (chat.get_state("up to temp"), chat.get_state("up to temp", scope="app")) == ("temp", "app")


ORDER = {"app": 0, "user": 1, "session": 2, "temp": 3}


def test_setting_merges_and_none_is_a_value(store: Store) -> None:
    chat = store.session("s")
    chat.set_state({"a": 1, "b": None})
    chat.set_state({"a": 2, "c": [1, {"d": 0.5}]})
    assert chat.state() == {"a": 2, "b": None, "c": [1, {"d": 0.5}]}
    assert chat.get_state("b", "default") is None
    assert chat.get_state("absent") is None
    assert chat.get_state("absent", "default") == "default"


def test_values_come_back_equal_and_are_nobodys_own(store: Store) -> None:
    values = {
        "text": "é\x00\n'\"\\",
        "list": [1, 2.5, True, None, {"k": []}],
        "max": 2**63 - 1,
        "min": -(2**63),
        "float": 0.1 + 0.2,
    }
    for scope in ("session", "temp"):
        given = {**values, "inner": {"list": [1]}}
        store.session("s").set_state(given, scope=scope)
        given["inner"]["list"].append(2)  # type: ignore[index]
        first = store.state("s", scope=scope)
        assert first == {**values, "inner": {"list": [1]}}
        first["inner"]["list"].append(3)
        assert store.get_state("s", "inner", scope=scope) == {"list": [1]}


def test_a_users_state_is_that_of_all_their_sessions_in_the_namespace(store: Store) -> None:
    store.session("one", user_id="u", agent_id="a").set_state({"x": 1}, scope="user")
    assert store.session("two", user_id="u").state() == {"x": 1}
    assert store.session("other", user_id="v", agent_id="a").state() == {}
    elsewhere = store.in_namespace("elsewhere")
    assert elsewhere.session("one", user_id="u", agent_id="a").state() == {}
    store.delete(["one", "two"])
    assert store.session("three", user_id="u").state() == {"x": 1}


def test_an_applications_state_is_that_of_all_sessions_of_the_agent(store: Store) -> None:
    store.session("one", agent_id="a").set_state({"x": 1}, scope="app")
    store.session("plain").set_state({"y": 2}, scope="app")
    assert store.session("two", agent_id="a", user_id="u").state() == {"x": 1}
    assert store.session("without").state() == {"y": 2}
    store.update("without", agent_id="a")
    assert store.state("without") == {"x": 1}


def test_the_user_scope_is_refused_where_there_is_no_user(store: Store) -> None:
    store.session("s")
    for call in (
        lambda: store.state("s", scope="user"),
        lambda: store.get_state("s", "x", scope="user"),
        lambda: store.set_state("s", {"x": 1}, scope="user"),
        lambda: store.increment_state("s", "x", scope="user"),
        lambda: store.delete_state("s", "x", scope="user"),
    ):
        with pytest.raises(InvalidInputError, match="user_id") as caught:
            call()
        assert caught.value.field == "scope"
    assert rows_of(store) == []


# -- changing


@pytest.mark.parametrize("scope", SCOPES)
def test_deleting_tells_how_many_were_there(store: Store, scope: Any) -> None:
    chat = store.session("s", user_id="u")
    chat.set_state({"a": 1, "b": 2, "c": 3}, scope=scope)
    assert chat.delete_state("a", "absent", "c", "a", scope=scope) == 2
    assert chat.state() == {"b": 2}
    assert chat.delete_state(scope=scope) == 0
    assert chat.delete_state(*chat.state(scope=scope), scope=scope) == 1
    assert chat.state() == {}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "values",
    [
        {"x": float("nan")},
        {"x": {1, 2}},
        {"x": (1,)},
        {"x": b"x"},
        {"x": 2**63},
        {"x": "\ud800"},
        {"x": {1: 2}},
        {1: 2},
        {"": 1},
        {"a\nb": 1},
        {"x" * 257: 1},
        {" x": 1},
        [("x", 1)],
        "x",
        None,
        {"x": "y" * (1 << 20)},
    ],
    ids=repr,
)
def test_what_json_does_not_have_is_refused_and_nothing_is_kept(store: Store, values: Any, scope: Any) -> None:
    chat = store.session("s", user_id="u")
    if isinstance(values, dict):
        values = {"fine": 1, **values}
    with pytest.raises(InvalidInputError):
        chat.set_state(values, scope=scope)
    assert chat.state() == {}


@pytest.mark.parametrize("scope", SCOPES)
def test_an_owner_has_four_mebibytes_at_most(store: Store, scope: Any) -> None:
    chat = store.session("s", user_id="u")
    piece = "é" * (1 << 18)
    for name in range(7):
        chat.set_state({str(name): piece}, scope=scope)
    with pytest.raises(QuotaError) as caught:
        chat.set_state({"first": 1, "last": piece}, scope=scope)
    assert caught.value.limit == 4 << 20
    assert sorted(chat.state()) == [str(name) for name in range(7)]
    chat.set_state({"0": "", "last": piece}, scope=scope)
    for name in SCOPES:
        if name != scope:
            chat.set_state({"elsewhere": 1}, scope=name)


def test_unknown_scopes_are_refused(store: Store) -> None:
    chat = store.session("s")
    for scope in ("", "Session", "all", 1, None):
        with pytest.raises(InvalidInputError):
            chat.set_state({"x": 1}, scope=scope)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        chat.state(scope="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", SCOPES)
def test_values_can_be_changed_only_if_they_are_what_one_takes_them_for(store: Store, scope: Any) -> None:
    chat = store.session("s", user_id="u")
    chat.set_state({"step": 1, "none": None}, scope=scope)
    chat.set_state({"step": 2}, scope=scope, expected={"step": 1, "none": None, "absent": None})
    for expected in ({"step": 1}, {"absent": 0}, {"none": False, "step": 2}):
        with pytest.raises(ConflictError):
            chat.set_state({"step": 3, "more": 4}, scope=scope, expected=expected)
    assert chat.state() == {"none": None, "step": 2}


def test_a_sessions_version_place_and_life_are_not_touched(store: Store) -> None:
    chat = store.session("s", user_id="u", ttl=3600)
    before = chat.get()
    for scope in SCOPES:
        chat.set_state({"x": 1}, scope=scope)
        chat.increment_state("x", scope=scope)
        chat.delete_state("x", scope=scope)
    assert chat.get() == before


# -- counters


@pytest.mark.parametrize("scope", SCOPES)
def test_a_counter_begins_at_zero_and_is_exact(store: Store, scope: Any) -> None:
    chat = store.session("s", user_id="u")
    assert [chat.increment_state("n", scope=scope), chat.increment_state("n", 41, scope=scope)] == [1, 42]
    assert chat.increment_state("n", -50, scope=scope) == -8
    assert isinstance(chat.get_state("n"), int)
    assert chat.increment_state("f", 0.1, scope=scope) == 0.1
    assert chat.increment_state("f", 0.2, scope=scope) == 0.1 + 0.2
    assert chat.get_state("f") == 0.1 + 0.2
    assert chat.increment_state("f", 2**53 + 1, scope=scope) == 0.1 + 0.2 + (2**53 + 1)
    chat.set_state({"big": 2**63 - 2}, scope=scope)
    assert chat.increment_state("big", scope=scope) == 2**63 - 1
    for step in (1, 2**63 - 1):
        with pytest.raises(InvalidInputError):
            chat.increment_state("big", step, scope=scope)
    assert chat.get_state("big") == 2**63 - 1
    chat.set_state({"huge": 1e308}, scope=scope)
    with pytest.raises(InvalidInputError):
        chat.increment_state("huge", 1e308, scope=scope)
    assert chat.get_state("huge") == 1e308


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("value", [None, True, "5", [5], {"n": 5}, ""], ids=repr)
def test_what_is_no_number_cannot_be_counted(store: Store, value: Any, scope: Any) -> None:
    chat = store.session("s", user_id="u")
    chat.set_state({"n": value}, scope=scope)
    for by in (1, 0.5):
        with pytest.raises(ConflictError, match="no number"):
            chat.increment_state("n", by, scope=scope)
    assert chat.get_state("n") == value


@pytest.mark.parametrize("by", [True, "1", None, float("nan"), float("inf"), 2**63], ids=repr)
def test_steps_are_finite_numbers(store: Store, by: Any) -> None:
    store.session("s")
    with pytest.raises(InvalidInputError):
        store.increment_state("s", "n", by)
    assert store.state("s") == {}


def test_a_sum_beyond_64_bits_names_the_value_and_its_range(store: Store) -> None:
    store.session("s")
    store.set_state("s", {"n": 2**63 - 1})
    with pytest.raises(InvalidInputError, match=f"must be from {-(2**63)} to {2**63 - 1}") as caught:
        store.increment_state("s", "n")
    assert caught.value.field == "value"


@pytest.mark.parametrize("scope", SCOPES)
def test_fifty_threads_count_and_nothing_is_lost(store: Store, scope: Any) -> None:
    store.session("s", user_id="u")
    sums: list[float] = []
    failures: list[BaseException] = []

    def count(number: int) -> None:
        try:
            for step in range(10):
                sums.append(store.increment_state("s", "whole", scope=scope))
                store.increment_state("s", "half", 0.5, scope=scope)
                store.set_state("s", {f"{number} {step}": step}, scope=scope)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(sums) == list(range(1, 501))
    found = store.state("s")
    assert (found.pop("whole"), found.pop("half")) == (500, 250.0)
    assert found == {f"{number} {step}": step for number in range(50) for step in range(10)}


COUNT = """
import sys
import sessionstore

with sessionstore.open(sys.argv[1], durability="normal") as store:
    for _ in range(50):
        store.increment_state("s", "n")
        store.increment_state("s", "f", 0.5)
"""


def test_processes_count_and_nothing_is_lost(store: Store, store_path: Path) -> None:
    store.session("s")
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(store_path)]) for _ in range(3)]
    for _ in range(50):
        store.increment_state("s", "n")
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert store.state("s") == {"f": 75.0, "n": 200}


# -- how long it lives


def test_a_sessions_state_survives_a_new_name_and_a_reopening(store_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        chat = store.session("s", user_id="u")
        for scope in SCOPES:
            chat.set_state({scope: 1}, scope=scope)
        chat.rename("t")
        assert chat.state() == dict.fromkeys(sorted(SCOPES), 1)
        assert store.session("s").state() == {"app": 1}
    with sessionstore.open(store_path) as store:
        assert store.state("t") == dict.fromkeys(sorted(FILE_SCOPES), 1)


def test_a_sessions_own_state_goes_with_it_and_nobody_elses(store: Store) -> None:
    for name in ("gone", "stays"):
        store.session(name, user_id="u", agent_id="a").set_state({"own": name})
    store.set_state("gone", {"user": 1}, scope="user")
    store.set_state("gone", {"app": 1}, scope="app")
    store.set_state("gone", {"temp": 1}, scope="temp")
    store.in_namespace("n").session("gone").set_state({"own": "elsewhere"})
    store.delete("gone")
    assert [row[2:] for row in rows_of(store)] == [("app", "1"), ("own", '"stays"'), ("own", '"elsewhere"'), ("user", "1")]
    assert store.session("gone", user_id="u", agent_id="a").state() == {"app": 1, "user": 1}


def test_an_expired_sessions_state_is_invisible_and_goes_when_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sessionstore.open(tmp_path / "a.db", on_expire="delete") as store:
        chat = store.session("s", ttl=60)
        chat.set_state({"x": 1})
        chat.set_state({"y": 1}, scope="temp")
        later = clock.utc_now() + timedelta(seconds=61)
        monkeypatch.setattr(clock, "utc_now", lambda: later)
        for read in (chat.state, lambda: chat.get_state("x"), lambda: chat.state(scope="temp")):
            with pytest.raises(NotFoundError):
                read()
        for scope in ("session", "app", "temp"):
            with pytest.raises(SessionExpiredError):
                chat.set_state({"x": 2}, scope=scope)  # type: ignore[arg-type]
            with pytest.raises(SessionExpiredError):
                chat.increment_state("x", scope=scope)  # type: ignore[arg-type]
            with pytest.raises(SessionExpiredError):
                chat.delete_state("x", scope=scope)  # type: ignore[arg-type]
        assert [row[3] for row in rows_of(store)] == ["1"]
        store.sweep()
        assert rows_of(store) == []
        assert store.session("s").state() == {}


def test_unknown_sessions_have_no_state(store: Store) -> None:
    for call in (
        lambda: store.state("absent"),
        lambda: store.get_state("absent", "x"),
        lambda: store.set_state("absent", {"x": 1}),
        lambda: store.set_state("absent", {"x": 1}, scope="temp"),
        lambda: store.increment_state("absent", "x", scope="app"),
        lambda: store.delete_state("absent", "x"),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert rows_of(store) == []


def test_a_fork_begins_with_a_copy_of_the_sessions_own_state(store: Store) -> None:
    chat = store.session("s", user_id="u", agent_id="a")
    chat.append("user", "x")
    chat.set_state({"a": 1, "b": [2]})
    chat.set_state({"user": 1}, scope="user")
    chat.set_state({"temp": 1}, scope="temp")
    fork = chat.fork("f")
    assert fork.state() == {"a": 1, "b": [2], "user": 1}
    fork.set_state({"a": 2})
    fork.delete_state("b")
    assert (chat.state(scope="session"), fork.state(scope="session")) == ({"a": 1, "b": [2]}, {"a": 2})
    chat.delete()
    assert fork.state() == {"a": 2, "user": 1}


# -- temp


def test_temp_values_are_never_written_and_belong_to_the_open_store(store_path: Path) -> None:
    token = "temporarily-7f3a91"
    with sessionstore.open(store_path) as store, sessionstore.open(store_path) as beside:
        chat = store.session("s")
        chat.set_state({token: token, "n": 1}, scope="temp")
        chat.increment_state("n", 5, scope="temp")
        chat.append("user", "written")
        assert store.in_namespace("").state("s") == {token: token, "n": 6}
        assert beside.state("s") == {}
    files = [path.read_bytes() for path in store_path.parent.iterdir()]
    assert any(b"written" in held for held in files)
    assert not any(token.encode() in held for held in files)
    with sessionstore.open(store_path) as store:
        assert store.state("s") == {}


def test_temp_values_need_no_writable_file(store_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        store.session("s").set_state({"kept": 1})
    with sessionstore.open(store_path, read_only=True) as store:
        store.set_state("s", {"temp": 2}, scope="temp")
        assert store.state("s") == {"kept": 1, "temp": 2}
        with pytest.raises(sessionstore.ReadOnlyStoreError):
            store.set_state("s", {"x": 1})


def test_temp_values_of_sessions_that_are_gone_do_not_pile_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_calls, "_MANY", 5)
    store._temp._many = 5
    for number in range(100):
        chat = store.session(str(number))
        chat.set_state({"x": number}, scope="temp")
        if number % 50:
            chat.delete()
    assert len(store._temp._texts) < 15
    assert [store.get_state(name, "x") for name in ("0", "50")] == [0, 50]


# -- both faces


@pytest.mark.anyio
async def test_the_asynchronous_face_shares_all_of_it(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        chat = await store.session("s", user_id="u")
        for scope in SCOPES:
            await chat.set_state({scope: 1}, scope=scope)
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(chat.increment_state, "n")
        assert await chat.get_state("n") == 50
        assert await chat.get_state("absent", 7) == 7
        assert await chat.delete_state("temp", scope="temp") == 1
        assert await chat.state() == {"app": 1, "n": 50, "session": 1, "user": 1}
        with pytest.raises(ConflictError):
            await chat.set_state({"n": 0}, expected={"n": 1})


# -- anything, against plain dicts


def test_random_histories_equal_plain_dicts(store_path: Path) -> None:
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    chance = random.Random(seed)
    model: defaultdict[tuple[str, str | None], dict[str, Any]] = defaultdict(dict)
    lives: dict[str, int] = {}
    users = {"a": ("u", "x"), "b": ("u", None), "c": (None, "x"), "d": ("v", None)}
    store = sessionstore.open(store_path, durability="normal")
    try:
        for number in range(400):
            name = chance.choice("abcd")
            user, agent = users[name]
            if name not in lives:
                store.session(name, user_id=user, agent_id=agent)
                lives[name] = number
            owners = {"session": f"{name} {lives[name]}", "user": user, "app": agent or "", "temp": f"{name} {lives[name]}"}
            scope: Any = chance.choice([each for each in SCOPES if owners[each] is not None])
            held = model[scope, owners[scope]]
            key = chance.choice("pqrs")
            match chance.randrange(8):
                case 0 | 1 | 2:
                    values = {each: chance.choice([None, 1, 2.5, "x", [1]]) for each in chance.sample("pqrs", 2)}
                    store.set_state(name, values, scope=scope)
                    held.update(values)
                case 3:
                    assert store.delete_state(name, key, scope=scope) == (held.pop(key, held) is not held)
                case 4 | 5:
                    by = chance.choice([1, -3, 0.25])
                    if isinstance(held.get(key, 0), int | float):
                        assert store.increment_state(name, key, by, scope=scope) == held.get(key, 0) + by
                        held[key] = held.get(key, 0) + by
                    else:
                        with pytest.raises(ConflictError):
                            store.increment_state(name, key, by, scope=scope)
                case 6:
                    store.delete(name)
                    for gone in ("session", "temp"):
                        model.pop((gone, owners[gone]), None)
                    del lives[name]
                    continue
                case _:
                    if chance.random() < 0.2:
                        store.close()
                        store = sessionstore.open(store_path, durability="normal")
                        for each in [each for each in model if each[0] == "temp"]:
                            del model[each]
            layers = [model[each, owners[each]] for each in ("app", "user", "session", "temp")]
            assert store.state(name) == {each: value for layer in layers for each, value in layer.items()}
            present = [each for each in FILE_SCOPES if owners[each] is not None]
            assert all(store.state(name, scope=each) == model[each, owners[each]] for each in present)  # type: ignore[arg-type]
        live = {(scope, owner): values for (scope, owner), values in model.items() if scope != "temp" and values}
        assert len(rows_of(store)) == sum(map(len, live.values()))
    finally:
        store.close()


def test_state_tells_when_it_was_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """For readers of the file."""
    chat = store.session("s")
    for day, change in enumerate(
        (lambda: chat.set_state({"n": 1}), lambda: chat.increment_state("n"), lambda: chat.set_state({"n": 9}))
    ):
        moment = datetime(2030, 1, 1 + day, tzinfo=UTC)
        monkeypatch.setattr(clock, "utc_now", lambda moment=moment: moment)
        change()
        assert store.query("SELECT updated_at FROM state_values").rows == ((clock.to_text(moment),),)
