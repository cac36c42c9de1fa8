"""OpenAI chat JSONL: a line goes in and comes out equal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sessionstore import InvalidInputError
from sessionstore.formats import openai

NOW = datetime(2026, 1, 31, tzinfo=UTC)
HELLO = {"role": "user", "content": "hello"}


def read(line: dict[str, Any]) -> Any:
    return openai.conversation(line, fallback_id="file-3", namespace="", now=NOW, max_bytes=1_000)


def written(line: dict[str, Any]) -> dict[str, Any]:
    info, _ = read(line)
    return json.loads("".join(openai.conversation_parts(info, line["messages"])))


@pytest.mark.parametrize(
    ("keys", "session_id"),
    [
        ({}, "file-3"),
        ({"session_id": "a", "id": "b"}, "a"),
        ({"id": "b", "conversation_id": "c"}, "b"),
        ({"conversation_id": "c"}, "c"),
        ({"id": 17}, "file-3"),
        ({"session_id": None, "id": "b"}, "b"),
    ],
)
def test_the_session_id_is_the_first_text_among_the_usual_keys(keys: dict[str, Any], session_id: str) -> None:
    assert read({**keys, "messages": [HELLO]})[0].session_id == session_id


@pytest.mark.parametrize(
    "line",
    [
        {"messages": []},
        {"messages": [HELLO, {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}]},
        {"task_id": 0, "reward": 0.0, "messages": [HELLO]},
        {"messages": [HELLO], "tools": [{"type": "function"}], "metadata": {"topic": "x"}, "id": "keep"},
        {"messages": [HELLO], "metadata": None, "conversation_id": "c", "session_id": "s"},
        {"messages": [HELLO], "session_id": 5},
    ],
)
def test_a_line_comes_back_equal_with_its_session_id(line: dict[str, Any]) -> None:
    assert written(line) == {"session_id": read(line)[0].session_id, **line}


@pytest.mark.parametrize("metadata", [{"messages": "mine"}, {"session_id": "other"}])
def test_metadata_that_would_hide_messages_or_id_stand_apart(metadata: dict[str, Any]) -> None:
    info = openai.session("s", namespace="", now=NOW, metadata=metadata)
    line = json.loads("".join(openai.conversation_parts(info, [HELLO])))
    assert line == {"session_id": "s", "metadata": metadata, "messages": [HELLO]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({}, "messages: must be a list"),
        ({"messages": {}}, "messages: must be a list"),
        ({"messages": [HELLO, "hi"]}, r"messages\[1\]\.message: must be a dict"),
        ({"messages": [{"role": "wizard", "content": ""}]}, r"messages\[0\]\.role: must be one of"),
        ({"messages": [HELLO], "id": ""}, "session_id: must not be empty"),
        ({"messages": [HELLO], "x": float("inf")}, "metadata: numbers must be finite"),
    ],
)
def test_a_bad_line_is_refused_with_the_place_of_the_fault(line: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        read(line)
