"""`append_many` with state and with an expected last seq: one transaction, all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sessionstore import ConflictError, InvalidInputError, NewMessage, NotFoundError, SessionStore

HELLO = {"role": "user", "content": "Hello"}
Dump = Callable[[], dict[str, Any]]


def test_messages_and_state_are_stored_together(store: SessionStore) -> None:
    store.session("s", user_id="alice", agent_id="trips")
    store.session("other", user_id="alice", agent_id="trips")
    (message,) = store.append_many("s", [HELLO], state={"session": {"step": 1}, "user": {"lang": "it"}, "app": {"x": None}})
    assert message.seq == 1
    assert store.state("s") == {"step": 1, "lang": "it", "x": None}
    assert store.state("other") == {"lang": "it", "x": None}


def test_state_alone_is_stored_without_messages(store: SessionStore) -> None:
    store.session("s").append(HELLO)
    assert store.append_many("s", [], state={"session": {"step": 1}}, expected_last_seq=1) == []
    assert store.state("s") == {"step": 1}


@pytest.mark.parametrize("messages", [[HELLO], []], ids=["with a message", "without"])
def test_an_append_that_counts_on_another_last_seq_stores_nothing(
    store: SessionStore, dump: Dump, messages: list[dict[str, str]]
) -> None:
    store.session("s").append(HELLO)
    before = dump()
    for expected in (0, 2):
        with pytest.raises(ConflictError, match="last seq of session 's' is 1") as caught:
            store.append_many("s", messages, state={"session": {"step": 1}}, expected_last_seq=expected)
        assert caught.value.session_id == "s"
    assert dump() == before
    assert [message.seq for message in store.append_many("s", [HELLO, HELLO], expected_last_seq=1)] == [2, 3]


def test_the_last_seq_does_not_go_back_when_messages_are_removed(store: SessionStore) -> None:
    chat = store.session("s")
    chat.append_many([HELLO, HELLO], expected_last_seq=0)
    chat.pop()
    assert chat.append_many([HELLO], expected_last_seq=2)[0].seq == 3


def test_a_repeated_append_neither_conflicts_nor_sets_state_again(store: SessionStore) -> None:
    chat = store.session("s")
    new = [NewMessage(HELLO, dedupe_key="k")]
    first = chat.append_many(new, state={"session": {"step": 1}}, expected_last_seq=0)
    chat.set_state({"step": 2})
    assert chat.append_many(new, state={"session": {"step": 1}}, expected_last_seq=0) == first
    assert chat.state() == {"step": 2}


def test_an_append_with_one_new_message_among_known_ones_is_checked(store: SessionStore) -> None:
    chat = store.session("s")
    known = NewMessage(HELLO, dedupe_key="k")
    chat.append_many([known])
    chat.append(HELLO)
    with pytest.raises(ConflictError):
        chat.append_many([known, HELLO], expected_last_seq=1)
    assert len(chat.append_many([known, HELLO], state={"session": {"x": 1}}, expected_last_seq=2)) == 2
    assert chat.state() == {"x": 1}


REFUSED: dict[str, dict[str, Any]] = {
    "no dict": {"state": [1]},
    "no dict of dicts": {"state": {"session": 1}},
    "the scope temp": {"state": {"temp": {"x": 1}}},
    "no scope": {"state": {"world": {"x": 1}}},
    "no name": {"state": {"session": {"": 1}}},
    "no JSON": {"state": {"session": {"x": object()}}},
    "a user's without a user": {"state": {"session": {"x": 1}, "user": {"x": 1}}},
    "a negative seq": {"expected_last_seq": -1},
    "a seq that is True": {"expected_last_seq": True},
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_stores_no_message(store: SessionStore, dump: Dump, arguments: dict[str, Any]) -> None:
    store.session("s")
    before = dump()
    with pytest.raises(InvalidInputError):
        store.append_many("s", [HELLO], **arguments)
    assert dump() == before


def test_an_unknown_session_is_told(store: SessionStore) -> None:
    with pytest.raises(NotFoundError):
        store.append_many("s", [HELLO], state={"app": {"x": 1}}, expected_last_seq=0)


def test_of_many_who_count_on_the_same_last_seq_one_wins(store: SessionStore) -> None:
    store.session("s")
    ready = threading.Barrier(8)
    outcomes: list[str] = []

    def run(number: int) -> None:
        ready.wait()
        try:
            store.append_many("s", [HELLO], state={"session": {"winner": number}}, expected_last_seq=0)
        except ConflictError:
            outcomes.append("lost")
        else:
            outcomes.append(str(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome != "lost"]
    assert len(outcomes) == 8
    assert store.state("s") == {"winner": int(winner)}
    assert store.get("s").message_count == 1  # type: ignore[union-attr]
