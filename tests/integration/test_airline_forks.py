"""100 real conversations, forked at every tenth message and changed on both sides, equal plain lists dict by dict."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import sessionstore

Conversation = dict[str, Any]
SEED = 20_261_122


def test_forks_of_real_conversations_equal_plain_lists(tmp_path: Path, airline_conversations: list[Conversation]) -> None:
    """Each is forked at every tenth message, every third fork is forked again; then all go on, lose ends, or are deleted."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    model: dict[str, list[dict[str, Any]]] = {}
    with sessionstore.open(tmp_path / "agent.db", durability="normal") as store:
        for number, conversation in enumerate(airline_conversations):
            chat = store.session(f"c{number}")
            chat.append_many(conversation["messages"])
            model[f"c{number}"] = list(conversation["messages"])
            for at in range(10, len(conversation["messages"]) + 1, 10):
                fork = chat.fork(f"c{number}-{at}", at=at, cut_pairs="keep")
                model[fork.session_id] = conversation["messages"][:at]
                if at % 30 == 0:
                    again = fork.fork(f"c{number}-{at}-again", at=at - 5, cut_pairs="keep")
                    model[again.session_id] = conversation["messages"][: at - 5]
        assert len(model) > 300
        for name in chance.sample(sorted(model), k=len(model)):
            match chance.randrange(5):
                case 0:
                    store.append(name, {"role": "user", "content": f"only in {name}"})
                    model[name] = [*model[name], {"role": "user", "content": f"only in {name}"}]
                case 1:
                    popped = store.pop(name)
                    assert popped is not None
                    assert popped.to_dict() == model[name][-1]
                    model[name] = model[name][:-1]
                case 2:
                    kept = chance.randrange(len(model[name]))
                    store.truncate(name, after=kept)
                    model[name] = model[name][:kept]
                case 3:
                    store.delete(name)
                    del model[name]
    with sessionstore.open(tmp_path / "agent.db") as store:
        assert store.count() == len(model)
        for name, expected in model.items():
            assert [message.to_dict() for message in store.messages(name)] == expected, name
        assert store.doctor().ok


def test_a_cut_never_parts_a_real_call_from_its_result(tmp_path: Path, airline_conversations: list[Conversation]) -> None:
    """Wherever it is asked for, and it moves by no more than the turn that it lies in."""
    with sessionstore.open(tmp_path / "agent.db", durability="normal") as store:
        for number, conversation in enumerate(airline_conversations[:20]):
            messages = conversation["messages"]
            chat = store.session(f"c{number}")
            chat.append_many(messages)
            for at in range(len(messages) + 1):
                fork = chat.fork(f"c{number}-{at}", at=at)
                left = [message.to_dict() for message in fork.messages()]
                assert left == messages[: len(left)]
                assert not answers(messages[len(left) :]) & calls(left)
                assert answers(messages[len(left) : at + 1]) or len(left) == at


def calls(messages: list[dict[str, Any]]) -> set[str]:
    made = {call["id"] for message in messages for call in message.get("tool_calls") or ()}
    return made - answers(messages)


def answers(messages: list[dict[str, Any]]) -> set[str]:
    return {message["tool_call_id"] for message in messages if message.get("tool_call_id")}
