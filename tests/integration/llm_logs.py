"""Real `logs.db` files, written by the `llm` package itself with a model that answers by a script, offline."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm
import sqlite_utils
from llm.parts import StreamEvent

Answer = list[StreamEvent]


def says(text: str) -> StreamEvent:
    return StreamEvent(type="text", chunk=text)


def thinks(text: str, **more: Any) -> StreamEvent:
    return StreamEvent(type="reasoning", chunk=text, **more)


def calls(name: str, arguments: dict[str, Any], call_id: str | None, **more: Any) -> list[StreamEvent]:
    return [
        StreamEvent(type="tool_call_name", chunk=name, tool_call_id=call_id, **more),
        StreamEvent(type="tool_call_args", chunk=json.dumps(arguments), tool_call_id=call_id, tool_name=name, **more),
    ]


class ScriptedModel(llm.Model):
    """It gives the answers that it was made with, one after the other."""

    model_id = "scripted"
    can_stream = True
    supports_tools = True
    attachment_types = frozenset({"image/png", "audio/wav", "application/pdf"})

    class Options(llm.Options):
        temperature: float | None = None

    def __init__(self, *answers: Answer, resolved: str | None = None, details: dict[str, Any] | None = None) -> None:
        self._answers = iter(answers)
        self._resolved = resolved
        self._details = details

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[StreamEvent]:
        response.set_usage(input=11, output=7, details=self._details)
        if self._resolved:
            response.set_resolved_model(self._resolved)
        for event in next(self._answers):
            if event.type == "tool_call_args" and not event.server_executed:
                response.add_tool_call(
                    llm.ToolCall(name=event.tool_name or "", arguments=json.loads(event.chunk), tool_call_id=event.tool_call_id)
                )
            yield event


@functools.cache
def _migrated() -> bytes:
    """An empty database of llm's. Its migrations take a second."""
    from llm.migrations import migrate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logs.db"
        database = sqlite_utils.Database(path)
        migrate(database)
        database.close()
        return path.read_bytes()


@contextmanager
def logs(path: Path) -> Iterator[sqlite_utils.Database]:
    """The database, with llm's own tables in it."""
    if not path.exists():
        path.write_bytes(_migrated())
    database = sqlite_utils.Database(path)
    try:
        yield database
    finally:
        database.close()
